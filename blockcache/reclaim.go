package blockcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

const (
	copyPart   = 64 << 20             // bytes copied between two looks at the context
	seizeRetry = 2 * time.Millisecond // between looks at a body that somebody else is removing
)

// Reclaim gives a lent file back: after it has returned nil nothing of the store depends on the file. Blocks that are
// pinned and have no other place are copied, durably; the others are dropped. What is copied counts against
// the quota and may exceed it. Where no file is lent by that name it costs nothing. It may be repeated after an error.
func (s *Store) Reclaim(ctx context.Context, name string) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	for _, b := range s.recall(name) {
		if err := s.reclaim(ctx, b); err != nil {
			return fmt.Errorf("reclaim lent file: %w", err)
		}
	}
	return nil
}

// recall returns the bodies of a lent file, and sees to it that those being written never become such.
func (s *Store) recall(name string) []*body {
	all := s.lentAs(name)
	if len(all) == 0 {
		return nil
	}
	s.beginMu.Lock()
	defer s.beginMu.Unlock()
	return slices.DeleteFunc(all, func(b *body) bool {
		b.recalled = true
		return !b.committed.Load()
	})
}

// seize marks a body as leaving, as soon as nobody else does. It is false if the body is gone.
func (s *Store) seize(ctx context.Context, b *body) (bool, error) {
	for !b.leave() {
		if !s.exists(place{kind: inBody, id: b.id}) {
			return false, nil
		}
		t := time.NewTimer(seizeRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false, ctx.Err()
		}
	}
	return true, nil
}

func (s *Store) reclaim(ctx context.Context, b *body) error {
	if here, err := s.seize(ctx, b); !here || err != nil {
		return err
	}
	return s.giveBack(ctx, b, nil)
}

// giveBack drops a body that is leaving. What is in by, another body of the same file, is not copied; it may be nil.
func (s *Store) giveBack(ctx context.Context, b, by *body) error {
	s.unmarkDirty(&b.blob) // what goes need not be synced
	err := s.rescue(ctx, b, by)
	if err == nil {
		err = s.dropBody(context.WithoutCancel(ctx), b)
	}
	if err != nil {
		s.markDirty(&b.blob)
		s.keepBody(b)
	}
	return err
}

// rescue copies what is pinned and has no other place. The body is leaving, so that no Put counts on it any more.
func (s *Store) rescue(ctx context.Context, b, by *body) (err error) {
	r := &rescue{s: s, b: b, by: by}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.undo())
		}
	}()
	for from := uint64(0); s.ix.roots.count() > 0 && !b.changed.Load(); {
		ls, err := s.ix.leaves(ctx, b.id, from, maxChanges)
		if err != nil {
			return err
		}
		if len(ls) == 0 {
			break
		}
		need, err := r.needed(ls)
		if err == nil && len(need) > 0 {
			err = r.copy(ctx, need)
		}
		if err != nil {
			return err
		}
		from = ls[len(ls)-1].off + 1
	}
	return r.finish(ctx)
}

// rescue copies leaves of a body into another of the same file, which has holes where nothing is pinned.
type rescue struct {
	s      *Store
	b, own *body // own is nil until something is copied
	by     *body // if set, lent as well: what lies there need not be copied
	pinned bool  // anything was
}

// needed returns the leaves that are pinned and lie nowhere else.
func (r *rescue) needed(ls []leaf) ([]leaf, error) {
	txn := r.s.ix.db.NewTransaction(false)
	defer txn.Discard()
	pins := r.s.ix.pinIterator(txn)
	defer pins.Close()
	seen := make(map[string]bool, len(ls))
	var need []leaf
	for _, l := range ls {
		if seen[l.key] || !r.s.ix.pinned(pins, l.key) {
			continue
		}
		r.pinned = true
		ps, err := r.s.ix.places(txn, l.key)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(ps, r.stays) {
			seen[l.key] = true
			need = append(need, l)
		}
	}
	return need, nil
}

// stays reports whether a place is one that the store has to itself.
func (r *rescue) stays(p place) bool {
	if p.kind == inPack {
		return r.s.readable(p, true)
	}
	r.s.mu.RLock()
	b := r.s.bodies[p.id]
	r.s.mu.RUnlock()
	return b != nil && (!b.lent() || b == r.by) && !b.leaving.Load() && (b.committed.Load() || b == r.own)
}

// copy copies leaves, in ascending order, and indexes them; they are readable after finish.
func (r *rescue) copy(ctx context.Context, ls []leaf) error {
	src, err := r.s.fds.acquire(&r.b.blob)
	if errors.Is(err, errAway) && r.b.changed.Load() {
		return nil // there is nothing to copy any more
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", r.b.loan.Load().Name, err)
	}
	defer r.s.fds.release(&r.b.blob)
	if r.own == nil {
		if err := r.begin(); err != nil {
			return err
		}
	}
	changes := make([]change, len(ls))
	var n int64
	for i, l := range ls {
		changes[i] = change{key: l.key, add: []place{l.place(r.own.id)}}
		n += int64(l.n)
	}
	if err := r.s.makeRoom(ctx, n, false); errors.Is(err, ErrFull) {
		r.s.used.Add(n) // better too much than lost
	} else if err != nil {
		return err
	}
	if err = r.copyRuns(ctx, src, ls); err == nil {
		err = r.s.apply(context.WithoutCancel(ctx), changes)
	}
	if err != nil {
		r.s.used.Add(-n)
		return err
	}
	r.own.mu.Lock()
	defer r.own.mu.Unlock()
	for _, l := range ls {
		r.own.have = r.own.have.add(l.off, l.off+uint64(l.n))
	}
	return nil
}

// begin creates the body that is copied to.
func (r *rescue) begin() (err error) {
	if r.own, err = r.s.newBody(r.b.fileBytes); err != nil {
		return err
	}
	r.own.verified.Store(0) // copied as it is; Run looks at it
	r.s.mu.Lock()
	r.s.bodies[r.own.id] = r.own
	r.s.mu.Unlock()
	return nil
}

// copier is a file that can take bytes from another without their coming here.
type copier interface {
	CopyFrom(src file, off, n int64) error
}

// copyRuns copies leaves, neighbours together.
func (r *rescue) copyRuns(ctx context.Context, src file, ls []leaf) error {
	dst, err := r.s.fds.acquire(&r.own.blob)
	if err != nil {
		return err
	}
	defer r.s.fds.release(&r.own.blob)
	r.s.markDirty(&r.own.blob)
	for len(ls) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		lo, hi, n := ls[0].off, ls[0].off, 0
		for n < len(ls) && ls[n].off == hi && hi-lo < copyPart {
			hi += uint64(ls[n].n)
			n++
		}
		ls = ls[n:]
		if c, ok := dst.(copier); ok {
			err = c.CopyFrom(src, int64(lo), int64(hi-lo))
		} else {
			err = copyPlain(dst, src, int64(lo), int64(hi-lo))
		}
		if err != nil {
			return fmt.Errorf("copy lent bytes: %w", fullError(err))
		}
	}
	return nil
}

// copyPlain copies a range to the same place of another file.
func copyPlain(dst, src file, off, n int64) error {
	if n <= 0 {
		return nil
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{io.NewOffsetWriter(dst, off)}, struct{ io.Reader }{io.NewSectionReader(src, off, n)},
		make([]byte, min(n, 1<<20)))
	return err
}

// finish makes what was copied readable, and durable with all that is pinned and lies elsewhere.
func (r *rescue) finish(ctx context.Context) error {
	if r.own != nil {
		if err := r.publish(); err != nil {
			return err
		}
	}
	if !r.pinned {
		return nil
	}
	return r.s.syncShared(ctx)
}

func (r *rescue) publish() error {
	s, own := r.s, r.own
	if err := s.syncBlob(&own.blob); err != nil { // before anything says that it is there
		return err
	}
	s.beginMu.Lock()
	defer s.beginMu.Unlock()
	r.b.mu.Lock()
	root := r.b.file
	r.b.mu.Unlock()
	own.mu.Lock()
	own.file = root
	own.mu.Unlock()
	if err := s.saveBodies([]*body{own}); err != nil {
		return err
	}
	own.tick.Store(s.clock.Add(1))
	own.committed.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byFile[key(root)]; old == nil || old == r.b {
		s.byFile[key(root)] = own
	}
	return nil
}

// undo removes what was copied, unless it is readable already, which does no harm.
func (r *rescue) undo() error {
	if r.own == nil || r.own.committed.Load() || !r.own.leave() {
		return nil
	}
	return r.s.dropBody(context.Background(), r.own)
}
