package payment

import (
	"context"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// Payment is one thing to pay.
type Payment struct {
	To      peer.ID
	Amount  Amount
	Ref     []byte   // what it is for, at most 256 bytes; empty: paid as often as asked
	Budgets []Budget // what it counts in, at most 8, beside the budget of everything
}

// Budget is a name that spending is added up under.
type Budget struct {
	Key    string // at most 128 bytes; "" is the budget of everything
	Limit  Amount // in all; zero: none
	PerDay Amount // in a UTC day; zero: none
}

const (
	maxRefBytes    = 256
	maxBudgetBytes = 128
	maxBudgets     = 8
)

// Pay pays p.Amount more and returns the voucher to send, which is on the disk. The same ref again
// pays nothing, and returns the last voucher of its channel, or the zero Voucher where that channel is
// not kept any more. An amount of zero pays nothing and gives the zero Voucher. Errors wrap
// [ErrNoChannel] and [ErrDeposit], which [Accounts.EnsureChannel] helps against, [ErrBudget],
// [ErrRef] for a ref with another amount or payee, and [ErrLimit] for too many refs. After any other
// error it is not known whether p was paid; a repetition with the same ref tells.
func (a *Accounts) Pay(ctx context.Context, p Payment) (Voucher, error) {
	return a.PayWith(ctx, p, nil)
}

// PayWith is like Pay, and what fn writes is committed in the same transaction. Fn may run more than
// once and must not keep txn; an error of it is returned, and nothing is paid. Other payments wait
// for it.
func (a *Accounts) PayWith(ctx context.Context, p Payment, fn func(txn *badger.Txn, v Voucher) error) (Voucher, error) {
	if err := ctx.Err(); err != nil {
		return Voucher{}, fmt.Errorf("pay %s: %w", p.To, context.Cause(ctx))
	}
	v, newRef, err := a.payOwn(p, fn)
	if err == nil {
		err = a.disk.Sync()
	}
	if err != nil {
		return Voucher{}, fmt.Errorf("pay %s: %w", p.To, err)
	}
	if newRef {
		a.refs.Add(1)
	}
	return v, nil
}

func (a *Accounts) payOwn(p Payment, fn func(txn *badger.Txn, v Voucher) error) (v Voucher, newRef bool, err error) {
	a.payMu.Lock()
	defer a.payMu.Unlock()
	err = a.update(func(txn *badger.Txn) error {
		var err error
		if v, newRef, err = a.pay(txn, p); err != nil || fn == nil {
			return err
		}
		return fn(txn, v)
	})
	return v, newRef, err
}

// PayTxn is like Pay within a transaction of the caller, on the same database. The voucher must not
// leave before the transaction is committed and [Accounts.Sync] has returned. Where another payment
// came between, Commit returns badger.ErrConflict, nothing is paid, and the voucher is void.
func (a *Accounts) PayTxn(txn *badger.Txn, p Payment) (Voucher, error) {
	v, newRef, err := a.pay(txn, p)
	if err != nil {
		return Voucher{}, fmt.Errorf("pay %s: %w", p.To, err)
	}
	if newRef {
		a.refs.Add(1)
	}
	return v, nil
}

// Sync returns when everything committed before it is on the disk, payments or not.
func (a *Accounts) Sync() error { return a.disk.Sync() }

// pay writes a payment into txn.
func (a *Accounts) pay(txn *badger.Txn, p Payment) (v Voucher, newRef bool, err error) {
	if err := p.check(); err != nil || p.Amount == 0 {
		return Voucher{}, false, err
	}
	if len(p.Ref) > 0 {
		v, found, err := a.paidBefore(txn, p)
		if err != nil || found {
			return v, false, err
		}
		if a.refs.Load() >= int64(a.cfg.Limits.MaxRefs) {
			return Voucher{}, false, fmt.Errorf("%d refs: %w", a.cfg.Limits.MaxRefs, ErrLimit)
		}
	}
	if v, err = a.grow(txn, p); err != nil {
		return Voucher{}, false, err
	}
	if err := a.spend(txn, p); err != nil {
		return Voucher{}, false, err
	}
	if len(p.Ref) > 0 {
		note := &pb.Paid{Amount: uint64(p.Amount), Payee: []byte(p.To), Channel: v.Channel[:], At: a.now()}
		if err := put(txn, a.refKey(p.Ref), note); err != nil {
			return Voucher{}, false, err
		}
	}
	a.counts.payments.Add(1)
	return v, len(p.Ref) > 0, nil
}

func (p Payment) check() error {
	switch {
	case !validPeer(p.To):
		return fmt.Errorf("peer ID: %w", ErrMalformed)
	case len(p.Ref) > maxRefBytes:
		return fmt.Errorf("ref of %d bytes: %w", len(p.Ref), ErrMalformed)
	case len(p.Budgets) > maxBudgets:
		return fmt.Errorf("%d budgets: %w", len(p.Budgets), ErrMalformed)
	}
	for _, b := range p.Budgets {
		if len(b.Key) > maxBudgetBytes {
			return fmt.Errorf("budget of %d bytes: %w", len(b.Key), ErrMalformed)
		}
	}
	return p.Amount.check("payment")
}

// paidBefore looks a ref up, and gives the last voucher of its channel.
func (a *Accounts) paidBefore(txn *badger.Txn, p Payment) (Voucher, bool, error) {
	var note pb.Paid
	found, err := get(txn, a.refKey(p.Ref), &note)
	if err != nil || !found {
		return Voucher{}, false, err
	}
	if note.Amount != uint64(p.Amount) || string(note.Payee) != string(p.To) || len(note.Channel) != len(ChannelID{}) {
		return Voucher{}, true, fmt.Errorf("%d, not %d: %w", note.Amount, p.Amount, ErrRef)
	}
	id := ChannelID(note.Channel)
	var r pb.Record
	if found, err = get(txn, a.channelKey(tagOut, p.To, id), &r); err != nil || !found {
		return Voucher{}, true, err
	}
	return lastVoucher(id, &r), true, nil
}

// grow signs the next voucher of the current channel.
func (a *Accounts) grow(txn *badger.Txn, p Payment) (Voucher, error) {
	var t pb.Totals
	var r pb.Record
	if _, err := get(txn, a.peerKey(tagPaid, p.To), &t); err != nil {
		return Voucher{}, err
	}
	if len(t.Current) != len(ChannelID{}) {
		return Voucher{}, ErrNoChannel
	}
	id := ChannelID(t.Current)
	found, err := get(txn, a.channelKey(tagOut, p.To, id), &r)
	if err != nil {
		return Voucher{}, err
	}
	if !found || r.Phase != pb.Record_Open {
		return Voucher{}, ErrNoChannel
	}
	if left := Amount(r.Deposit).less(Amount(r.Amount)); p.Amount > left {
		return Voucher{}, fmt.Errorf("%d of the %d that are left: %w", p.Amount, left, ErrDeposit)
	}
	sum, err := Amount(t.Sum).Add(p.Amount)
	if err != nil {
		return Voucher{}, err
	}
	v, err := NewVoucher(a.cfg.Key, id, Amount(r.Amount)+p.Amount, r.Sequence+1)
	if err != nil {
		return Voucher{}, err
	}
	r.Amount, r.Sequence, r.Signature = uint64(v.Amount), v.Sequence, v.Signature
	r.Touched, t.Sum = a.now(), uint64(sum)
	if err := put(txn, a.channelKey(tagOut, p.To, id), &r); err != nil {
		return Voucher{}, err
	}
	return v, put(txn, a.peerKey(tagPaid, p.To), &t)
}

// Last returns the last vouchers to payee, one a channel that is not closed, to be sent again after
// a connection was lost. They are on the disk. At most the 16 channels paid through last are told.
func (a *Accounts) Last(ctx context.Context, payee peer.ID) ([]Voucher, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("last vouchers to %s: %w", payee, context.Cause(ctx))
	}
	var all []entry
	err := a.cfg.DB.View(func(txn *badger.Txn) error {
		return a.channels(txn, tagOut, payee, func(e entry) error {
			if live(e.rec) && !lastVoucher(e.id, e.rec).IsZero() {
				all = append(all, e)
			}
			return nil
		})
	})
	if err == nil && len(all) > 0 {
		err = a.disk.Sync() // a transaction of the caller may not be on the disk yet
	}
	if err != nil {
		return nil, fmt.Errorf("last vouchers to %s: %w", payee, err)
	}
	return newest(all), nil
}

// Forget drops a ref, when its payment will not be asked for again. It need not be on the disk when
// Forget returns.
func (a *Accounts) Forget(ref []byte) error {
	found := false
	err := a.update(func(txn *badger.Txn) error {
		var err error
		if found, err = get(txn, a.refKey(ref), &pb.Paid{}); err != nil || !found {
			return err
		}
		return txn.Delete(a.refKey(ref))
	})
	if err != nil {
		return fmt.Errorf("forget ref: %w", err)
	}
	if found {
		a.refs.Add(-1)
	}
	return nil
}
