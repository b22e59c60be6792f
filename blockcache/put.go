package blockcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
)

// maxPart bounds how many entries of a Put are worked on at a time.
const maxPart = 256

// Put keeps blocks, which the caller has verified. A raw leaf with a Place of a big file goes to
// that file's body, anything else to a pack. Blocks that are here already cost nothing. When Put
// returns the blocks are readable; they are durable after the next Sync. It returns an error that
// wraps ErrFull when there is no room even after eviction; entries before the one that failed may
// have been kept.
func (s *Store) Put(ctx context.Context, es []Entry) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	h := &held{}
	defer h.release()
	for len(es) > 0 {
		n, size := 0, 0
		for n < len(es) && n < maxPart && (n == 0 || size < maxAppend) {
			if es[n].Block == nil {
				return errors.New("put: no block in an entry")
			}
			size += len(es[n].Block.RawData())
			n++
		}
		err := s.putPart(ctx, es[:n], h)
		if errors.Is(err, ErrFull) && s.makeRoom(ctx, int64(size), true) == nil {
			err = s.putPart(ctx, es[:n], h) // the file system was fuller than we knew
		}
		if err != nil {
			return fmt.Errorf("put: %w", err)
		}
		es = es[n:]
	}
	return nil
}

// item is one block on its way to the disk.
type item struct {
	cid  cid.Cid
	key  string
	data []byte
	crc  uint32
	off  uint64
	body *body // nil: goes to a pack
}

// plan is what a part of a Put writes.
type plan struct {
	leaves []item
	loose  []item
	room   int64 // bytes reserved
}

// held keeps files from eviction while a Put that wrote to them goes on.
type held struct {
	bodies []*body
	packs  []func()
}

func (h *held) release() {
	for _, b := range h.bodies {
		b.hold(-1)
	}
	for _, done := range h.packs {
		done()
	}
}

func (s *Store) putPart(ctx context.Context, es []Entry, h *held) error {
	p, err := s.plan(ctx, es)
	if err != nil {
		return err
	}
	if len(p.leaves)+len(p.loose) == 0 {
		return nil
	}
	if err := s.makeRoom(ctx, p.room, false); err != nil {
		p.settle(false)
		return err
	}
	for _, it := range p.leaves {
		if n := len(h.bodies); n == 0 || h.bodies[n-1] != it.body {
			it.body.hold(1)
			h.bodies = append(h.bodies, it.body)
		}
	}
	if err := s.putLeaves(ctx, p); err != nil {
		s.used.Add(-p.room)
		return err
	}
	return s.putLoose(ctx, p.loose, h)
}

// plan finds out where each block goes and claims places in bodies.
func (s *Store) plan(ctx context.Context, es []Entry) (p *plan, err error) {
	p = &plan{}
	defer func() {
		if err != nil {
			p.settle(false)
		}
	}()
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	seen := make(map[string]bool, len(es))
	for _, e := range es {
		c, data := e.Block.Cid(), e.Block.RawData()
		if _, ok := inline(c); ok {
			continue
		}
		if err := checkCID(c); err != nil {
			return p, err
		}
		if len(data) == 0 || len(data) > MaxBlockBytes {
			return p, fmt.Errorf("block %s has %d bytes: %w", c, len(data), ErrCorrupt)
		}
		if err := s.planOne(ctx, txn, p, seen, item{cid: c, key: key(c), data: data}, e.Place); err != nil {
			return p, err
		}
		if err := ctx.Err(); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (s *Store) planOne(ctx context.Context, txn *badger.Txn, p *plan, seen map[string]bool, it item, at Place) error {
	if at.fits(it.cid, len(it.data)) {
		b, err := s.beginBody(at)
		if err != nil && !errors.Is(err, ErrFull) {
			return err
		}
		if b != nil {
			s.recheckLeaf(ctx, txn, b, at.Offset, it)
		}
		if b != nil && b.claim(at.Offset, uint64(len(it.data))) == claimed {
			it.body, it.off, it.crc = b, at.Offset, checksum(it.data)
			p.leaves = append(p.leaves, it)
			p.room += int64(len(it.data))
			seen[it.key] = true
			return nil
		}
	}
	if seen[it.key] {
		return nil
	}
	ps, err := s.ix.places(txn, it.key)
	if err != nil {
		return err
	}
	for _, pl := range ps {
		if s.readable(pl, true) && s.holds(ctx, it.key, pl, it.data) {
			s.touch(pl)
			return nil
		}
	}
	seen[it.key] = true
	it.crc = checksum(it.data)
	p.loose = append(p.loose, it)
	p.room += recordBytes(it.cid, len(it.data))
	return nil
}

// holds reports whether a place has a block's bytes. What was not verified since the last unclean
// stop is looked at, and dropped if it is bad: whoever puts the block now may be the last to have it.
func (s *Store) holds(ctx context.Context, key string, p place, data []byte) bool {
	b, trusted := s.blobOf(p)
	if b == nil || trusted {
		return b != nil && s.reachable(p)
	}
	got, err := s.readBlob(b, p)
	if err == nil && bytes.Equal(got, data) {
		return true
	}
	if err == nil || errors.Is(err, io.EOF) || unreadable(err) {
		if err := s.bad(ctx, key, p, err); err != ErrCorrupt && err != ErrNotFound {
			s.log.Warn("could not drop a damaged block", "file", b.name, "offset", p.off, "err", err)
		}
	}
	return false
}

// recheckLeaf lets go of a block's leaf in an unverified body if the bytes there are others.
func (s *Store) recheckLeaf(ctx context.Context, txn *badger.Txn, b *body, off uint64, it item) {
	if b.verified.Load() == s.epoch {
		return
	}
	if l, ok, err := s.ix.leafAt(txn, b.id, off); err == nil && ok && l.key == it.key {
		s.holds(ctx, l.key, l.place(b.id), it.data)
	}
}

// settle ends the claims of a plan.
func (p *plan) settle(ok bool) {
	for _, it := range p.leaves {
		it.body.settle(it.off, uint64(len(it.data)), ok)
	}
	p.leaves = nil
}

// putLeaves writes and indexes what goes to bodies.
func (s *Store) putLeaves(ctx context.Context, p *plan) error {
	if len(p.leaves) == 0 {
		return nil
	}
	changes := make([]change, 0, len(p.leaves))
	for _, it := range p.leaves {
		if err := s.writeLeaf(it.body, it.off, it.data); err != nil {
			p.settle(false)
			return err
		}
		l := leaf{off: it.off, n: uint32(len(it.data)), crc: it.crc}
		changes = append(changes, change{key: it.key, add: []place{l.place(it.body.id)}})
		it.body.tick.Store(s.clock.Add(1))
	}
	if err := s.apply(context.WithoutCancel(ctx), changes); err != nil {
		p.settle(false)
		return err
	}
	p.settle(true)
	return nil
}

// putLoose appends blocks, whose room is reserved, to a pack and indexes them.
func (s *Store) putLoose(ctx context.Context, its []item, h *held) error {
	if len(its) == 0 {
		return nil
	}
	ls := make([]loose, len(its))
	for i, it := range its {
		ls[i] = loose{cid: it.cid, data: it.data, crc: it.crc}
	}
	ps, done, err := s.appendLoose(ls)
	if err != nil {
		return err
	}
	h.packs = append(h.packs, done)
	changes := make([]change, len(its))
	for i, it := range its {
		changes[i] = change{key: it.key, add: []place{ps[i]}}
	}
	return s.apply(context.WithoutCancel(ctx), changes)
}

// touch notes that a place was used.
func (s *Store) touch(p place) {
	s.mu.RLock()
	k, b := s.packs[p.id], s.bodies[p.id]
	s.mu.RUnlock()
	switch {
	case p.kind == inPack && k != nil:
		k.touch(p.off)
	case p.kind == inBody && b != nil:
		b.tick.Store(s.clock.Add(1))
	}
}

// Delete drops blocks, pinned ones too: a pin only says what eviction leaves alone. Blocks that are
// not here are no error.
func (s *Store) Delete(ctx context.Context, cs []cid.Cid) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	for _, c := range cs {
		if checkCID(c) != nil {
			continue
		}
		if err := s.deleteOne(ctx, key(c)); err != nil {
			return fmt.Errorf("delete %s: %w", c, err)
		}
	}
	s.nudge()
	return nil
}

func (s *Store) deleteOne(ctx context.Context, key string) error {
	txn := s.ix.db.NewTransaction(false)
	ps, err := s.ix.places(txn, key)
	txn.Discard()
	if err != nil || len(ps) == 0 {
		return err
	}
	return s.dropPlaces(ctx, key, ps)
}

// dropPlaces takes places of one block out of the index and of their bodies.
func (s *Store) dropPlaces(ctx context.Context, key string, ps []place) error {
	if err := s.apply(ctx, []change{{key: key, drop: ps}}); err != nil {
		return err
	}
	for _, p := range ps {
		s.mu.RLock()
		b := s.bodies[p.id]
		s.mu.RUnlock()
		if p.kind == inBody && b != nil {
			s.lose(b, p.off, uint64(p.n))
		}
	}
	return nil
}
