package blockcache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sync/errgroup"
)

// syncGate joins concurrent Syncs: whoever comes while one runs shares the next.
type syncGate struct {
	mu   sync.Mutex
	busy bool
	next *syncRun
}

// syncRun is one sync that several callers wait for.
type syncRun struct {
	done chan struct{}
	err  error // valid after done is closed
}

// join returns the next run; lead tells the caller to start it.
func (g *syncGate) join() (r *syncRun, lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		g.next = &syncRun{done: make(chan struct{})}
		lead = !g.busy
		g.busy = true
	}
	return g.next, lead
}

// take returns the run to do now, nil when none waits.
func (g *syncGate) take() *syncRun {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.next
	g.next = nil
	g.busy = r != nil
	return r
}

// Sync returns when every Put, Delete, Commit, Pin and Unpin that returned before is durable.
// Concurrent calls share the work. The end of ctx ends the waiting, not the work.
func (s *Store) Sync(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	return s.syncShared(ctx)
}

func (s *Store) syncShared(ctx context.Context) error {
	r, lead := s.syncs.join()
	if lead {
		s.tasks.Add(1)
		go func() {
			defer s.tasks.Done()
			for run := s.syncs.take(); run != nil; run = s.syncs.take() {
				run.err = s.syncNow()
				close(run.done)
			}
		}()
	}
	select {
	case <-r.done:
		if r.err != nil {
			return fmt.Errorf("sync store: %w", r.err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// syncNow flushes bytes, then names of files, then the index that points to them. What the system
// failed to write once it may forget, and call the next attempt a success. So a failure is remembered:
// of a file until the file is gone, of folders and index until the store is opened again.
func (s *Store) syncNow() error {
	settled := s.settledPacks()
	s.dirtyMu.Lock()
	dirty := s.dirty
	s.dirty = make(map[*blob]struct{})
	s.dirtyMu.Unlock()
	var g errgroup.Group
	g.SetLimit(4)
	for b := range dirty {
		g.Go(func() error { return s.syncBlob(b) })
	}
	if err := g.Wait(); err != nil {
		s.dirtyMu.Lock()
		for b := range dirty {
			s.dirty[b] = struct{}{}
		}
		s.dirtyMu.Unlock()
		return err
	}
	if s.lost != nil {
		return s.lost
	}
	if s.newFiles.Swap(false) {
		if err := s.fs.SyncDirs(); err != nil {
			s.newFiles.Store(true)
			return s.remember(fmt.Errorf("sync folders: %w", err))
		}
	}
	if err := s.syncIndex(); err != nil {
		return s.remember(err)
	}
	return s.checkpoint(settled)
}

// forgetful reports whether err may stand for bytes that the system has given up.
func forgetful(err error) bool {
	return unreadable(err) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (s *Store) remember(err error) error {
	if forgetful(err) {
		s.lost = err
	}
	return err
}

func (s *Store) syncIndex() error {
	if s.cfg.syncIndex != nil {
		return s.cfg.syncIndex(s.ix.sync)
	}
	return s.ix.sync()
}

func (s *Store) syncBlob(b *blob) error {
	f, err := s.fds.acquire(b)
	if err != nil {
		if s.fds.gone(b) || errors.Is(err, errAway) { // a lent file that is not there has nothing to lose
			return nil
		}
		return fmt.Errorf("sync %s: %w", b.name, err)
	}
	defer s.fds.release(b)
	if err = b.lost; err == nil {
		err = f.Sync()
	}
	if err == nil {
		return nil
	}
	if forgetful(err) {
		b.lost = err
	}
	return fmt.Errorf("sync %s: %w", b.name, fullError(err))
}

// settledPacks returns how far each pack is written and indexed, where that is known.
func (s *Store) settledPacks() map[*pack]int64 {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	m := make(map[*pack]int64)
	for _, p := range s.packs {
		if p.busy.Load() == 0 && p.indexed < p.size {
			m[p] = p.size
		}
	}
	return m
}

// checkpoint writes down how far packs need not be read again after a crash. It is true already, so
// it need not be synced.
func (s *Store) checkpoint(settled map[*pack]int64) error {
	if len(settled) == 0 {
		return nil
	}
	ps := make([]*pack, 0, len(settled))
	s.packMu.Lock()
	for p, n := range settled {
		p.indexed = n
		ps = append(ps, p)
	}
	s.packMu.Unlock()
	return s.savePacks(ps)
}

// savePacks writes the facts of packs to the index.
func (s *Store) savePacks(ps []*pack) error {
	return s.ix.batch(func(wb *badger.WriteBatch) error {
		for _, p := range ps {
			s.packMu.Lock()
			var sealed uint64
			if p.sealed {
				sealed = 1
			}
			v := encodeUints(sealed, uint64(p.indexed), uint64(p.live.Load()), p.verified.Load(), p.tick.Load())
			s.packMu.Unlock()
			if p.leaving.Load() {
				continue
			}
			if err := wb.Set(s.ix.idKey(tagPack, p.id), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// markDirty notes that a file has bytes the next Sync must flush. It comes after the write.
func (s *Store) markDirty(b *blob) {
	s.dirtyMu.Lock()
	s.dirty[b] = struct{}{}
	s.dirtyMu.Unlock()
}

// unmarkDirty forgets a file that is going away.
func (s *Store) unmarkDirty(b *blob) {
	s.dirtyMu.Lock()
	delete(s.dirty, b)
	s.dirtyMu.Unlock()
}

// flowBytes is how much is written to a file before the disk is started on it.
const flowBytes = 8 << 20

// writeback remembers which part of a file was written since the disk was last started on it.
type writeback struct {
	mu     sync.Mutex
	lo, hi int64
}

// flowOn starts the disk on what was written, once there is enough of it, so that Sync has little
// left to wait for. A goroutine does it, because starting may wait too; at most two at a time.
func (s *Store) flowOn(b *blob, w *writeback, off, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hi == w.lo {
		w.lo, w.hi = off, off+n
	}
	w.lo, w.hi = min(w.lo, off), max(w.hi, off+n)
	if w.hi-w.lo < flowBytes {
		return
	}
	select {
	case s.flowing <- struct{}{}:
	default:
		return
	}
	lo, hi := w.lo, w.hi
	w.lo, w.hi = 0, 0
	s.tasks.Add(1) // within a call, so Close has not passed its Wait
	go func() {
		defer s.tasks.Done()
		defer func() { <-s.flowing }()
		f, err := s.fds.acquire(b)
		if err != nil {
			return // a hint only; Sync reports what is wrong
		}
		defer s.fds.release(b)
		f.Writeback(lo, hi-lo)
	}()
}
