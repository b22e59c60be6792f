package blockcache

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
)

// keep decides which live blocks of a pack survive a sweep.
type keep int

const (
	keepAll    keep = iota // rewriting
	keepUsed               // eviction: pinned or lately read
	keepPinned             // garbage collection, or eviction in need
)

func keepSome(hot bool) keep {
	if hot {
		return keepUsed
	}
	return keepPinned
}

// touchedBytes estimates how much of the pack was lately read.
func (p *pack) touchedBytes() int64 {
	p.bitsMu.Lock()
	defer p.bitsMu.Unlock()
	n := 0
	for _, w := range p.bits {
		n += bits.OnesCount64(w)
	}
	return int64(n) << granuleShift
}

// retire seals an idle pack and marks it as leaving.
func (s *Store) retire(p *pack) bool {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	if p.busy.Load() > 0 || !p.leaving.CompareAndSwap(false, true) {
		return false
	}
	p.sealed = true
	if s.active == p {
		s.active = nil
	}
	return true
}

// sweep moves the blocks that k keeps into another pack, drops the others and removes the pack. It
// returns the bytes won; zero if the pack is being written.
func (s *Store) sweep(ctx context.Context, p *pack, k keep) (won int64, err error) {
	if !s.retire(p) {
		return 0, nil
	}
	defer func() {
		if err != nil {
			p.leaving.Store(false) // what is left in it stays readable
		}
	}()
	w := &sweeper{s: s, p: p, keep: k}
	if err := w.run(ctx); err != nil {
		return 0, err
	}
	if p.moved.Load() { // moved blocks must be durable before the old ones go
		if err := s.syncShared(ctx); err != nil {
			return 0, err
		}
	}
	err = s.ix.batch(func(wb *badger.WriteBatch) error { return wb.Delete(s.ix.idKey(tagPack, p.id)) })
	if err != nil {
		return 0, err
	}
	s.packMu.Lock()
	size := p.size
	s.packMu.Unlock()
	s.mu.Lock()
	delete(s.packs, p.id)
	s.mu.Unlock()
	s.unmarkDirty(&p.blob)
	s.used.Add(-size)
	s.newFiles.Store(true)
	return max(size-w.moved, 1), s.fds.remove(&p.blob)
}

// sweeper empties one pack.
type sweeper struct {
	s     *Store
	p     *pack
	f     file // nil if it is not there
	keep  keep
	moved int64 // bytes of records moved

	batch []record // met, not yet dealt with
	bytes int64
}

func (w *sweeper) run(ctx context.Context) error {
	f, err := w.s.fds.acquire(&w.p.blob)
	if err == nil {
		defer w.s.fds.release(&w.p.blob)
		w.f = f
		w.s.packMu.Lock()
		size := w.p.size
		w.s.packMu.Unlock()
		_, err = scanRecords(&patchy{r: f}, 0, size, func(r record) error { return w.meet(ctx, r) })
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = w.flush(ctx)
	}
	if err == nil && w.p.live.Load() != 0 {
		err = w.stragglers(ctx)
	}
	if err != nil {
		return fmt.Errorf("sweep %s: %w", w.p.name, err)
	}
	return nil
}

// meet takes one record.
func (w *sweeper) meet(ctx context.Context, r record) error {
	w.batch = append(w.batch, r)
	w.bytes += int64(r.n)
	if len(w.batch) < maxChanges && w.bytes < maxAppend {
		return nil
	}
	return w.flush(ctx)
}

// stragglers finds, by reading the whole index, the blocks whose headers in the pack are damaged.
func (w *sweeper) stragglers(ctx context.Context) error {
	below := w.s.ix.k(tagBlock, "")
	err := w.s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		for _, p := range decodePlaces(v) {
			if p.kind != inPack || p.id != w.p.id {
				continue
			}
			c := cid.NewCidV1(cid.Raw, slices.Clone(rest))
			if err := w.meet(ctx, record{cid: c, off: int64(p.off), n: int(p.n), crc: p.crc}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.flush(ctx)
}

// read reads a block's bytes.
func (w *sweeper) read(p place) ([]byte, error) {
	if w.f == nil {
		return nil, os.ErrNotExist
	}
	data := make([]byte, p.n)
	_, err := w.f.ReadAt(data, int64(p.off))
	return data, err
}

// flush deals with the records met so far.
func (w *sweeper) flush(ctx context.Context) error {
	drops, moves, err := w.sort()
	w.batch, w.bytes = w.batch[:0], 0
	if err != nil {
		return err
	}
	var ls []loose
	var old []change
	for _, c := range moves {
		pl := c.drop[0]
		data, err := w.read(pl)
		trusted := w.p.verified.Load() == w.s.epoch
		if err != nil || checksum(data) != pl.crc || !trusted && !hashesTo(c.key, data) {
			w.s.counts.corruptions.Add(1)
			w.s.log.Warn("dropped a damaged block", "file", w.p.name, "offset", pl.off, "bytes", pl.n, "err", err)
			drops = append(drops, change{key: c.key, drop: c.drop})
			continue
		}
		ls = append(ls, loose{cid: c.cid, data: data, crc: pl.crc})
		old = append(old, c.change)
	}
	if err := w.move(ctx, ls, old); err != nil {
		return err
	}
	return w.s.apply(ctx, drops)
}

// move appends blocks elsewhere and turns their entries over.
func (w *sweeper) move(ctx context.Context, ls []loose, old []change) error {
	if len(ls) == 0 {
		return nil
	}
	var n int64
	for _, l := range ls {
		n += recordBytes(l.cid, len(l.data))
	}
	w.s.used.Add(n) // room for moving is not asked for: the pack's own comes free right after
	ps, done, err := w.s.appendLoose(ls)
	if err != nil {
		return err
	}
	defer done()
	for i := range old {
		old[i].add = []place{ps[i]}
		old[i].only = &old[i].drop[0]
	}
	w.moved += n
	w.p.moved.Store(true)
	return w.s.apply(ctx, old)
}

// moving is a block to move: its entry's change and its CID.
type moving struct {
	change
	cid cid.Cid
}

// sort tells which records are alive, and which of those stay.
func (w *sweeper) sort() (drops []change, moves []moving, err error) {
	txn := w.s.ix.db.NewTransaction(false)
	defer txn.Discard()
	var it *pinView
	if w.s.ix.roots.count() > 0 {
		it = w.s.ix.pinIterator(txn)
		defer it.Close()
	}
	for _, r := range w.batch {
		k := key(r.cid)
		ps, err := w.s.ix.places(txn, k)
		if err != nil {
			return nil, nil, err
		}
		here := place{kind: inPack, id: w.p.id, off: uint64(r.off), n: uint32(r.n), crc: r.crc}
		alive := false
		for _, p := range ps {
			if p.same(here) {
				here.crc, alive = p.crc, true
			}
		}
		if !alive {
			continue
		}
		c := change{key: k, drop: []place{here}}
		stays := w.keep == keepAll || w.keep == keepUsed && w.p.touched(here.off) ||
			it != nil && w.s.ix.pinned(it, k)
		if stays {
			moves = append(moves, moving{c, r.cid})
		} else {
			drops = append(drops, c)
		}
	}
	return drops, moves, nil
}
