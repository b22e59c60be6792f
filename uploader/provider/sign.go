package provider

import (
	"context"
	"errors"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// signature answers the pledge of a link, signed before or now. The state is pledged then.
func (p *Provider) signature(ctx context.Context, from peer.ID, q *seal.SignatureRequest) (*seal.SignatureAnswer, error) {
	pledge, err := p.pledgeOf(ctx, from, q.Link)
	if err != nil {
		return nil, err
	}
	if err := p.sync(); err != nil { // also for one that another request has just committed
		return nil, err
	}
	return &seal.SignatureAnswer{Pledge: pledge}, nil
}

func (p *Provider) pledgeOf(ctx context.Context, from peer.ID, id seal.LinkID) (seal.Pledge, error) {
	h, l, err := p.findLink(from, id)
	if err != nil {
		return seal.Pledge{}, err
	}
	defer p.leave(h)
	if len(l.Pledge) > 0 {
		return seal.UnmarshalPledge(l.Pledge)
	}
	if err := p.trust(h); err != nil {
		return seal.Pledge{}, err
	}
	if n := segmentsOf(h.rec); !h.rec.Whole && len(h.rec.Root) > 0 && h.have.Count() == n {
		if err := p.complete(ctx, h, nil); err != nil { // the last answer to Data was never reached
			return seal.Pledge{}, err
		}
	}
	if !usable(h.rec) {
		return seal.Pledge{}, seal.Refuse(seal.RefusedNotStored, "%d of %d segments are here", h.have.Count(), segmentsOf(h.rec))
	}
	if now := p.now(); l.Expiry <= now.Unix() {
		return seal.Pledge{}, seal.Refuse(seal.RefusedExpiry, "the link has expired")
	}
	pledge, b, err := p.sign(h.rec, l.Price, time.Unix(l.Expiry, 0))
	if err != nil {
		return seal.Pledge{}, err
	}
	err = p.change(h, func(r *pb.Copy) { p.pledge(linkOf(r, id), b) }, func(txn *badger.Txn) error {
		return p.notePledge(txn, h.rec)
	})
	if err != nil {
		return seal.Pledge{}, err
	}
	p.counts.signed.Add(1)
	return pledge, nil
}

// sign makes a pledge for a copy that is here in full and synced.
func (p *Provider) sign(r *pb.Copy, price uint64, expiry time.Time) (seal.Pledge, []byte, error) {
	chunk, err := chunkOf(r)
	if err != nil {
		return seal.Pledge{}, nil, err
	}
	pledge := seal.Pledge{
		Chunk: chunk, SealedRoot: rootOf(r), Bytes: int64(r.Bytes), Price: price, Expiry: expiry,
		Writer: writerOf(r), Provider: p.self, At: time.Unix(p.now().Unix(), 0),
	}
	if err := pledge.Sign(p.cfg.Key); err != nil {
		return seal.Pledge{}, nil, err
	}
	b, err := pledge.Marshal()
	return pledge, b, err
}

// pledge puts a signed pledge into a link.
func (p *Provider) pledge(l *pb.Link, signed []byte) {
	l.Pledge = signed
	if l.Price == 0 {
		l.Paid = true
		return
	}
	l.PayBy = p.now().Add(p.cfg.Grace).Unix()
}

// notePledge commits with a pledge what follows from it.
func (p *Provider) notePledge(txn *badger.Txn, r *pb.Copy) error {
	chunk, err := chunkOf(r)
	if err != nil {
		return err
	}
	err = p.updateWriter(txn, writerOf(r), func(w *pb.Writer) error { w.Pledges++; return nil })
	return errors.Join(err, p.announceSoon(txn, chunk))
}
