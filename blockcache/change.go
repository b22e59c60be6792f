package blockcache

import (
	"context"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// maxChanges bounds what is committed to the index under one set of locks.
const maxChanges = 512

// change adds and drops places of one block.
type change struct {
	key  string
	add  []place
	drop []place
	// only, if set, makes the change void unless this place is still the block's.
	only *place
}

// outcome is what a change did.
type outcome struct {
	before, after int // places, dead ones not counted
	size          uint32
	void          bool
}

// apply commits changes to the index and keeps the figures that follow from it: blocks, live bytes
// of packs, pinned bytes. Leaf entries of bodies are written along; their spans are the caller's.
func (s *Store) apply(ctx context.Context, changes []change) error {
	for part := range slices.Chunk(changes, maxChanges) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.applyPart(part); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) applyPart(part []change) error {
	if slices.ContainsFunc(part, func(c change) bool { return len(c.add) > 0 }) {
		if err := s.ix.mayGrow(); err != nil {
			return err
		}
	}
	unlock := s.ix.lock(func(yield func(string) bool) {
		for _, c := range part {
			if !yield(c.key) {
				return
			}
		}
	})
	defer unlock()
	now := make(map[string][]place, len(part)) // what this batch made of a block
	outs := make([]outcome, len(part))
	live := make(map[uint64]int64)
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	err := s.ix.batch(func(wb *badger.WriteBatch) error {
		for i, c := range part {
			old, ok := now[c.key]
			if !ok {
				var err error
				if old, err = s.ix.places(txn, c.key); err != nil {
					return err
				}
			}
			ps, out := s.merge(old, c, live)
			now[c.key], outs[i] = ps, out
			if err := s.stage(wb, c, ps, out); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.account(txn, part, outs, live)
	return nil
}

// merge computes a block's new places.
func (s *Store) merge(old []place, c change, live map[uint64]int64) ([]place, outcome) {
	ps := make([]place, 0, len(old)+len(c.add))
	for _, p := range old {
		if s.exists(p) {
			ps = append(ps, p)
		}
	}
	out := outcome{before: len(ps)}
	if c.only != nil && !slices.ContainsFunc(ps, c.only.same) {
		out.void, out.after = true, len(ps)
		return ps, out
	}
	weigh := func(p place, sign int64) {
		out.size = p.n
		if p.kind == inPack {
			live[p.id] += sign * packWeight(c.key, p.n)
		}
	}
	for _, d := range c.drop {
		if i := slices.IndexFunc(ps, d.same); i >= 0 {
			weigh(ps[i], -1)
			ps = slices.Delete(ps, i, i+1)
		}
	}
	for _, a := range c.add {
		if a.kind == inPack && c.only == nil && slices.ContainsFunc(ps, s.settledInPack) {
			continue // somebody was faster; the new record is dead weight in its pack
		}
		var added bool
		if ps, added = addPlace(ps, a); added {
			weigh(a, 1)
		}
	}
	out.after = len(ps)
	return ps, out
}

// stage writes one change's entries.
func (s *Store) stage(wb *badger.WriteBatch, c change, ps []place, out outcome) error {
	if out.void {
		return nil
	}
	var err error
	if len(ps) == 0 {
		err = wb.Delete(s.ix.k(tagBlock, c.key))
	} else {
		err = wb.Set(s.ix.k(tagBlock, c.key), encodePlaces(ps))
	}
	for _, d := range c.drop {
		if d.kind == inBody && err == nil {
			err = wb.Delete(s.ix.leafKey(d.id, d.off))
		}
	}
	for _, a := range c.add {
		if a.kind == inBody && err == nil {
			err = wb.Set(s.ix.leafKey(a.id, a.off), leaf{key: c.key, n: a.n, crc: a.crc}.encode())
		}
	}
	return err
}

// account updates the figures after a commit, still under the stripes of the blocks.
func (s *Store) account(txn *badger.Txn, part []change, outs []outcome, live map[uint64]int64) {
	var it *pinView
	if s.ix.roots.count() > 0 {
		it = s.ix.pinIterator(txn)
		defer it.Close()
	}
	for i, out := range outs {
		var sign int64
		switch {
		case out.before == 0 && out.after > 0:
			sign = 1
		case out.before > 0 && out.after == 0:
			sign = -1
		default:
			continue
		}
		s.blocks.Add(sign)
		if it != nil && s.ix.pinned(it, part[i].key) {
			s.pinnedBytes.Add(sign * int64(out.size))
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, n := range live {
		if p := s.packs[id]; p != nil {
			p.live.Add(n)
		}
	}
}

// exists reports whether a place's file is (still) one of the store's.
func (s *Store) exists(p place) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p.kind == inPack {
		return s.packs[p.id] != nil
	}
	return s.bodies[p.id] != nil
}

// settledInPack reports whether a place is in a pack that is not being emptied.
func (s *Store) settledInPack(p place) bool {
	return p.kind == inPack && s.readable(p, true)
}

// readable reports whether a place may be read. With settled, places in files about to go do not count.
func (s *Store) readable(p place, settled bool) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p.kind == inPack {
		k := s.packs[p.id]
		return k != nil && !(settled && k.leaving.Load())
	}
	b := s.bodies[p.id]
	return b != nil && b.committed.Load() && !b.changed.Load() && !(settled && b.leaving.Load())
}
