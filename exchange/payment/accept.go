package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// Accept takes a voucher from the peer that pays with it and returns by how much it is more than
// what was received through its channel. What was accepted is on the disk. A voucher that was
// accepted before, or one older than that, is no growth and no error. Errors wrap [ErrSignature],
// [ErrVoucher] where amount and sequence do not grow together, [ErrDeposit], [ErrNoChannel],
// [ErrParty] for a channel between others, [ErrTerms], [ErrClosed] and [ErrLimit].
// What the payer settled with the ledger by itself counts in [Accounts.Received] without a voucher.
//
// After an error of ctx the voucher may have been accepted; [Accounts.Received] tells.
func (a *Accounts) Accept(ctx context.Context, from peer.ID, v Voucher) (grew Amount, err error) {
	if err = v.Verify(from); err == nil {
		grew, err = a.accept(ctx, from, v)
	}
	if err != nil {
		a.counts.refused.Add(1)
		return 0, fmt.Errorf("accept voucher of %s: %w", from, err)
	}
	if err := a.disk.Settled(); err != nil {
		return 0, fmt.Errorf("accept voucher of %s: %w", from, err)
	}
	if grew > 0 {
		a.counts.accepted.Add(1)
	}
	return grew, nil
}

func (a *Accounts) accept(ctx context.Context, from peer.ID, v Voucher) (Amount, error) {
	unlock, err := a.paid.lock(ctx, from)
	if err != nil {
		return 0, err
	}
	defer unlock()
	r, found, err := a.record(tagIn, from, v.Channel)
	if err != nil {
		return 0, err
	}
	now := a.cfg.Now()
	switch {
	case !found:
		c, err := a.strangersChannel(ctx, from, v.Channel)
		if err != nil {
			return 0, err
		}
		return a.begin(ctx, from, c, v)
	case live(r) && a.views.stale(v.Channel, now, a.freshFor(r)):
		if err := a.refresh(ctx, tagIn, from, v.Channel); err != nil {
			return 0, err
		}
		if r, _, err = a.record(tagIn, from, v.Channel); err != nil {
			return 0, err
		}
	}
	if more, err := a.growth(r, v, now); err != nil || more == 0 {
		return 0, err
	}
	return a.take(from, v)
}

// freshFor is how old the ledger's answer about a channel may be.
func (a *Accounts) freshFor(r *pb.Record) time.Duration {
	return min(a.cfg.Every, time.Duration(r.ChallengeSeconds)*time.Second/8)
}

// growth checks a voucher against what is known of its channel. It decides without reading anything.
func (a *Accounts) growth(r *pb.Record, v Voucher, now time.Time) (Amount, error) {
	amount := uint64(v.Amount)
	switch {
	case amount > r.Deposit:
		return 0, fmt.Errorf("%d of %d: %w", v.Amount, r.Deposit, ErrDeposit)
	case amount == r.Amount && v.Sequence == r.Sequence, amount < r.Amount && v.Sequence < r.Sequence:
		return 0, nil
	case amount <= r.Amount || v.Sequence <= r.Sequence:
		return 0, fmt.Errorf("amount %d, sequence %d after %d, %d: %w", v.Amount, v.Sequence, r.Amount, r.Sequence, ErrVoucher)
	case !live(r), r.Phase == pb.Record_Retired, r.Phase == pb.Record_Closing && now.Add(2*a.cfg.Every).Unix() >= r.Due:
		return 0, ErrClosed // what comes this late can't be settled for sure
	}
	return Amount(amount - r.Amount), nil
}

// strangersChannel asks the ledger for a channel that is not known here, and checks its terms.
func (a *Accounts) strangersChannel(ctx context.Context, from peer.ID, id ChannelID) (Channel, error) {
	if !a.views.mayAsk(from, a.cfg.Now()) {
		return Channel{}, fmt.Errorf("not asked again so soon: %w", ErrNoChannel)
	}
	c, err := a.lookup(ctx, id)
	if errors.Is(err, ErrNoChannel) {
		a.views.strange(from, a.cfg.Now())
	}
	if err != nil {
		return Channel{}, err
	}
	if c.Payer == from && c.Payee == a.self && c.ID == id {
		if !a.cfg.Purpose.serves(c.Nonce) {
			return Channel{}, fmt.Errorf("the channel is for something else: %w", ErrTerms)
		}
		return c, nil
	}
	a.views.strange(from, a.cfg.Now())
	return Channel{}, ErrParty
}

// begin takes the first voucher of a channel.
func (a *Accounts) begin(ctx context.Context, from peer.ID, c Channel, v Voucher) (Amount, error) {
	r := recordOf(c)
	more, err := a.growth(r, v, a.cfg.Now())
	if err != nil || !live(r) {
		return 0, err
	}
	switch {
	case c.Challenge < a.cfg.MinChallenge:
		return 0, fmt.Errorf("challenge period of %v, less than %v: %w", c.Challenge, a.cfg.MinChallenge, ErrTerms)
	case c.Deposit < a.cfg.MinDeposit:
		return 0, fmt.Errorf("deposit of %d, less than %d: %w", c.Deposit, a.cfg.MinDeposit, ErrTerms)
	case more == 0:
		return 0, nil
	}
	err = a.addIncoming(from, c, r)
	if errors.Is(err, ErrLimit) {
		if err = a.closeUsedUp(ctx, from); err == nil {
			err = a.addIncoming(from, c, recordOf(c))
		}
	}
	if err != nil {
		return 0, err
	}
	return a.take(from, v)
}

// closeUsedUp closes the channels that a peer has paid all of its deposit through, rather than at the next look: a
// payer of small deposits needs many in a row. The caller holds the peer's lock.
func (a *Accounts) closeUsedUp(ctx context.Context, from peer.ID) error {
	return a.forPeer(tagIn, from, func(e entry) error {
		if e.rec.Phase != pb.Record_Open || e.rec.Amount < e.rec.Deposit {
			return nil
		}
		if err := a.retire(tagIn, from, e.id); err != nil {
			return err
		}
		return a.closeLedger(ctx, e)
	})
}

// recordOf is what there is to know of a channel when no voucher of it is known.
func recordOf(c Channel) *pb.Record {
	r := &pb.Record{Phase: pb.Record_Open, Deposit: uint64(c.Deposit), ChallengeSeconds: int64(c.Challenge / time.Second),
		Amount: uint64(c.Settled), Sequence: c.Sequence, Settled: uint64(c.Settled), Opened: c.Opened.Unix()}
	switch c.State {
	case StateClosing:
		r.Phase, r.Due = pb.Record_Closing, c.Due.Unix()
	case StateClosed:
		r.Phase, r.Closed = pb.Record_Closed, c.Closed.Unix()
	}
	return r
}

// addIncoming adds a channel as the ledger has it, without a voucher, unless there are too many.
func (a *Accounts) addIncoming(from peer.ID, c Channel, r *pb.Record) (err error) {
	if live(r) {
		defer func() {
			if err != nil {
				a.livePaid.Add(-1)
			}
		}()
		if a.livePaid.Add(1) > int64(a.cfg.Limits.PaidTotal) {
			return fmt.Errorf("channels of all peers: %w", ErrLimit)
		}
	}
	r.Touched, r.SettledAt = a.now(), a.now()
	return a.update(func(txn *badger.Txn) error {
		var t pb.Totals
		if _, err := get(txn, a.peerKey(tagReceived, from), &t); err != nil {
			return err
		}
		if live(r) {
			if int(t.Live) >= a.cfg.Limits.PaidPerPeer {
				return fmt.Errorf("%d channels of one peer: %w", t.Live, ErrLimit)
			}
			t.Live++
		}
		sum, err := Amount(t.Sum).Add(Amount(r.Amount))
		if err != nil {
			return err
		}
		t.Sum = uint64(sum)
		if err := put(txn, a.channelKey(tagIn, from, c.ID), r); err != nil {
			return err
		}
		return put(txn, a.peerKey(tagReceived, from), &t)
	})
}

// take commits a voucher that was checked. The peer's lock is held.
func (a *Accounts) take(from peer.ID, v Voucher) (more Amount, err error) {
	err = a.change(tagIn, from, v.Channel, func(r *pb.Record, t *pb.Totals) error {
		var err error
		if more, err = a.growth(r, v, a.cfg.Now()); err != nil || more == 0 {
			return err
		}
		sum, err := Amount(t.Sum).Add(more)
		if err != nil {
			return err
		}
		t.Sum = uint64(sum)
		r.Amount, r.Sequence, r.Signature, r.Touched = uint64(v.Amount), v.Sequence, v.Signature, a.now()
		return nil
	})
	if err != nil {
		return 0, err
	}
	return more, nil
}
