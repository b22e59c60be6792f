package blockcache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/dgraph-io/badger/v4"
)

// recover loads the store's state. After a clean stop that is a few entries a file; otherwise the
// index is read in full and mended.
func (s *Store) recover(ctx context.Context) error {
	marks, err := s.loadMarks()
	if err != nil {
		return err
	}
	if err := s.loadFiles(ctx, marks.known); err != nil {
		return err
	}
	fresh := !marks.known && len(s.packs) == 0
	clean := marks.clean && !s.cfg.UncleanStop
	s.epoch = max(1, marks.epoch)
	if !clean && !fresh {
		s.epoch++
	}
	s.clock.Store(marks.clock)
	for _, v := range s.victims() {
		s.clock.Store(max(s.clock.Load(), v.tick))
	}
	if clean {
		err = s.loadClean(ctx, marks)
	} else if !fresh {
		err = s.rebuild(ctx)
	}
	if err != nil {
		return err
	}
	s.sumUsed()
	return s.begin()
}

// marks are the store's own facts.
type marks struct {
	known          bool // the index has been used before
	clean          bool // Close was reached
	epoch          uint64
	blocks, pinned int64
	clock          uint64
}

func (s *Store) loadMarks() (marks, error) {
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	var m marks
	v, err := s.ix.value(txn, s.ix.k(tagEpoch, ""))
	if err != nil {
		return m, err
	}
	if nums, _, ok := decodeUints(v, 1); ok {
		m.known, m.epoch = true, nums[0]
	}
	v, err = s.ix.value(txn, s.ix.k(tagCleanMark, ""))
	if err != nil {
		return m, err
	}
	if nums, _, ok := decodeUints(v, 3); ok && m.known {
		m.clean, m.blocks, m.pinned, m.clock = true, int64(nums[0]), int64(nums[1]), nums[2]
	}
	return m, nil
}

// begin takes the clean mark away and makes that durable before anything else happens.
func (s *Store) begin() error {
	err := s.ix.batch(func(wb *badger.WriteBatch) error {
		if err := wb.Delete(s.ix.k(tagCleanMark, "")); err != nil {
			return err
		}
		return wb.Set(s.ix.k(tagEpoch, ""), encodeUints(s.epoch))
	})
	if err != nil {
		return err
	}
	return s.syncIndex()
}

// saveClean is the end of Close: facts first, then, when they are durable, the mark that they are so.
func (s *Store) saveClean() error {
	var ps []*pack
	var bs []*body
	for _, v := range s.victims() {
		if v.pack != nil {
			ps = append(ps, v.pack)
		} else {
			bs = append(bs, v.body)
		}
	}
	if err := errors.Join(s.savePacks(ps), s.saveBodies(bs), s.saveSpans(bs), s.syncIndex()); err != nil {
		return err
	}
	v := encodeUints(uint64(max(0, s.blocks.Load())), uint64(max(0, s.pinnedBytes.Load())), s.clock.Load())
	err := s.ix.batch(func(wb *badger.WriteBatch) error { return wb.Set(s.ix.k(tagCleanMark, ""), v) })
	return errors.Join(err, s.syncIndex())
}

// maxSpansBytes bounds a body's entry of spans; one with more is read leaf by leaf at the next open. It
// is below what the database keeps in logs of values, which index.sync does not flush by name.
const maxSpansBytes = 16 << 10

func (s *Store) saveSpans(bs []*body) error {
	return s.ix.batch(func(wb *badger.WriteBatch) error {
		for _, b := range bs {
			b.mu.Lock()
			v := b.have.encode()
			b.mu.Unlock()
			k := s.ix.idKey(tagSpans, b.id)
			var err error
			if len(v) > maxSpansBytes {
				err = wb.Delete(k)
			} else {
				err = wb.Set(k, v)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// loadFiles joins the files that are there with what the index says of them. Bodies that the index
// does not know are removed; packs that it does not know are kept and read.
func (s *Store) loadFiles(ctx context.Context, known bool) error {
	packs, err := s.listIDs(packDir)
	if err != nil {
		return err
	}
	bodies, err := s.listIDs(bodyDir)
	if err != nil {
		return err
	}
	var gone []factKey // facts without files
	below := s.ix.k(tagPack, "")
	err = s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		nums, _, ok := decodeUints(v, 5)
		if len(rest) != 8 || !ok || !packs[binary.BigEndian.Uint64(rest)] {
			gone = append(gone, factKey{tagPack, string(rest)})
			return nil
		}
		s.addPack(binary.BigEndian.Uint64(rest), nums)
		return nil
	})
	if err != nil {
		return err
	}
	for id := range packs {
		if s.packs[id] == nil {
			s.addPack(id, []uint64{1, 0, 0, 0, 0})
		}
	}
	below = s.ix.k(tagBody, "")
	err = s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		b, ok := loadBody(rest, v)
		if !ok || !bodies[b.id] && b.loan.Load() == nil {
			gone = append(gone, factKey{tagBody, string(rest)}, factKey{tagSpans, string(rest)})
			return nil
		}
		s.bodies[b.id] = b
		s.sawID(b.id)
		return s.loadLoan(b, bodies[b.id])
	})
	if err != nil {
		return err
	}
	if err := s.dropFacts(gone); err != nil {
		return err
	}
	return s.removeOrphans(bodies)
}

// factKey is a key by its parts.
type factKey struct {
	tag  byte
	rest string
}

func (s *Store) dropFacts(gone []factKey) error {
	return s.ix.batch(func(wb *badger.WriteBatch) error {
		for _, g := range gone {
			if err := wb.Delete(s.ix.k(g.tag, g.rest)); err != nil {
				return err
			}
		}
		return nil
	})
}

// addPack makes a known pack of its facts.
func (s *Store) addPack(id uint64, nums []uint64) {
	p := &pack{blob: blob{id: id, name: packName(id)}, sealed: nums[0] == 1, indexed: int64(min(nums[1], maxPackBytes*2))}
	p.live.Store(int64(nums[2]))
	p.verified.Store(nums[3])
	p.tick.Store(nums[4])
	s.packs[id] = p
	s.sawID(id)
}

// removeOrphans removes bodies without facts: their writers never came to Commit.
func (s *Store) removeOrphans(ids map[uint64]bool) error {
	for id := range ids {
		s.sawID(id)
		if s.bodies[id] != nil {
			continue
		}
		if err := s.fs.Remove(bodyName(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove an unfinished body: %w", err)
		}
	}
	return nil
}

// listIDs returns the IDs of the files in a folder; strangers' files are left alone.
func (s *Store) listIDs(dir string) (map[uint64]bool, error) {
	names, err := s.fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	ids := make(map[uint64]bool, len(names))
	for _, n := range names {
		id, err := strconv.ParseUint(n, 16, 64)
		if err == nil && len(n) == 16 {
			ids[id] = true
		}
	}
	return ids, nil
}

// loadClean trusts what Close wrote.
func (s *Store) loadClean(ctx context.Context, m marks) error {
	s.blocks.Store(m.blocks)
	s.pinnedBytes.Store(m.pinned)
	for _, p := range s.packs {
		size, err := s.sizeOfBlob(&p.blob)
		if err != nil {
			return err
		}
		p.size = size
		if !p.sealed && (s.active == nil || s.active.id < p.id) {
			s.active = p
		}
	}
	for _, p := range s.packs {
		p.sealed = p.sealed || p != s.active
	}
	for _, b := range s.bodies {
		if err := s.loadSpans(ctx, b); err != nil {
			return err
		}
		s.enlist(b)
	}
	return s.loadPins(ctx)
}

func (s *Store) sizeOfBlob(b *blob) (int64, error) {
	f, err := s.fds.acquire(b)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", b.name, err)
	}
	defer s.fds.release(b)
	n, err := f.Size()
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", b.name, err)
	}
	return n, nil
}

// loadSpans reads what a body has, from its own entry or from its leaves.
func (s *Store) loadSpans(ctx context.Context, b *body) error {
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	v, err := s.ix.value(txn, s.ix.idKey(tagSpans, b.id))
	if err != nil {
		return err
	}
	have, ok := decodeSpans(v)
	if v != nil && ok && (len(have) == 0 || have[len(have)-1].hi <= b.fileBytes) {
		b.have = have
		return nil
	}
	below := s.ix.idKey(tagLeaf, b.id)
	return s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		if len(rest) != 8 {
			return nil
		}
		l, ok := decodeLeaf(binary.BigEndian.Uint64(rest), v)
		if ok && b.takes(l) {
			b.have = b.have.add(l.off, l.off+uint64(l.n))
		}
		return nil
	})
}

// takes reports whether a leaf found in the index fits the body.
func (b *body) takes(l leaf) bool {
	end := l.off + uint64(l.n)
	return end <= b.fileBytes && !b.have.overlaps(l.off, end)
}

// enlist makes a body findable by its file. Of two, the complete one is found and the other goes
// first at the next eviction.
func (s *Store) enlist(b *body) {
	old := s.byFile[key(b.file)]
	if old == nil {
		s.byFile[key(b.file)] = b
		return
	}
	if b.complete() && !old.complete() {
		s.byFile[key(b.file)] = b
		b = old
	}
	b.tick.Store(0)
}

// sumUsed counts what the files take.
func (s *Store) sumUsed() {
	var n int64
	for _, p := range s.packs {
		n += p.size
	}
	for _, b := range s.bodies {
		if b.lent() {
			s.lent.Add(int64(b.have.bytes()))
		} else {
			n += int64(b.have.bytes())
		}
	}
	s.used.Store(n)
}
