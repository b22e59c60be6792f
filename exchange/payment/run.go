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

// Run looks at the ledger every Config.Every until ctx ends: it settles what was received, closes
// retired and idle channels, finishes refunds and forgets what need not be kept any more. It returns
// nil when ctx has ended.
func (a *Accounts) Run(ctx context.Context) error {
	tick := time.NewTicker(a.cfg.Every)
	defer tick.Stop()
	for {
		if err := a.Maintain(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("look after payment channels", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Maintain does once what Run does again and again. An error of one channel does not keep it from the others.
func (a *Accounts) Maintain(ctx context.Context) error {
	known, err := a.known(ctx)
	if err != nil {
		return fmt.Errorf("list channels in the ledger: %w", err)
	}
	entries, err := a.entries()
	if err != nil {
		return fmt.Errorf("list channels: %w", err)
	}
	var errs []error
	mine := map[ChannelID]bool{}
	for _, e := range entries {
		mine[e.id] = true
		if err := a.tend(ctx, e, known); err != nil {
			errs = append(errs, fmt.Errorf("channel %s with %s: %w", e.id, e.peer, err))
		}
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	for id, c := range known {
		switch {
		case mine[id]:
		case c.Payer == a.self && c.State != StateClosed:
			errs = append(errs, a.reclaim(ctx, c))
		case c.Payee == a.self && c.Settled > 0:
			errs = append(errs, a.meet(ctx, c))
		}
	}
	errs = append(errs, a.clean(), a.disk.Settled())
	return errors.Join(errs...)
}

// known asks the ledger for all channels of this peer.
func (a *Accounts) known(ctx context.Context) (map[ChannelID]Channel, error) {
	list, err := a.cfg.Ledger.Channels(ctx, a.self)
	if err != nil {
		return nil, err
	}
	all := make(map[ChannelID]Channel, len(list))
	for _, c := range list {
		if a.cfg.Purpose.serves(c.Nonce) {
			all[c.ID] = c
		}
	}
	return all, nil
}

// entries lists the channels that are not closed.
func (a *Accounts) entries() (all []entry, err error) {
	err = a.cfg.DB.View(func(txn *badger.Txn) error {
		for _, tag := range []byte{tagOut, tagIn} {
			err := a.channels(txn, tag, "", func(e entry) error {
				if live(e.rec) {
					e.rec = &pb.Record{Phase: e.rec.Phase} // the rest is read when it is needed
					all = append(all, e)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// tend does what is due for one channel.
func (a *Accounts) tend(ctx context.Context, e entry, known map[ChannelID]Channel) error {
	locks := &a.paid
	if e.tag == tagOut {
		locks = &a.paying
	}
	unlock, err := locks.lock(ctx, e.peer)
	if err != nil {
		return err
	}
	defer unlock()
	r, found, err := a.record(e.tag, e.peer, e.id)
	if err != nil || !found || !live(r) {
		return err
	}
	if e.rec = r; r.Phase == pb.Record_Opening {
		return a.tendOpening(ctx, e)
	}
	if c, ok := known[e.id]; ok {
		err = a.adopt(e.tag, e.peer, c)
		a.views.seen(e.id, a.cfg.Now())
	} else { // it may have been opened since the list was made
		err = a.refresh(ctx, e.tag, e.peer, e.id)
	}
	if err != nil {
		return err
	}
	if e.rec, found, err = a.record(e.tag, e.peer, e.id); err != nil || !found || !live(e.rec) {
		return err
	}
	if e.tag == tagIn {
		return a.tendIncoming(ctx, e)
	}
	return a.tendOutgoing(ctx, e)
}

// tendOpening takes up an opening that was broken off, if the ledger has heard of it, and drops it
// once it is too old to be heard.
func (a *Accounts) tendOpening(ctx context.Context, e entry) error {
	c, err := a.lookup(ctx, e.id)
	switch {
	case err == nil:
		return a.laid(e, c)
	case !errors.Is(err, ErrNoChannel):
		return err
	case a.cfg.Now().Sub(unixTime(e.rec.SignedAt)) > openingOld+openingAhead:
		return a.dropOpening(e)
	}
	return nil
}

func (a *Accounts) tendOutgoing(ctx context.Context, e entry) error {
	r := e.rec
	switch {
	case r.Phase == pb.Record_Closing && a.now() >= r.Due:
		return a.finishDue(ctx, e)
	case r.Phase == pb.Record_Open && a.idle(r):
		if err := a.retire(tagOut, e.peer, e.id); err != nil {
			return err
		}
		return a.closeLedger(ctx, e)
	case r.Phase == pb.Record_Retired:
		return a.closeLedger(ctx, e)
	}
	return nil
}

func (a *Accounts) idle(r *pb.Record) bool {
	return a.cfg.Now().Sub(unixTime(max(r.Touched, r.Opened))) >= a.cfg.IdleAfter
}

func (a *Accounts) tendIncoming(ctx context.Context, e entry) error {
	r := e.rec
	open := Amount(r.Amount - r.Settled)
	since := a.cfg.Now().Sub(unixTime(r.SettledAt))
	switch {
	case r.Phase == pb.Record_Closing && a.now() >= r.Due:
		return a.finishDue(ctx, e)
	case r.Phase == pb.Record_Retired, r.Phase == pb.Record_Open && a.idle(r):
		return a.closeLedger(ctx, e)
	case open == 0 || r.Phase == pb.Record_Open && since < a.cfg.SettleEvery && open < a.cfg.SettleAt:
		return nil
	}
	return a.settle(ctx, e)
}

// settle shows the ledger the last voucher.
func (a *Accounts) settle(ctx context.Context, e entry) error {
	c, err := a.cfg.Ledger.Settle(ctx, lastVoucher(e.id, e.rec))
	if err != nil {
		return err
	}
	if err := a.adopt(e.tag, e.peer, c); err != nil {
		return err
	}
	return a.change(e.tag, e.peer, e.id, func(r *pb.Record, _ *pb.Totals) error {
		r.SettledAt = a.now()
		return nil
	})
}

// reclaim closes a channel that pays from our deposit though nothing is known of it here, as after
// the database was lost.
func (a *Accounts) reclaim(ctx context.Context, c Channel) error {
	unlock, err := a.paying.lock(ctx, c.Payee)
	if err != nil {
		return err
	}
	defer unlock()
	r, found, err := a.record(tagOut, c.Payee, c.ID)
	if err != nil || found && live(r) {
		return err // opened since the list was made
	}
	e := entry{tag: tagOut, peer: c.Payee, id: c.ID}
	if c.State == StateClosing {
		return a.finishDue(ctx, e)
	}
	a.log.Warn("payment channel of ours is unknown here and is closed", "peer", c.Payee, "channel", c.ID)
	cl, err := NewClosing(a.cfg.Key, c.ID, lastVoucher(c.ID, r))
	if err == nil {
		_, err = a.cfg.Ledger.Close(ctx, cl)
	}
	return err
}

// meet adds a channel that the payer settled by itself and whose vouchers never came here.
func (a *Accounts) meet(ctx context.Context, c Channel) error {
	unlock, err := a.paid.lock(ctx, c.Payer)
	if err != nil {
		return err
	}
	defer unlock()
	if _, found, err := a.record(tagIn, c.Payer, c.ID); err != nil || found {
		return err
	}
	r := recordOf(c)
	full := a.livePaid.Load() >= int64(a.cfg.Limits.PaidTotal)
	if !live(r) {
		full = a.closed.Load() >= int64(a.cfg.Limits.Closed) || a.now()-r.Closed >= int64(a.cfg.Limits.KeepClosed/time.Second)
	}
	if full {
		return nil
	}
	err = a.addIncoming(c.Payer, c, r)
	if errors.Is(err, ErrLimit) {
		return nil
	}
	return err
}

// Settle shows the ledger now what was received from a peer, without waiting for Run.
func (a *Accounts) Settle(ctx context.Context, from peer.ID) error {
	unlock, err := a.paid.lock(ctx, from)
	if err != nil {
		return fmt.Errorf("settle with %s: %w", from, err)
	}
	defer unlock()
	err = a.forPeer(tagIn, from, func(e entry) error {
		if lastVoucher(e.id, e.rec).IsZero() || e.rec.Amount == e.rec.Settled {
			return nil
		}
		return a.settle(ctx, e)
	})
	if err != nil {
		return fmt.Errorf("settle with %s: %w", from, err)
	}
	return nil
}

// forPeer calls fn for each channel of a peer that is not closed. The peer's lock is held.
func (a *Accounts) forPeer(tag byte, p peer.ID, fn func(e entry) error) error {
	var all []entry
	err := a.cfg.DB.View(func(txn *badger.Txn) error {
		return a.channels(txn, tag, p, func(e entry) error {
			if live(e.rec) {
				all = append(all, e)
			}
			return nil
		})
	})
	errs := []error{err}
	for _, e := range all {
		errs = append(errs, fn(e))
	}
	return errors.Join(errs...)
}
