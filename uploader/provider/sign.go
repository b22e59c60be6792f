package provider

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
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
		if err := p.complete(ctx, h); err != nil { // the last answer to Data was never reached
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

// announceSoon has a chunk announced, unless that is planned or was done.
func (p *Provider) announceSoon(txn *badger.Txn, chunk cid.Cid) error {
	key := p.key(tagTold, chunkPart(chunk))
	_, err := txn.Get(key)
	if err == nil || !errors.Is(err, badger.ErrKeyNotFound) {
		return err
	}
	return errors.Join(txn.Set(key, timePart(0)), txn.Set(p.key(tagAnnounce, timePart(0), chunkPart(chunk)), nil))
}

// announceAt moves the time of a chunk's next announcement; a negative time ends announcing it.
func (p *Provider) announceAt(txn *badger.Txn, chunk cid.Cid, unix int64) error {
	key := p.key(tagTold, chunkPart(chunk))
	item, err := txn.Get(key)
	if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
		return err
	}
	if err == nil {
		err := item.Value(func(b []byte) error {
			if len(b) != 8 {
				return fmt.Errorf("time of %d bytes", len(b))
			}
			return txn.Delete(p.key(tagAnnounce, timePart(int64(binary.BigEndian.Uint64(b))), chunkPart(chunk)))
		})
		if err != nil {
			return err
		}
	}
	if unix < 0 {
		return txn.Delete(key)
	}
	return errors.Join(txn.Set(key, timePart(unix)), txn.Set(p.key(tagAnnounce, timePart(unix), chunkPart(chunk)), nil))
}

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
