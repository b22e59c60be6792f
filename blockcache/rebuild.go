package blockcache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// rebuild mends the index after an unclean stop. The database may have lost any of what was not
// synced, and so may the files. What is left is made to agree: places beyond the end of files and
// in files that are gone are dropped, packs are read from where the index last was durable, and
// every figure is counted anew. Bytes are checked later, by verifyAll and by each read.
func (s *Store) rebuild(ctx context.Context) error {
	ends := make(map[uint64]int64) // of the last indexed record of each pack
	sizes, err := s.measure()
	if err != nil {
		return err
	}
	if err := s.mendBlocks(ctx, sizes, ends); err != nil {
		return fmt.Errorf("mend index: %w", err)
	}
	if err := s.mendLeaves(ctx, sizes); err != nil {
		return fmt.Errorf("mend bodies: %w", err)
	}
	for _, b := range s.bodies {
		s.enlist(b)
	}
	if err := s.mendPins(ctx); err != nil {
		return fmt.Errorf("mend pins: %w", err)
	}
	for _, p := range s.packs {
		if err := s.mendPack(ctx, p, sizes[p.id], ends[p.id]); err != nil {
			return fmt.Errorf("mend %s: %w", p.name, err)
		}
	}
	return s.sumPinned(ctx)
}

// measure returns the lengths of all files.
func (s *Store) measure() (map[uint64]int64, error) {
	sizes := make(map[uint64]int64)
	for _, p := range s.packs {
		n, err := s.sizeOfBlob(&p.blob)
		if err != nil {
			return nil, err
		}
		sizes[p.id], p.size = n, n
		p.live.Store(0)
	}
	for _, b := range s.bodies {
		if b.lent() { // opened when it is first read
			sizes[b.id] = int64(b.fileBytes)
			continue
		}
		n, err := s.sizeOfBlob(&b.blob)
		if err != nil {
			return nil, err
		}
		sizes[b.id] = n
	}
	return sizes, nil
}

// fixer collects writes into batches of bounded size.
type fixer struct {
	ix *index
	wb *badger.WriteBatch
	n  int
}

func (f *fixer) write(k, v []byte) error {
	if f.wb == nil {
		f.wb = f.ix.db.NewWriteBatch()
	}
	var err error
	if v == nil {
		err = f.wb.Delete(k)
	} else {
		err = f.wb.Set(k, v)
	}
	if f.n++; err == nil && f.n >= maxChanges {
		return f.flush()
	}
	return err
}

func (f *fixer) flush() error {
	if f.wb == nil {
		return nil
	}
	err := f.wb.Flush()
	f.wb.Cancel()
	f.wb, f.n = nil, 0
	return err
}

// mendBlocks drops places that can not be and counts the others.
func (s *Store) mendBlocks(ctx context.Context, sizes, ends map[uint64]int64) error {
	fix := &fixer{ix: s.ix}
	below := s.ix.k(tagBlock, "")
	var blocks int64
	err := s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		ps := decodePlaces(v)
		k := string(rest)
		good := slices.DeleteFunc(ps, func(p place) bool {
			size, ok := sizes[p.id]
			return !ok || int64(p.off)+int64(p.n) > size
		})
		if len(good) > 0 {
			blocks++
		}
		for _, p := range good {
			if pk := s.packs[p.id]; p.kind == inPack && pk != nil {
				pk.live.Add(packWeight(k, p.n))
				ends[p.id] = max(ends[p.id], int64(p.off)+int64(p.n))
			}
		}
		switch enc := encodePlaces(good); {
		case len(enc) == len(v):
			return nil
		case len(good) == 0:
			return fix.write(s.ix.k(tagBlock, k), nil)
		default:
			return fix.write(s.ix.k(tagBlock, k), enc)
		}
	})
	s.blocks.Store(blocks)
	return errors.Join(err, fix.flush())
}

// mendLeaves counts what bodies have, drops leaves that can not be, and gives blocks that lost
// their entry a new one.
func (s *Store) mendLeaves(ctx context.Context, sizes map[uint64]int64) error {
	fix := &fixer{ix: s.ix}
	below := s.ix.k(tagLeaf, "")
	var again []change
	err := s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		if len(rest) != 16 {
			return fix.write(s.ix.k(tagLeaf, string(rest)), nil)
		}
		id := binary.BigEndian.Uint64(rest)
		l, ok := decodeLeaf(binary.BigEndian.Uint64(rest[8:]), v)
		b := s.bodies[id]
		if !ok || b == nil || !b.takes(l) || int64(l.off)+int64(l.n) > sizes[id] {
			return fix.write(s.ix.k(tagLeaf, string(rest)), nil)
		}
		b.have = b.have.add(l.off, l.off+uint64(l.n))
		txn := s.ix.db.NewTransaction(false)
		ps, err := s.ix.places(txn, l.key)
		txn.Discard()
		if err != nil || len(ps) > 0 && slices.ContainsFunc(ps, s.exists) {
			return err
		}
		again = append(again, change{key: l.key, add: []place{l.place(id)}})
		if len(again) < maxChanges {
			return nil
		}
		err = s.apply(ctx, again)
		again = again[:0]
		return err
	})
	return errors.Join(err, fix.flush(), s.apply(ctx, again))
}

// mendPack indexes the records that the index lost and cuts off what is behind the last one.
func (s *Store) mendPack(ctx context.Context, p *pack, size, indexedEnd int64) error {
	f, err := s.fds.acquire(&p.blob)
	if err != nil {
		return err
	}
	defer s.fds.release(&p.blob)
	m := &mender{s: s, p: p, f: f}
	from := &patchy{r: f}
	end, err := scanRecords(from, min(p.indexed, size), size, func(r record) error { return m.meet(ctx, r) })
	if err == nil {
		err = m.flush(ctx)
	}
	if err != nil {
		return err
	}
	end = max(end, indexedEnd)
	if from.gaps > 0 {
		end = size // what cannot be read today is not cut off
	}
	if end < size {
		if err := f.Truncate(end); err != nil {
			return err
		}
		s.markDirty(&p.blob)
	}
	p.size, p.sealed, p.indexed = end, true, end
	return s.savePacks([]*pack{p})
}

// mender indexes the records of one pack.
type mender struct {
	s       *Store
	p       *pack
	f       file
	changes []change
}

// meet looks at one record. Its header is sound; its data may be anything.
func (m *mender) meet(ctx context.Context, r record) error {
	k := key(r.cid)
	txn := m.s.ix.db.NewTransaction(false)
	ps, err := m.s.ix.places(txn, k)
	txn.Discard()
	if err != nil {
		return err
	}
	here := place{kind: inPack, id: m.p.id, off: uint64(r.off), n: uint32(r.n), crc: r.crc}
	if slices.ContainsFunc(ps, here.same) {
		return nil
	}
	if _, ok := inline(r.cid); ok {
		return nil
	}
	data := make([]byte, r.n)
	if _, err := m.f.ReadAt(data, r.off); err != nil || checksum(data) != r.crc || !hashes(r.cid, data) {
		return nil
	}
	m.s.counts.recovered.Add(1)
	m.changes = append(m.changes, change{key: k, add: []place{here}})
	if len(m.changes) < maxChanges {
		return nil
	}
	return m.flush(ctx)
}

func (m *mender) flush(ctx context.Context) error {
	err := m.s.apply(ctx, m.changes)
	m.changes = m.changes[:0]
	return err
}

// loadPins reads which roots are pinned.
func (s *Store) loadPins(ctx context.Context) error {
	below := s.ix.k(tagPin, "")
	return s.ix.each(ctx, below, below, false, func(rest, _ []byte) error {
		s.ix.roots.add(string(rest))
		return nil
	})
}

// mendPins makes the two directions of membership and the counts of members agree.
func (s *Store) mendPins(ctx context.Context) error {
	if err := s.loadPins(ctx); err != nil {
		return err
	}
	fix := &fixer{ix: s.ix}
	counts := make(map[string]uint64)
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	below := s.ix.k(tagMember, "")
	err := s.ix.each(ctx, below, below, false, func(rest, _ []byte) error {
		root, k, ok := splitPair(rest)
		fact, err := s.ix.value(txn, s.ix.k(tagPin, root))
		if err != nil {
			return err
		}
		if !ok || fact == nil {
			return fix.write(s.ix.k(tagMember, string(rest)), nil)
		}
		counts[root]++
		turned := s.ix.pairKey(tagPinned, k, root)
		if old, err := s.ix.value(txn, turned); err != nil || old != nil {
			return err
		}
		return fix.write(turned, []byte{1})
	})
	if err = errors.Join(err, fix.flush()); err != nil {
		return err
	}
	below = s.ix.k(tagPinned, "")
	err = s.ix.each(ctx, below, below, false, func(rest, _ []byte) error {
		k, root, ok := splitPair(rest)
		member, err := s.ix.value(txn, s.ix.pairKey(tagMember, root, k))
		if err != nil || ok && member != nil && counts[root] > 0 {
			return err
		}
		return fix.write(s.ix.k(tagPinned, string(rest)), nil)
	})
	if err != nil {
		return errors.Join(err, fix.flush())
	}
	below = s.ix.k(tagPin, "")
	err = s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		n, complete := decodePin(v)
		if n == counts[string(rest)] {
			return nil
		}
		return fix.write(s.ix.k(tagPin, string(rest)), encodePin(counts[string(rest)], complete))
	})
	return errors.Join(err, fix.flush())
}

// splitPair is the inverse of pairKey.
func splitPair(b []byte) (first, second string, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", "", false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), string(b[n:]), true
}

// sumPinned counts the pinned bytes that are here.
func (s *Store) sumPinned(ctx context.Context) error {
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	var total int64
	var last string
	below := s.ix.k(tagPinned, "")
	err := s.ix.each(ctx, below, below, false, func(rest, _ []byte) error {
		k, _, ok := splitPair(rest)
		if !ok || k == last {
			return nil
		}
		last = k
		n, err := s.sizeIn(txn, k)
		total += n
		return err
	})
	s.pinnedBytes.Store(total)
	return err
}
