package exchange

import (
	"context"
	"fmt"
	"math"
	"math/bits"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Amount is money in the ledger's smallest unit.
type Amount uint64

// Spending says what may be paid for the blocks of a dataset. The zero Spending pays nothing.
type Spending struct {
	MaxPricePerMiB Amount // the most that a block may cost for each MiB it has
	Budget         Amount // the most that the whole dataset may cost
	// PerSecond is what a second saved is worth. At 0 time is worth nothing: a peer that wants money is
	// asked only for what no other one can deliver.
	PerSecond Amount
}

// Due is a payment for one block, which was verified and handed over.
type Due struct {
	Amount  Amount
	Dataset cid.Cid
	CID     cid.Cid
	Bytes   uint64 // the block's length
}

// Purse pays peers and remembers what was paid. Methods are safe for concurrent use.
type Purse interface {
	// Pay pays a peer all that is due. With an error nothing or all of it was paid; it is then called
	// again later with the same dues and the same ref, under which they are paid once only. No other
	// payment has that ref. The slices are the caller's.
	Pay(ctx context.Context, p peer.ID, ref []byte, due []Due) error
	// Spent returns what was paid since the day began, and what was ever paid for a dataset. It answers
	// at once, from memory; what Pay has returned for is part of it.
	Spent(dataset cid.Cid) (today, onDataset Amount)
}

// TooDearError says that all peers which have a block ask too much for it.
type TooDearError struct {
	CID    cid.Cid
	Peer   peer.ID // whose offer is the cheapest
	Price  Amount  // that it asks
	Bytes  uint64  // for a block of this length; 0 is unknown
	PerMiB Amount  // what that is for each MiB
	Limit  Amount  // what may be paid for each MiB
}

// Error names the cheapest offer and the limit.
func (e *TooDearError) Error() string {
	return fmt.Sprintf("%v: the cheapest offer is %d per MiB (%d for the block) by peer %s, the limit is %d per MiB",
		ErrTooDear, e.PerMiB, e.Price, e.Peer, e.Limit)
}

// Unwrap returns [ErrTooDear].
func (e *TooDearError) Unwrap() error { return ErrTooDear }

// BudgetError says that a block costs more than is left of a budget.
type BudgetError struct {
	CID     cid.Cid
	Dataset cid.Cid
	Peer    peer.ID // whose offer is the cheapest
	Price   Amount  // that it asks
	Spent   Amount  // of the budget
	Budget  Amount
	Day     bool // the budget is the day's; else it is the dataset's
}

// Error names the cheapest offer and the budget.
func (e *BudgetError) Error() string {
	whose := "this dataset"
	if e.Day {
		whose = "today"
	}
	return fmt.Sprintf("%v: the block costs %d by peer %s, and %d of %d for %s are spent", ErrBudget, e.Price, e.Peer, e.Spent, e.Budget, whose)
}

// Unwrap returns [ErrBudget].
func (e *BudgetError) Unwrap() error { return ErrBudget }

// plus adds amounts; what is too much for an Amount is the most that it can be.
func (a Amount) plus(b Amount) Amount {
	sum, carry := bits.Add64(uint64(a), uint64(b), 0)
	if carry > 0 {
		return math.MaxUint64
	}
	return Amount(sum)
}

// share returns a × of / whole rounded up, or the most that an Amount can be.
func (a Amount) share(of, whole uint64) Amount {
	hi, lo := bits.Mul64(uint64(a), of)
	lo, carry := bits.Add64(lo, whole-1, 0)
	if hi += carry; hi >= whole {
		return math.MaxUint64
	}
	n, _ := bits.Div64(hi, lo, whole)
	return Amount(n)
}
