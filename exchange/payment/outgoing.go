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

// EnsureChannel makes sure that at least atLeast can be paid to payee, and returns the channel that
// will be paid through. Where the current channel does not have as much left, or is closed, it opens
// another with a deposit of deposit, or of atLeast if that is more; the old one is retired: settled
// and closed by [Accounts.Run]. An opening that a crash broke off is taken up again. Errors are the
// ledger's, or wrap [ErrLimit].
func (a *Accounts) EnsureChannel(ctx context.Context, payee peer.ID, atLeast, deposit Amount) (ChannelID, error) {
	id, err := a.ensure(ctx, payee, max(atLeast, 1), max(deposit, atLeast, 1))
	if err != nil {
		return ChannelID{}, fmt.Errorf("ensure payment channel to %s: %w", payee, err)
	}
	return id, nil
}

func (a *Accounts) ensure(ctx context.Context, payee peer.ID, atLeast, deposit Amount) (ChannelID, error) {
	unlock, err := a.paying.lock(ctx, payee)
	if err != nil {
		return ChannelID{}, err
	}
	defer unlock()
	for range 4 { // an opening that was broken off, one that was too old, and ours
		id, ok, err := a.usable(ctx, payee, atLeast)
		if err != nil || ok {
			return id, err
		}
		e, found, err := a.pending(payee)
		if err == nil && !found {
			e, err = a.prepare(payee, deposit)
		}
		if err == nil {
			err = a.lay(ctx, e)
		}
		if errors.Is(err, ErrExpired) {
			continue
		}
		if err != nil {
			return ChannelID{}, err
		}
	}
	return ChannelID{}, fmt.Errorf("channels are closed as soon as they are opened: %w", ErrClosed)
}

// usable says whether the current channel has as much left. What is known of it is not older than
// the time between two looks at the ledger.
func (a *Accounts) usable(ctx context.Context, payee peer.ID, atLeast Amount) (ChannelID, bool, error) {
	t, err := a.totals(tagPaid, payee)
	if err != nil || len(t.Current) == 0 {
		return ChannelID{}, false, err
	}
	id := ChannelID(t.Current)
	if a.views.stale(id, a.cfg.Now(), a.cfg.Every) {
		if err := a.refresh(ctx, tagOut, payee, id); err != nil {
			if ctx.Err() != nil {
				return id, false, err
			}
			a.log.Warn("payment channel is used without asking the ledger", "peer", payee, "channel", id, "err", err)
		}
	}
	r, found, err := a.record(tagOut, payee, id)
	if err != nil || !found {
		return id, false, err
	}
	return id, r.Phase == pb.Record_Open && Amount(r.Deposit-r.Amount) >= atLeast, nil
}

// Refresh asks the ledger about the channels to payee now, as after payee said that one is closed.
func (a *Accounts) Refresh(ctx context.Context, payee peer.ID) error {
	unlock, err := a.paying.lock(ctx, payee)
	if err != nil {
		return fmt.Errorf("refresh channels to %s: %w", payee, err)
	}
	defer unlock()
	err = a.forPeer(tagOut, payee, func(e entry) error {
		if e.rec.Phase == pb.Record_Opening {
			return a.tendOpening(ctx, e)
		}
		return a.refresh(ctx, tagOut, payee, e.id)
	})
	if err != nil {
		return fmt.Errorf("refresh channels to %s: %w", payee, err)
	}
	return nil
}

// pending finds an opening that the ledger may not have heard of.
func (a *Accounts) pending(payee peer.ID) (e entry, found bool, err error) {
	err = a.cfg.DB.View(func(txn *badger.Txn) error {
		return a.channels(txn, tagOut, payee, func(x entry) error {
			if x.rec.Phase == pb.Record_Opening {
				e, found = x, true
			}
			return nil
		})
	})
	return e, found, err
}

// prepare signs an opening and brings it to the disk, so that its deposit can't be lost.
func (a *Accounts) prepare(payee peer.ID, deposit Amount) (entry, error) {
	if a.livePaying.Add(1) > int64(a.cfg.Limits.PayingTotal) {
		a.livePaying.Add(-1)
		return entry{}, fmt.Errorf("channels to pay through: %w", ErrLimit)
	}
	e, err := a.signOpening(payee, deposit)
	if err != nil {
		a.livePaying.Add(-1)
		return entry{}, err
	}
	return e, a.disk.Sync()
}

func (a *Accounts) signOpening(payee peer.ID, deposit Amount) (entry, error) {
	if _, err := payee.ExtractPublicKey(); err != nil {
		return entry{}, fmt.Errorf("payee: %w", ErrKey)
	}
	now := a.cfg.Now()
	o, err := newOpening(a.cfg.Key, payee, a.cfg.Purpose, deposit, a.cfg.Challenge, now)
	if err != nil {
		return entry{}, err
	}
	e := entry{tag: tagOut, peer: payee, id: o.ID(), rec: &pb.Record{
		Phase: pb.Record_Opening, Deposit: uint64(deposit), ChallengeSeconds: int64(o.Challenge / time.Second),
		Touched: now.Unix(), Nonce: o.Nonce[:], SignedAt: o.At.Unix(), OpeningSignature: o.Signature,
	}}
	return e, a.update(func(txn *badger.Txn) error {
		var t pb.Totals
		if _, err := get(txn, a.peerKey(tagPaid, payee), &t); err != nil {
			return err
		}
		t.Live++
		if err := put(txn, a.channelKey(tagOut, payee, e.id), e.rec); err != nil {
			return err
		}
		return put(txn, a.peerKey(tagPaid, payee), &t)
	})
}

func (a *Accounts) opening(e entry) Opening {
	o := Opening{Payer: a.self, Payee: e.peer, Deposit: Amount(e.rec.Deposit), At: unixTime(e.rec.SignedAt),
		Challenge: time.Duration(e.rec.ChallengeSeconds) * time.Second, Signature: e.rec.OpeningSignature}
	copy(o.Nonce[:], e.rec.Nonce)
	return o
}

// lay tells the ledger of a prepared opening, and makes the channel the one that is paid through.
// Where the ledger refuses it and does not have it, the record is dropped.
func (a *Accounts) lay(ctx context.Context, e entry) error {
	c, err := a.cfg.Ledger.Open(ctx, a.opening(e))
	if err != nil {
		return errors.Join(err, a.dropRefused(ctx, e, err))
	}
	a.views.seen(e.id, a.cfg.Now())
	return a.laid(e, c)
}

// dropRefused drops an opening that the ledger will never take.
func (a *Accounts) dropRefused(ctx context.Context, e entry, cause error) error {
	final := false
	for _, refusal := range []error{ErrExpired, ErrTerms, ErrLimit, ErrSignature, ErrKey, ErrOverflow} {
		final = final || errors.Is(cause, refusal)
	}
	if !final {
		return nil
	}
	if _, err := a.lookup(ctx, e.id); !errors.Is(err, ErrNoChannel) {
		return err
	}
	return a.dropOpening(e)
}

func (a *Accounts) dropOpening(e entry) error {
	err := a.update(func(txn *badger.Txn) error {
		var t pb.Totals
		if _, err := get(txn, a.peerKey(tagPaid, e.peer), &t); err != nil {
			return err
		}
		t.Live -= min(t.Live, 1)
		if err := txn.Delete(a.channelKey(tagOut, e.peer, e.id)); err != nil {
			return err
		}
		return put(txn, a.peerKey(tagPaid, e.peer), &t)
	})
	if err == nil {
		a.livePaying.Add(-1)
	}
	return err
}

// laid notes that the ledger has a prepared channel. It takes the place of the current one.
func (a *Accounts) laid(e entry, c Channel) error {
	var old []byte
	err := a.change(tagOut, e.peer, e.id, func(r *pb.Record, t *pb.Totals) error {
		old = nil
		if r.Phase != pb.Record_Opening {
			return nil
		}
		r.Phase, r.Opened = pb.Record_Open, c.Opened.Unix()
		old, t.Current = t.Current, e.id[:]
		return nil
	})
	if err == nil && len(old) == len(e.id) {
		err = a.retire(tagOut, e.peer, ChannelID(old))
	}
	if err == nil && c.State != StateOpen {
		err = a.adopt(tagOut, e.peer, c)
	}
	return err
}

// retire ends paying, or being paid, through a channel. It is closed when next there is time.
func (a *Accounts) retire(tag byte, p peer.ID, id ChannelID) error {
	return a.change(tag, p, id, func(r *pb.Record, _ *pb.Totals) error {
		if r.Phase == pb.Record_Open {
			r.Phase = pb.Record_Retired
		}
		return nil
	})
}

// closeLedger settles a channel's last voucher with the ledger and closes it for this side.
func (a *Accounts) closeLedger(ctx context.Context, e entry) error {
	r, found, err := a.record(e.tag, e.peer, e.id)
	if err != nil || !found || !live(r) {
		return err
	}
	if err := a.disk.Settled(); err != nil { // the ledger sees no voucher before the disk
		return err
	}
	cl, err := NewClosing(a.cfg.Key, e.id, lastVoucher(e.id, r))
	if err != nil {
		return err
	}
	c, err := a.cfg.Ledger.Close(ctx, cl)
	if errors.Is(err, ErrNoChannel) {
		return a.gone(e.tag, e.peer, e.id)
	}
	if err == nil {
		return a.adopt(e.tag, e.peer, c)
	}
	if errors.Is(err, ErrClosed) {
		return errors.Join(a.refresh(ctx, e.tag, e.peer, e.id), a.finishDue(ctx, e))
	}
	return err
}

// finishDue ends a channel whose challenge period has ended.
func (a *Accounts) finishDue(ctx context.Context, e entry) error {
	c, err := a.cfg.Ledger.Finish(ctx, e.id)
	switch {
	case errors.Is(err, ErrNotDue):
		return nil
	case errors.Is(err, ErrNoChannel):
		return a.gone(e.tag, e.peer, e.id)
	case err != nil:
		return err
	}
	return a.adopt(e.tag, e.peer, c)
}
