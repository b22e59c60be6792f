package payment

import (
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// spend adds a payment to its budgets and to the budget of everything.
func (a *Accounts) spend(txn *badger.Txn, p Payment) error {
	all := Budget{}
	rest := make([]Budget, 0, len(p.Budgets))
	seen := map[string]bool{"": true}
	for _, b := range p.Budgets {
		if b.Key == "" {
			all = b
		} else if !seen[b.Key] {
			rest = append(rest, b)
		}
		seen[b.Key] = true
	}
	day := dayOf(a.now())
	for _, b := range append(rest, all) {
		if err := a.count(txn, a.key(tagSpent, []byte(b.Key)), b, b.Limit, p.Amount); err != nil {
			return err
		}
		if err := a.count(txn, a.dayKey(day, b.Key), b, b.PerDay, p.Amount); err != nil {
			return err
		}
	}
	return nil
}

func (a *Accounts) count(txn *badger.Txn, key []byte, b Budget, limit, more Amount) error {
	var s pb.Spending
	if _, err := get(txn, key, &s); err != nil {
		return err
	}
	sum, err := Amount(s.Amount).Add(more)
	if err != nil {
		return fmt.Errorf("budget %q: %w", b.Key, err)
	}
	if limit > 0 && sum > limit {
		return fmt.Errorf("budget %q: %d after %d of %d: %w", b.Key, more, s.Amount, limit, ErrBudget)
	}
	s.Amount, s.Touched = uint64(sum), a.now()
	return put(txn, key, &s)
}

// Spent returns what was paid under a budget in all; "" is the budget of everything. It is as durable as the payments.
func (a *Accounts) Spent(key string) (Amount, error) {
	return a.spent(key, a.key(tagSpent, []byte(key)))
}

// SpentOn returns what was paid under a budget on a UTC day. Days are kept as long as budgets are.
func (a *Accounts) SpentOn(key string, day time.Time) (Amount, error) {
	return a.spent(key, a.dayKey(dayOf(day.Unix()), key))
}

// SpentToday returns what was paid under a budget on this UTC day.
func (a *Accounts) SpentToday(key string) (Amount, error) { return a.SpentOn(key, a.cfg.Now()) }

func (a *Accounts) spent(name string, key []byte) (Amount, error) {
	var s pb.Spending
	err := a.cfg.DB.View(func(txn *badger.Txn) error {
		_, err := get(txn, key, &s)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read budget %q: %w", name, err)
	}
	return Amount(s.Amount), nil
}
