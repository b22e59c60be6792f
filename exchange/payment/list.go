package payment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// Direction is the side of a channel that this node is on.
type Direction string

// The two directions.
const (
	Paying    Direction = "paying"    // we pay the peer
	Receiving Direction = "receiving" // the peer pays us
)

// Info is what this node knows of one of its channels. Times are zero where not reached.
type Info struct {
	ID        ChannelID
	Peer      peer.ID
	Direction Direction
	Deposit   Amount
	Amount    Amount // of the last voucher
	Settled   Amount // of it, with the ledger
	Sequence  uint64
	State     State
	Retired   bool // nothing more is paid through it; it will be closed
	Opened    time.Time
	Due       time.Time // end of the challenge period
	Closed    time.Time
}

// Channels lists the channels of this node: those it pays through, then those it is paid through;
// open ones first, then by peer and time of opening. Closed ones stay listed for a while.
func (a *Accounts) Channels(ctx context.Context) ([]Info, error) {
	var all []Info
	err := a.cfg.DB.View(func(txn *badger.Txn) error {
		for _, tag := range []byte{tagOut, tagIn} {
			err := a.channels(txn, tag, "", func(e entry) error {
				all = append(all, e.info())
				return context.Cause(ctx)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list payment channels: %w", err)
	}
	slices.SortStableFunc(all, func(x, y Info) int {
		return cmp.Or(cmp.Compare(x.Direction, y.Direction), closedLast(x)-closedLast(y),
			cmp.Compare(x.Peer, y.Peer), x.Opened.Compare(y.Opened))
	})
	return all, nil
}

func closedLast(i Info) int {
	if i.State == StateClosed {
		return 1
	}
	return 0
}

var states = map[pb.Record_Phase]State{
	pb.Record_Opening: StateOpening, pb.Record_Open: StateOpen, pb.Record_Retired: StateOpen,
	pb.Record_Closing: StateClosing, pb.Record_Closed: StateClosed,
}

func (e entry) info() Info {
	i := Info{ID: e.id, Peer: e.peer, Direction: Paying, Deposit: Amount(e.rec.Deposit), Amount: Amount(e.rec.Amount),
		Settled: Amount(e.rec.Settled), Sequence: e.rec.Sequence, State: states[e.rec.Phase], Retired: e.rec.Phase == pb.Record_Retired,
		Opened: unixTime(e.rec.Opened), Due: unixTime(e.rec.Due), Closed: unixTime(e.rec.Closed)}
	if e.tag == tagIn {
		i.Direction = Receiving
	}
	return i
}

// Paid is what this node has paid a peer through all channels that are kept, less what came back
// because the peer never settled it.
func (a *Accounts) Paid(to peer.ID) (Amount, error) { return a.sum(tagPaid, to) }

// Received is what a peer has paid this node through all channels that are kept, less what was not
// settled before its channel was closed.
func (a *Accounts) Received(from peer.ID) (Amount, error) { return a.sum(tagReceived, from) }

func (a *Accounts) sum(tag byte, p peer.ID) (Amount, error) {
	t, err := a.totals(tag, p)
	if err != nil {
		return 0, fmt.Errorf("sum payments with %s: %w", p, err)
	}
	return Amount(t.Sum), nil
}

// CloseChannel closes all channels with a peer, in both directions. What the peer pays through is
// settled and closed at once; what is paid to the peer is settled, and the rest comes back after the
// challenge period, which Run sees to. Where the ledger can't be reached, Run tries again. Without a
// channel to close it returns an error that wraps [ErrNoChannel].
func (a *Accounts) CloseChannel(ctx context.Context, p peer.ID) error {
	n, err := 0, error(nil)
	for tag, locks := range map[byte]*keyedLock{tagOut: &a.paying, tagIn: &a.paid} {
		m, err1 := a.closeAll(ctx, tag, locks, p)
		n, err = n+m, errors.Join(err, err1)
	}
	err = errors.Join(err, a.disk.Settled())
	if err == nil && n == 0 {
		err = ErrNoChannel
	}
	if err != nil {
		return fmt.Errorf("close channels with %s: %w", p, err)
	}
	return nil
}

func (a *Accounts) closeAll(ctx context.Context, tag byte, locks *keyedLock, p peer.ID) (n int, err error) {
	unlock, err := locks.lock(ctx, p)
	if err != nil {
		return 0, err
	}
	defer unlock()
	err = a.forPeer(tag, p, func(e entry) error {
		n++
		if e.rec.Phase == pb.Record_Opening {
			if err := a.tendOpening(ctx, e); err != nil {
				return err
			}
		}
		if err := a.retire(tag, p, e.id); err != nil {
			return err
		}
		return a.closeLedger(ctx, e)
	})
	return n, err
}

// newest returns the last vouchers of the channels used last.
func newest(all []entry) []Voucher {
	const most = 16
	slices.SortFunc(all, func(x, y entry) int { return cmp.Compare(y.rec.Touched, x.rec.Touched) })
	var vs []Voucher
	for _, e := range all[:min(len(all), most)] {
		vs = append(vs, lastVoucher(e.id, e.rec))
	}
	return vs
}
