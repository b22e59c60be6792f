package provider

import (
	"context"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// renew signs a new link for a copy that is pledged to the writer. Its state is pledged from the start.
func (p *Provider) renew(ctx context.Context, from peer.ID, q *seal.Renew) (*seal.SignatureAnswer, error) {
	pledge, err := p.renewed(ctx, from, q)
	if err != nil {
		return nil, err
	}
	if err := p.sync(); err != nil {
		return nil, err
	}
	return &seal.SignatureAnswer{Pledge: pledge}, nil
}

func (p *Provider) renewed(ctx context.Context, from peer.ID, q *seal.Renew) (seal.Pledge, error) {
	defer p.locks.lock(from)()
	if pledge, err := p.renewedBefore(from, q); !isUnknown(err) {
		return pledge, err
	}
	h, err := p.pledgedCopy(ctx, from, q.Chunk)
	if err != nil {
		return seal.Pledge{}, err
	}
	defer p.leave(h)
	if len(h.rec.Links) >= p.cfg.Limits.LinksPerCopy {
		return seal.Pledge{}, seal.Refuse(seal.RefusedLimit, "%d links of the chunk are open", len(h.rec.Links))
	}
	until := lastExpiry(h.rec)
	if !q.Expiry.After(until) {
		return seal.Pledge{}, seal.Refuse(seal.RefusedExpiry, "the chunk is pledged until %s already", until.UTC().Format(time.RFC3339))
	}
	begin := until
	if q.Now.After(begin) {
		begin = q.Now
	}
	if err := p.checkTerms(q.Now, q.Expiry, q.Expiry.Sub(begin), q.Price, int64(h.rec.Bytes)); err != nil {
		return seal.Pledge{}, err
	}
	if q.Price > 0 {
		if err := p.needChannel(from); err != nil {
			return seal.Pledge{}, err
		}
	}
	return p.addPledge(h, q)
}

// renewedBefore answers a renewal that comes again; the error is unknownLink for a new one.
func (p *Provider) renewedBefore(from peer.ID, q *seal.Renew) (seal.Pledge, error) {
	h, l, err := p.findLink(from, q.Link)
	if err != nil {
		return seal.Pledge{}, err
	}
	defer p.leave(h)
	if string(h.rec.Chunk) != q.Chunk.KeyString() || l.Expiry != q.Expiry.Unix() || l.Price != q.Price || len(l.Pledge) == 0 {
		return seal.Pledge{}, seal.Refuse(seal.RefusedMismatch, "the link was agreed on with other terms")
	}
	return seal.UnmarshalPledge(l.Pledge)
}

func lastExpiry(r *pb.Copy) time.Time {
	var last int64
	for _, l := range r.Links {
		if len(l.Pledge) > 0 {
			last = max(last, l.Expiry)
		}
	}
	return time.Unix(last, 0)
}

// addPledge signs for a renewal. The copy's lock is held.
func (p *Provider) addPledge(h *held, q *seal.Renew) (seal.Pledge, error) {
	pledge, b, err := p.sign(h.rec, q.Price, q.Expiry)
	if err != nil {
		return seal.Pledge{}, err
	}
	l := &pb.Link{Id: q.Link[:], Price: q.Price, Expiry: q.Expiry.Unix()}
	p.pledge(l, b)
	err = p.change(h, func(r *pb.Copy) { r.Links = append(r.Links, l) }, func(txn *badger.Txn) error {
		return p.notePledge(txn, h.rec)
	})
	if err != nil {
		return seal.Pledge{}, err
	}
	p.counts.signed.Add(1)
	return pledge, nil
}

// pledgedCopy returns the writer's copy of a chunk that is pledged and in order, in use, or says why
// there is none.
func (p *Provider) pledgedCopy(ctx context.Context, from peer.ID, chunk cid.Cid) (*held, error) {
	ids, err := p.copiesOf(chunk, from)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, p.whyGone(from, chunk)
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		h, err := p.use(id)
		if err != nil {
			return nil, err
		}
		if h.rec != nil && pledged(h.rec) && usable(h.rec) {
			err := p.trust(h)
			if err == nil && usable(h.rec) {
				return h, nil
			}
			if err != nil {
				p.leave(h)
				return nil, err
			}
		}
		p.leave(h)
	}
	return nil, seal.Refuse(seal.RefusedNotStored, "no pledged copy of the chunk is in order")
}
