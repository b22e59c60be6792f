package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// totalsTag names the sums that a record counts in.
func totalsTag(tag byte) byte {
	if tag == tagOut {
		return tagPaid
	}
	return tagReceived
}

// change runs fn on a channel's record and its peer's sums, and commits both. A record that is not
// there is left alone.
func (a *Accounts) change(tag byte, p peer.ID, id ChannelID, fn func(r *pb.Record, t *pb.Totals) error) error {
	ended := false
	err := a.update(func(txn *badger.Txn) error {
		var r pb.Record
		var t pb.Totals
		found, err := get(txn, a.channelKey(tag, p, id), &r)
		if err != nil || !found {
			return err
		}
		if _, err := get(txn, a.peerKey(totalsTag(tag), p), &t); err != nil {
			return err
		}
		was, wasTotals := proto.CloneOf(&r), proto.CloneOf(&t)
		if err := fn(&r, &t); err != nil {
			return err
		}
		if ended = live(was) && !live(&r); ended {
			t.Live -= min(t.Live, 1)
		}
		if r.Phase != pb.Record_Open && string(t.Current) == string(id[:]) {
			t.Current = nil
		}
		if proto.Equal(was, &r) && proto.Equal(wasTotals, &t) {
			return nil
		}
		if err := put(txn, a.channelKey(tag, p, id), &r); err != nil {
			return err
		}
		return put(txn, a.peerKey(totalsTag(tag), p), &t)
	})
	if err == nil && ended {
		a.liveOf(tag).Add(-1)
		a.views.forget(id)
	}
	return err
}

func (a *Accounts) liveOf(tag byte) interface{ Add(int64) int64 } {
	if tag == tagOut {
		return &a.livePaying
	}
	return &a.livePaid
}

// adopt brings a record to what the ledger says. What the ledger has settled counts even where the
// voucher is not known here, and what was given back at the end counts no more.
func (a *Accounts) adopt(tag byte, p peer.ID, c Channel) error {
	var lost Amount
	err := a.change(tag, p, c.ID, func(r *pb.Record, t *pb.Totals) error {
		lost = 0
		if !live(r) {
			return nil
		}
		if uint64(c.Settled) > r.Amount {
			t.Sum += uint64(c.Settled) - r.Amount
			r.Amount, r.Sequence, r.Signature = uint64(c.Settled), max(r.Sequence, c.Sequence), nil
			if tag == tagOut && r.Phase == pb.Record_Open {
				r.Phase = pb.Record_Retired // our own last voucher is not known here
			}
		}
		r.Settled = max(r.Settled, uint64(c.Settled)) // what a list says may be older than what is known
		if r.Opened == 0 {
			r.Opened = c.Opened.Unix()
		}
		switch c.State {
		case StateClosing:
			r.Phase, r.Due = pb.Record_Closing, c.Due.Unix()
		case StateClosed:
			lost = Amount(r.Amount - r.Settled)
			t.Sum -= min(t.Sum, uint64(lost))
			r.Phase, r.Closed = pb.Record_Closed, c.Closed.Unix()
		}
		return nil
	})
	if err == nil && lost > 0 {
		a.log.Warn("payment channel was closed before its last voucher was settled", "peer", p, "channel", c.ID, "amount", lost)
	}
	return err
}

// gone ends a record whose channel the ledger does not have, or has no more.
func (a *Accounts) gone(tag byte, p peer.ID, id ChannelID) error {
	a.log.Warn("payment channel is not in the ledger any more", "peer", p, "channel", id)
	return a.change(tag, p, id, func(r *pb.Record, _ *pb.Totals) error {
		if live(r) {
			r.Phase, r.Closed = pb.Record_Closed, a.now()
		}
		return nil
	})
}

// refresh asks the ledger about one channel and adopts the answer.
func (a *Accounts) refresh(ctx context.Context, tag byte, p peer.ID, id ChannelID) error {
	c, err := a.lookup(ctx, id)
	if errors.Is(err, ErrNoChannel) {
		return a.gone(tag, p, id)
	}
	if err != nil {
		return fmt.Errorf("look up channel: %w", err)
	}
	return a.adopt(tag, p, c)
}

// record reads a channel's record.
func (a *Accounts) record(tag byte, p peer.ID, id ChannelID) (r *pb.Record, found bool, err error) {
	r = &pb.Record{}
	err = a.cfg.DB.View(func(txn *badger.Txn) error {
		found, err = get(txn, a.channelKey(tag, p, id), r)
		return err
	})
	return r, found, err
}

func (a *Accounts) totals(tag byte, p peer.ID) (t *pb.Totals, err error) {
	t = &pb.Totals{}
	err = a.cfg.DB.View(func(txn *badger.Txn) error {
		_, err := get(txn, a.peerKey(tag, p), t)
		return err
	})
	return t, err
}

// lastVoucher is the voucher that a record holds, or the zero Voucher.
func lastVoucher(id ChannelID, r *pb.Record) Voucher {
	if len(r.Signature) == 0 || r.Amount == 0 {
		return Voucher{}
	}
	return Voucher{Channel: id, Amount: Amount(r.Amount), Sequence: r.Sequence, Signature: r.Signature}
}

// unixTime is the zero time for zero.
func unixTime(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}
