package provider

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

type counters struct {
	requests, refused, malformed, failed atomic.Int64
	agreed, stored, signed, paid, ended  atomic.Int64
	received, badSegments, lies          atomic.Int64
	audits, served, announced            atomic.Int64
	rehashed, damagedSegments            atomic.Int64
}

// Stats are figures of a provider. Counts are since it was opened.
type Stats struct {
	QuotaBytes    int64
	UsedBytes     int64 // of the quota, with what is agreed and not here yet
	ReservedBytes int64 // of these, for copies that are not here in full
	FreeBytes     int64 // of the quota, as far as the disk has them

	Copies, Whole, Damaged int
	Agreements             int // links without a pledge
	Pledges                int // links with one
	Tombstones             int64

	Requests, Refused, Malformed, Failed int64
	Agreed, Stored, Signed, Paid, Ended  int64
	ReceivedBytes                        int64
	BadSegments                          int64 // that did not fit their map
	Lies                                 int64 // chunks whose blocks were not those of the descriptor
	Audits                               int64
	ServedBytes                          int64 // of blocks
	Announced                            int64
	Rehashed                             int64 // copies hashed again after an unclean stop
	DamagedSegments                      int64 // segments and blocks that were not as they were written
}

// Stats returns figures as they are now.
func (p *Provider) Stats() Stats {
	s, c := p.books.sums(), &p.counts
	return Stats{
		QuotaBytes: p.cfg.QuotaBytes, UsedBytes: s.used, ReservedBytes: s.reserved, FreeBytes: p.freeBytes(),
		Copies: s.copies, Whole: s.whole, Damaged: s.damaged, Agreements: s.agreements, Pledges: s.pledges,
		Tombstones: p.tombstones.Load(),
		Requests:   c.requests.Load(), Refused: c.refused.Load(), Malformed: c.malformed.Load(), Failed: c.failed.Load(),
		Agreed: c.agreed.Load(), Stored: c.stored.Load(), Signed: c.signed.Load(), Paid: c.paid.Load(), Ended: c.ended.Load(),
		ReceivedBytes: c.received.Load(), BadSegments: c.badSegments.Load(), Lies: c.lies.Load(), Audits: c.audits.Load(),
		ServedBytes: c.served.Load(), Announced: c.announced.Load(), Rehashed: c.rehashed.Load(),
		DamagedSegments: c.damagedSegments.Load(),
	}
}

// State is where a link stands.
type State string

// The states of a link, see the package comment.
const (
	StateAgreed    State = "agreed"
	StateReceiving State = "receiving"
	StateStored    State = "stored"
	StatePledged   State = "pledged"
)

// Link is what is known of a link.
type Link struct {
	Writer  peer.ID
	ID      seal.LinkID
	Chunk   cid.Cid
	State   State
	Bytes   int64 // of the chunk
	Have    int64 // of these, here and synced
	Price   uint64
	Paid    bool
	PayBy   time.Time // zero unless a payment is due
	Expiry  time.Time
	Damaged bool
}

// Links calls fn for every link until it returns false. It must not call the provider.
func (p *Provider) Links(ctx context.Context, fn func(Link) bool) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.exit()
	err := p.cfg.DB.View(func(txn *badger.Txn) error {
		return each(txn, p.key(tagCopy), true, func(item *badger.Item, _ []byte) (bool, error) {
			var rec pb.Copy
			if err := decode(item, &rec); err != nil {
				return false, err
			}
			return listCopy(&rec, fn), ctx.Err()
		})
	})
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	return nil
}

func listCopy(r *pb.Copy, fn func(Link) bool) bool {
	chunk, err := chunkOf(r)
	if err != nil {
		return true
	}
	have := int64(0)
	for i := range segmentsOf(r) {
		if r.Whole || haveOf(r).Has(i) {
			have += int64(seal.SegmentLen(int64(r.Bytes), i))
		}
	}
	for _, l := range r.Links {
		info := Link{Writer: writerOf(r), ID: seal.LinkID(l.Id), Chunk: chunk, State: stateOf(r, l), Bytes: int64(r.Bytes),
			Have: have, Price: l.Price, Paid: l.Paid, Expiry: time.Unix(l.Expiry, 0), Damaged: r.Damaged}
		if len(l.Pledge) > 0 && !l.Paid {
			info.PayBy = time.Unix(l.PayBy, 0)
		}
		if !fn(info) {
			return false
		}
	}
	return true
}

func stateOf(r *pb.Copy, l *pb.Link) State {
	switch {
	case len(l.Pledge) > 0:
		return StatePledged
	case r.Whole:
		return StateStored
	case len(r.Root) > 0:
		return StateReceiving
	}
	return StateAgreed
}

// Earning is what was earned from one writer.
type Earning struct {
	Writer  peer.ID
	Earned  uint64 // for pledges that were paid
	Credit  uint64 // paid and not used for any pledge yet
	Pledges uint64 // ever signed
}

// Earnings lists what was earned, a writer each. Writers that paid nothing are forgotten some time
// after their last link.
func (p *Provider) Earnings(ctx context.Context) ([]Earning, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.exit()
	var all []Earning
	err := p.eachWriter(func(id peer.ID, w *pb.Writer) {
		all = append(all, Earning{Writer: id, Earned: w.Earned, Credit: w.Credit, Pledges: w.Pledges})
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("list earnings: %w", err)
	}
	return all, nil
}
