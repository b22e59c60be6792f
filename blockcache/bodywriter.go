package blockcache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// BodyWriter writes the body of a file whose root is not known yet. Put may be called concurrently;
// Commit and Abort end it. A writer that is dropped without either keeps its room until Close.
type BodyWriter struct {
	s *Store
	b *body

	mu      sync.Mutex
	changes []change // guarded by mu: written, not yet in the index
	claims  []leaf   // guarded by mu: what they are about
	ended   bool     // guarded by mu
}

// CreateBody begins the body of a file of fileBytes bytes. Nothing of it is readable before Commit,
// and after a crash before Commit nothing of it is left.
func (s *Store) CreateBody(ctx context.Context, fileBytes uint64) (*BodyWriter, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	if fileBytes == 0 || fileBytes > maxFileBytes {
		return nil, fmt.Errorf("create body of %d bytes: %w", fileBytes, ErrFull)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.newBody(fileBytes)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.bodies[b.id] = b
	s.mu.Unlock()
	return &BodyWriter{s: s, b: b}, nil
}

// errWriterEnded is returned by a writer that was committed or aborted.
var errWriterEnded = errors.New("body writer has ended")

// Put writes leaves that follow one another from offset. It returns an error that wraps ErrFull
// when there is no room.
func (w *BodyWriter) Put(ctx context.Context, offset uint64, blks []blocks.Block) error {
	if err := w.s.enter(); err != nil {
		return err
	}
	defer w.s.exit()
	for _, blk := range blks {
		n := uint64(len(blk.RawData()))
		if err := w.putLeaf(ctx, offset, blk); err != nil {
			return fmt.Errorf("put leaf at %d: %w", offset, err)
		}
		offset += n
	}
	return nil
}

func (w *BodyWriter) putLeaf(ctx context.Context, off uint64, blk blocks.Block) error {
	data := blk.RawData()
	n := uint64(len(data))
	if n == 0 || n > MaxBlockBytes {
		return fmt.Errorf("leaf %s has %d bytes: %w", blk.Cid(), n, ErrCorrupt)
	}
	if err := checkCID(blk.Cid()); err != nil {
		return err
	}
	if w.b.claim(off, n) != claimed {
		return fmt.Errorf("leaf of %d bytes overlaps another or ends behind %d", n, w.b.fileBytes)
	}
	if err := w.write(ctx, off, data); err != nil {
		w.b.settle(off, n, false)
		return err
	}
	k, crc := key(blk.Cid()), checksum(data)
	if _, ok := inline(blk.Cid()); ok {
		w.b.settle(off, n, true) // the file has the bytes; the index needs no entry
		return nil
	}
	l := leaf{key: k, off: off, n: uint32(n), crc: crc}
	return w.stage(ctx, l)
}

// write reserves room and writes, once more after evicting if the file system is full.
func (w *BodyWriter) write(ctx context.Context, off uint64, data []byte) error {
	n := int64(len(data))
	if w.b.lent() {
		w.s.lent.Add(n) // the bytes are there
		return nil
	}
	if err := w.s.makeRoom(ctx, n, false); err != nil {
		return err
	}
	err := w.s.writeLeaf(w.b, off, data)
	if errors.Is(err, ErrFull) && w.s.makeRoom(ctx, n, true) == nil {
		err = w.s.writeLeaf(w.b, off, data)
	}
	if err != nil {
		w.s.used.Add(-n)
	}
	return err
}

// stage collects index entries until there are enough for a batch.
func (w *BodyWriter) stage(ctx context.Context, l leaf) error {
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		w.forget([]leaf{l})
		return errWriterEnded
	}
	w.changes = append(w.changes, change{key: l.key, add: []place{l.place(w.b.id)}})
	w.claims = append(w.claims, l)
	if len(w.changes) < maxChanges/2 {
		w.mu.Unlock()
		return nil
	}
	changes, claims := w.takeLocked()
	w.mu.Unlock()
	return w.index(ctx, changes, claims)
}

func (w *BodyWriter) takeLocked() ([]change, []leaf) {
	changes, claims := w.changes, w.claims
	w.changes, w.claims = nil, nil
	return changes, claims
}

// index commits entries; readers pass over them until the body is committed.
func (w *BodyWriter) index(ctx context.Context, changes []change, claims []leaf) error {
	err := w.s.apply(context.WithoutCancel(ctx), changes)
	for _, l := range claims {
		w.b.settle(l.off, uint64(l.n), err == nil)
		if err != nil {
			w.s.charge(w.b, -int64(l.n))
		}
	}
	return err
}

// forget gives up leaves that were written and not indexed.
func (w *BodyWriter) forget(claims []leaf) {
	for _, l := range claims {
		w.b.settle(l.off, uint64(l.n), false)
		w.s.charge(w.b, -int64(l.n))
	}
}

// end marks the writer as ended and returns what is not indexed yet.
func (w *BodyWriter) end() ([]change, []leaf, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil, nil, errWriterEnded
	}
	w.ended = true
	changes, claims := w.takeLocked()
	return changes, claims, nil
}

// Commit makes the whole body readable at once as the file's. Every byte must have been put. A
// complete body that the file has already wins. After an error nothing of the body is left.
func (w *BodyWriter) Commit(ctx context.Context, file cid.Cid) error {
	if err := w.s.enter(); err != nil {
		return err
	}
	defer w.s.exit()
	changes, claims, err := w.end()
	if err != nil {
		return err
	}
	err = w.index(ctx, changes, claims)
	if err == nil {
		err = w.publish(ctx, file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("commit body: %w", err), w.drop(ctx))
	}
	return nil
}

func (w *BodyWriter) publish(ctx context.Context, file cid.Cid) error {
	s, b := w.s, w.b
	if err := checkCID(file); err != nil {
		return err
	}
	if !b.complete() {
		return fmt.Errorf("only %d of %d bytes were put", b.haveBytes(), b.fileBytes)
	}
	s.beginMu.Lock() // no other body of the file may begin meanwhile; held over an index commit
	if b.recalled {
		s.beginMu.Unlock()
		return ErrRecalled
	}
	old := s.bodyOf(file)
	if old != nil && old.fileBytes == b.fileBytes && old.complete() && s.sound(old) {
		s.beginMu.Unlock()
		return w.drop(ctx)
	}
	b.mu.Lock()
	b.file = file
	b.mu.Unlock()
	err := s.saveBodies([]*body{b})
	if err == nil {
		b.tick.Store(s.clock.Add(1))
		b.committed.Store(true)
		s.mu.Lock()
		s.byFile[key(file)] = b
		s.mu.Unlock()
		if b.lent() {
			s.markDirty(&b.blob) // its owner need not have synced it
		}
	}
	s.beginMu.Unlock()
	if err == nil && old != nil {
		err = s.replace(ctx, old)
	}
	if err == nil {
		s.outdate(ctx, b)
	}
	return err
}

// sound reports whether a body's bytes can be relied on as a writer's: they are checked, and stay.
func (s *Store) sound(b *body) bool {
	return b.verified.Load() == s.epoch && !b.leaving.Load() && b.loan.Load() == nil
}

// replace removes a body whose file has a better one. What it has may be durable, and what takes its
// place is not yet, so that comes first. If that fails, or somebody writes to the old body, it is
// left to eviction, as the first to go.
func (s *Store) replace(ctx context.Context, old *body) error {
	old.tick.Store(0)
	if err := s.syncShared(context.WithoutCancel(ctx)); err != nil {
		s.log.Warn("a body that was replaced stays for now", "file", old.name, "err", err)
		return nil
	}
	if !old.leave() {
		return nil
	}
	return s.dropBody(context.WithoutCancel(ctx), old)
}

// Abort removes what was written. It does nothing after Commit.
func (w *BodyWriter) Abort() {
	if w.s.enter() != nil {
		return // Close removes the body
	}
	defer w.s.exit()
	_, claims, err := w.end()
	if err != nil {
		return
	}
	w.forget(claims)
	if err := w.drop(context.Background()); err != nil {
		w.s.log.Warn("could not remove an aborted body", "file", w.b.name, "err", err)
	}
}

// drop removes the body; a Put that still runs makes it stay until Close.
func (w *BodyWriter) drop(ctx context.Context) error {
	if !w.b.leave() {
		return nil
	}
	return w.s.dropBody(context.WithoutCancel(ctx), w.b)
}
