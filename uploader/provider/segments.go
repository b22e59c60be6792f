package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// segments takes the key and the map of a link. The state that it leads to is receiving, or the state
// of the copy that has the same sealed bytes for the same writer. Like an agreement this promises
// nothing that a power cut may not take: the link then begins anew.
func (p *Provider) segments(ctx context.Context, from peer.ID, q *seal.Segments) (*seal.SegmentsAnswer, error) {
	defer p.locks.lock(from)()
	h, l, err := p.findLink(from, q.Link)
	if err != nil {
		return nil, err
	}
	defer p.leave(h)
	if q.Map.Bytes != int64(h.rec.Bytes) {
		return nil, seal.Refuse(seal.RefusedMismatch, "a map of %d bytes for a chunk of %d", q.Map.Bytes, h.rec.Bytes)
	}
	if q.Map.Root() != q.Root {
		return nil, seal.Refuse(seal.RefusedMismatch, "the map does not lead to the root")
	}
	if l.Price > 0 && len(l.Pledge) == 0 {
		if err := p.needChannel(from); err != nil {
			return nil, err
		}
	}
	if err := p.trust(h); err != nil {
		return nil, err
	}
	if len(h.rec.Root) > 0 {
		return p.sameMap(h, q)
	}
	if a, err := p.joinTwin(ctx, h, q); a != nil || err != nil {
		return a, err
	}
	return p.setMap(h, q)
}

// missing answers how much of a copy is to be sent.
func missing(h *held) (*seal.SegmentsAnswer, error) {
	if h.rec.Damaged {
		return nil, seal.Refuse(seal.RefusedNotStored, "the chunk was damaged here")
	}
	if h.rec.Whole {
		return &seal.SegmentsAnswer{}, nil
	}
	return &seal.SegmentsAnswer{Missing: h.have.Missing(segmentsOf(h.rec))}, nil
}

// sameMap answers a map that comes again. Sealing is deterministic, so another one is a mistake.
func (p *Provider) sameMap(h *held, q *seal.Segments) (*seal.SegmentsAnswer, error) {
	if rootOf(h.rec) != q.Root || keyOf(h.rec) != q.Key {
		return nil, seal.Refuse(seal.RefusedMismatch, "the link has another key or map already")
	}
	return missing(h)
}

func (p *Provider) setMap(h *held, q *seal.Segments) (*seal.SegmentsAnswer, error) {
	f, err := p.open(h)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 32*len(q.Map.Segments))
	for i := range q.Map.Segments {
		b = append(b, q.Map.Segments[i][:]...)
	}
	if _, err := f.WriteAt(b, mapAt(h.rec)); err != nil {
		return nil, fmt.Errorf("write segment map: %w", err)
	}
	now := p.now()
	err = p.change(h, func(r *pb.Copy) {
		r.Key, r.Root, r.Have, r.Epoch = q.Key[:], q.Root[:], nil, p.epoch
		p.progress(r, now)
	}, nil)
	if err != nil {
		return nil, err
	}
	h.segs, h.have, h.touched = &q.Map, seal.Bitmap{}, now
	return missing(h)
}

// joinTwin moves a link to another copy of the same writer with the same sealed bytes, where there is
// one that has room. The link's own copy, still empty, goes. Writer's and copy's lock are held; only
// who holds the writer's lock takes a second copy's.
func (p *Provider) joinTwin(ctx context.Context, h *held, q *seal.Segments) (*seal.SegmentsAnswer, error) {
	chunk, err := chunkOf(h.rec)
	if err != nil {
		return nil, err
	}
	ids, err := p.copiesOf(chunk, writerOf(h.rec))
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if id == h.id || ctx.Err() != nil {
			continue
		}
		a, err := p.tryTwin(h, id, q)
		if a != nil || err != nil {
			return a, err
		}
	}
	return nil, ctx.Err()
}

func (p *Provider) tryTwin(h *held, id copyID, q *seal.Segments) (*seal.SegmentsAnswer, error) {
	twin, err := p.use(id)
	if err != nil {
		return nil, err
	}
	defer p.leave(twin)
	fits := func() bool {
		r := twin.rec
		return r != nil && !r.Deleting && !r.Damaged && len(r.Root) > 0 && rootOf(r) == q.Root && keyOf(r) == q.Key &&
			len(r.Links) < p.cfg.Limits.LinksPerCopy
	}
	if !fits() {
		return nil, nil
	}
	if err := p.trust(twin); err != nil && !isUnknown(err) {
		return nil, err
	}
	if !fits() {
		return nil, nil
	}
	if err := p.moveLinks(h, twin); err != nil {
		return nil, err
	}
	if err := p.erase(h); err != nil {
		p.log.Warn("remove chunk copy that is not needed", keyError, err) // Run does it again
	}
	return missing(twin)
}

// moveLinks gives all links of an empty copy to its twin, in one transaction.
func (p *Provider) moveLinks(h, twin *held) error {
	old := h.rec
	empty := proto.Clone(old).(*pb.Copy)
	links := empty.Links
	empty.Links, empty.Deleting = nil, true
	now := p.now()
	err := p.change(twin, func(r *pb.Copy) {
		r.Links = append(r.Links, links...)
		p.progress(r, now)
	}, func(txn *badger.Txn) error {
		return p.putCopy(txn, h.id, old, empty)
	})
	if err != nil {
		h.stale = true
		return err
	}
	h.rec = empty
	p.books.move(writerOf(old), shareOf(old), shareOf(empty))
	twin.touched = now
	return nil
}

// errDamaged says that a file does not have what was written into it.
var errDamaged = errors.New("chunk file is damaged")

// readMap returns the copy's map, checked against the root in the record.
func (p *Provider) readMap(h *held) (*seal.Map, error) {
	if h.segs != nil {
		return h.segs, nil
	}
	f, err := p.open(h)
	if err != nil {
		return nil, err
	}
	m := seal.Map{Bytes: int64(h.rec.Bytes), Segments: make([][32]byte, segmentsOf(h.rec))}
	b := make([]byte, 32*len(m.Segments))
	if err := readAll(f, b, mapAt(h.rec)); err != nil {
		return nil, fmt.Errorf("read segment map: %w", err)
	}
	for i := range m.Segments {
		copy(m.Segments[i][:], b[32*i:])
	}
	if m.Root() != rootOf(h.rec) {
		return nil, fmt.Errorf("read segment map: %w", errDamaged)
	}
	h.segs = &m
	return h.segs, nil
}
