package payment

import (
	"fmt"
	"math"
	"strconv"
)

// Amount counts the ledger's smallest unit. Valid amounts are at most [MaxAmount].
type Amount uint64

// MaxAmount is the largest amount; it leaves room for a sign.
const MaxAmount Amount = math.MaxInt64

// Add returns a+b, or an error that wraps [ErrOverflow].
func (a Amount) Add(b Amount) (Amount, error) {
	if a > MaxAmount || b > MaxAmount-a {
		return 0, fmt.Errorf("add %d and %d: %w", a, b, ErrOverflow)
	}
	return a + b, nil
}

// Sub returns a-b, or an error that wraps [ErrOverflow] where b is larger.
func (a Amount) Sub(b Amount) (Amount, error) {
	if b > a {
		return 0, fmt.Errorf("subtract %d from %d: %w", b, a, ErrOverflow)
	}
	return a - b, nil
}

// Mul returns a×n, or an error that wraps [ErrOverflow].
func (a Amount) Mul(n uint64) (Amount, error) {
	if n != 0 && (a > MaxAmount || a > MaxAmount/Amount(n)) {
		return 0, fmt.Errorf("multiply %d by %d: %w", a, n, ErrOverflow)
	}
	return a * Amount(n), nil
}

// less returns a-b, and zero where b is larger.
func (a Amount) less(b Amount) Amount { return a - min(a, b) }

func (a Amount) String() string { return strconv.FormatUint(uint64(a), 10) }

// check refuses amounts over MaxAmount.
func (a Amount) check(what string) error {
	if a > MaxAmount {
		return fmt.Errorf("%s of %d: %w", what, a, ErrOverflow)
	}
	return nil
}
