package payment

import (
	"fmt"
	"maps"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// ledger is a book without file, clock or lock. After an error it may be changed in part: [Book]
// changes a clone and drops it then.
type ledger struct {
	revision uint64
	balances map[peer.ID]int64
	channels map[ChannelID]Channel
}

func newLedger() *ledger {
	return &ledger{balances: map[peer.ID]int64{}, channels: map[ChannelID]Channel{}}
}

func (l *ledger) clone() *ledger {
	return &ledger{revision: l.revision, balances: maps.Clone(l.balances), channels: maps.Clone(l.channels)}
}

func (l *ledger) channel(id ChannelID) (Channel, error) {
	c, ok := l.channels[id]
	if !ok {
		return Channel{}, fmt.Errorf("channel %s: %w", id, ErrNoChannel)
	}
	return c, nil
}

// transfer moves between a peer's account and a deposit: n > 0 into the account.
func (l *ledger) transfer(p peer.ID, n int64) error {
	b := l.balances[p]
	sum := b + n
	if (n > 0 && sum < b) || (n < 0 && sum > b) {
		return fmt.Errorf("balance of %s: %w", p, ErrOverflow)
	}
	l.balances[p] = sum
	return nil
}

// open lays down a deposit. The opening has been verified.
func (l *ledger) open(o Opening, now time.Time) (Channel, error) {
	id := o.ID()
	if c, ok := l.channels[id]; ok {
		if c.Deposit != o.Deposit || c.Challenge != o.Challenge {
			return Channel{}, fmt.Errorf("channel %s: %w", id, ErrExists)
		}
		return c, nil
	}
	if o.At.Before(now.Add(-openingOld)) || o.At.After(now.Add(openingAhead)) {
		return Channel{}, fmt.Errorf("opening of %s: %w", o.At.UTC().Format(time.RFC3339), ErrExpired)
	}
	if err := l.transfer(o.Payer, -int64(o.Deposit)); err != nil {
		return Channel{}, err
	}
	c := Channel{ID: id, Payer: o.Payer, Payee: o.Payee, Nonce: o.Nonce, Deposit: o.Deposit,
		Challenge: o.Challenge, State: StateOpen, Opened: now}
	l.channels[id] = c
	return c, nil
}

// settle gives the payee what a verified voucher adds.
func (l *ledger) settle(c Channel, v Voucher, now time.Time) (Channel, error) {
	if v.Amount <= c.Settled {
		return c, nil
	}
	if v.Amount > c.Deposit {
		return c, fmt.Errorf("settle %d of %d: %w", v.Amount, c.Deposit, ErrDeposit)
	}
	if c.over(now) {
		return c, fmt.Errorf("settle %d after %d: %w", v.Amount, c.Settled, ErrClosed)
	}
	if err := l.transfer(c.Payee, int64(v.Amount-c.Settled)); err != nil {
		return c, err
	}
	c.Settled, c.Sequence = v.Amount, v.Sequence
	l.channels[c.ID] = c
	return c, nil
}

// close closes a channel for one of its sides, whose signature has been verified.
func (l *ledger) close(c Channel, by peer.ID, now time.Time) (Channel, error) {
	switch {
	case by != c.Payer && by != c.Payee:
		return c, fmt.Errorf("close: %w", ErrParty)
	case c.State == StateClosed:
		return c, nil
	case by == c.Payee || c.over(now) || c.Settled == c.Deposit || c.Challenge == 0:
		return l.end(c, now)
	case c.State == StateClosing:
		return c, nil
	}
	c.State, c.Due = StateClosing, now.Add(c.Challenge)
	l.channels[c.ID] = c
	return c, nil
}

// finish ends a channel whose challenge period has ended.
func (l *ledger) finish(c Channel, now time.Time) (Channel, error) {
	if c.State == StateClosed {
		return c, nil
	}
	if !c.over(now) {
		return c, fmt.Errorf("channel %s: %w", c.ID, ErrNotDue)
	}
	return l.end(c, now)
}

func (l *ledger) end(c Channel, now time.Time) (Channel, error) {
	if err := l.transfer(c.Payer, int64(c.Deposit-c.Settled)); err != nil {
		return c, err
	}
	c.State, c.Closed = StateClosed, now
	l.channels[c.ID] = c
	return c, nil
}

// prune forgets channels closed before the given time, and empty accounts without a channel.
func (l *ledger) prune(before time.Time) {
	used := map[peer.ID]bool{}
	for id, c := range l.channels {
		if c.State == StateClosed && c.Closed.Before(before) {
			delete(l.channels, id)
			continue
		}
		used[c.Payer], used[c.Payee] = true, true
	}
	maps.DeleteFunc(l.balances, func(p peer.ID, n int64) bool { return n == 0 && !used[p] })
}

// check finds what no sequence of changes can lead to.
func (l *ledger) check() error {
	var sum wide
	for _, n := range l.balances {
		sum.add(n)
	}
	for id, c := range l.channels {
		if err := checkChannel(id, c); err != nil {
			return fmt.Errorf("channel %s: %w", id, err)
		}
		if c.State != StateClosed {
			sum.add(int64(c.Deposit - c.Settled))
		}
	}
	if sum != (wide{}) {
		return fmt.Errorf("accounts and deposits do not sum to zero: %w", ErrMalformed)
	}
	return nil
}

func checkChannel(id ChannelID, c Channel) error {
	o := Opening{Payer: c.Payer, Payee: c.Payee, Nonce: c.Nonce, Deposit: c.Deposit, Challenge: c.Challenge, At: c.Opened}
	if err := o.check(); err != nil {
		return err
	}
	closing := c.State == StateClosing
	closed := c.State == StateClosed
	switch {
	case o.ID() != id || c.ID != id:
		return fmt.Errorf("ID: %w", ErrMalformed)
	case c.Settled > c.Deposit:
		return fmt.Errorf("settled over the deposit: %w", ErrMalformed)
	case !closing && !closed && c.State != StateOpen:
		return fmt.Errorf("state %q: %w", c.State, ErrMalformed)
	case closing && !validTime(c.Due), closed && !validTime(c.Closed), !closed && !c.Closed.IsZero(),
		c.State == StateOpen && !c.Due.IsZero():
		return fmt.Errorf("times: %w", ErrMalformed)
	}
	return nil
}

// wide is a sum of many int64 that does not overflow: hi × 2^32 + lo.
type wide struct{ hi, lo int64 }

func (w *wide) add(n int64) {
	w.lo += n & (1<<32 - 1)
	w.hi += n>>32 + w.lo>>32
	w.lo &= 1<<32 - 1
}
