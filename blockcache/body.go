package blockcache

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
)

// maxFileBytes is the longest file that gets a body; file systems have no longer ones.
const maxFileBytes = 8 << 40

// minLeafBytes is the shortest leaf, in bytes, that is put into a body, unless it ends the file. A
// disk gives each a page, so shorter ones would take more room than is counted.
const minLeafBytes = 4 << 10

// maxPartial bounds the bodies that are begun but not complete.
const maxPartial = 4096

// body is the file of one UnixFS file: its raw leaves at their own offsets, holes where they are
// not here yet. It is removed as a whole and never punched, so descriptors given out stay right.
type body struct {
	blob
	fileBytes uint64

	committed atomic.Bool   // its places count; a writer's body is not until Commit
	leaving   atomic.Bool   // being removed; set under mu, read anywhere
	verified  atomic.Uint64 // epoch in which its leaves were last checked against their CIDs
	tick      atomic.Uint64 // when it was last used
	pins      pinCheck
	flow      writeback

	loan     atomic.Pointer[loan] // nil: the bytes are the store's own; written under mu
	changed  atomic.Bool          // the lent file is not what it was: nothing is read from it any more
	recalled bool                 // must not be committed; guarded by Store.beginMu
	orphan   atomic.Bool          // Gone was told of the lent file while somebody was at the body; Run sees to it

	mu      sync.Mutex // guards what follows; nothing else is locked under it
	file    cid.Cid
	have    spans // bytes that are here and in the index
	pending spans // bytes being written
	busy    int   // writers
}

func bodyName(id uint64) string { return fmt.Sprintf("%s/%016x", bodyDir, id) }

// The answers of claim.
type claimResult int

const (
	claimed claimResult = iota // the caller writes the bytes, then calls settle
	present                    // the very bytes are here already
	refused                    // the leaf does not fit what is known of the file
)

// claim reserves [off, off+n) for the caller to write.
func (b *body) claim(off, n uint64) claimResult {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leaving.Load() || off > b.fileBytes || n > b.fileBytes-off {
		return refused
	}
	if b.have.covers(off, off+n) {
		return present
	}
	if b.loan.Load() != nil && b.committed.Load() {
		return refused // the file is not ours to write
	}
	if b.have.overlaps(off, off+n) || b.pending.overlaps(off, off+n) {
		return refused
	}
	b.pending = b.pending.add(off, off+n)
	b.busy++
	return claimed
}

// settle ends a claim; ok says that the bytes are written and indexed.
func (b *body) settle(off, n uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy--
	b.pending = b.pending.remove(off, off+n)
	if ok {
		b.have = b.have.add(off, off+n)
		b.pins.reset()
	}
}

// hold keeps the body from being removed, or ends that.
func (b *body) hold(n int) {
	b.mu.Lock()
	b.busy += n
	b.mu.Unlock()
}

// lose takes a leaf out of a body.
func (s *Store) lose(b *body, off, n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.have.bytes()
	b.have = b.have.remove(off, off+n)
	b.pins.forget()
	s.charge(b, -int64(before-b.have.bytes()))
}

// charge counts bytes of a body: against the quota, unless they lie in a file that is somebody else's.
func (s *Store) charge(b *body, n int64) {
	if b.lent() {
		s.lent.Add(n)
	} else {
		s.used.Add(n)
	}
}

// lacks reports whether a leaf could be added.
func (b *body) lacks(off, n uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.leaving.Load() && b.loan.Load() == nil && n <= b.fileBytes && off <= b.fileBytes-n &&
		!b.have.overlaps(off, off+n) && !b.pending.overlaps(off, off+n)
}

// haveBytes counts what is here.
func (b *body) haveBytes() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.have.bytes()
}

// complete reports whether every byte of the file is here.
func (b *body) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.have.covers(0, b.fileBytes)
}

// leave marks an idle body as being removed.
func (b *body) leave() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy > 0 || b.leaving.Load() {
		return false
	}
	b.leaving.Store(true)
	return true
}

// fits reports whether a leaf of n bytes of this codec belongs into a body at all.
func (p Place) fits(c cid.Cid, n int) bool {
	return p.File.Defined() && c.Prefix().Codec == cid.Raw && p.FileBytes >= MinBodyBytes &&
		p.FileBytes <= maxFileBytes && p.Offset <= p.FileBytes && uint64(n) <= p.FileBytes-p.Offset &&
		(p.Bytes == 0 || p.Bytes == uint64(n)) &&
		(n >= minLeafBytes || p.Offset+uint64(n) == p.FileBytes) && len(p.File.Bytes()) <= maxCIDBytes
}

// bodyOf returns the body of a file, nil if it has none.
func (s *Store) bodyOf(file cid.Cid) *body {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byFile[key(file)]
}

// beginBody returns the body of a file, creating it. It is nil when the file may not have one:
// there are too many, or its length differs from what was said before.
func (s *Store) beginBody(p Place) (*body, error) {
	if b := s.bodyOf(p.File); b != nil {
		if b.fileBytes != p.FileBytes {
			return nil, nil
		}
		return b, nil
	}
	s.beginMu.Lock() // held over the creation of a file, so that each file gets one body
	defer s.beginMu.Unlock()
	if b := s.bodyOf(p.File); b != nil {
		if b.fileBytes != p.FileBytes {
			return nil, nil
		}
		return b, nil
	}
	if s.partialBodies() >= maxPartial {
		return nil, nil
	}
	b, err := s.newBody(p.FileBytes)
	if err != nil {
		return nil, err
	}
	b.file = p.File
	if err := s.saveBodies([]*body{b}); err != nil {
		return nil, err
	}
	b.committed.Store(true)
	s.mu.Lock()
	s.bodies[b.id] = b
	s.byFile[key(p.File)] = b
	s.mu.Unlock()
	return b, nil
}

// partialBodies counts bodies that are begun and not complete.
func (s *Store) partialBodies() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.bodies) < maxPartial {
		return len(s.bodies)
	}
	n := 0
	for _, b := range s.bodies {
		if !b.complete() {
			n++
		}
	}
	return n
}

// newBody creates a body's file; nobody knows of it yet.
func (s *Store) newBody(fileBytes uint64) (*body, error) {
	id := s.nextID()
	b := &body{blob: blob{id: id, name: bodyName(id)}, fileBytes: fileBytes}
	b.verified.Store(s.epoch)
	b.tick.Store(s.clock.Add(1))
	f, err := s.fs.Create(b.name)
	if err != nil {
		return nil, fmt.Errorf("create body: %w", fullError(err))
	}
	if _, err := s.fds.adopt(&b.blob, f); err != nil {
		return nil, fmt.Errorf("create body: %w", err)
	}
	s.fds.release(&b.blob)
	s.newFiles.Store(true)
	return b, nil
}

// saveBodies writes the facts of bodies to the index.
func (s *Store) saveBodies(bs []*body) error {
	return s.ix.batch(func(wb *badger.WriteBatch) error {
		for _, b := range bs {
			b.mu.Lock()
			file := b.file
			b.mu.Unlock()
			if b.leaving.Load() {
				continue
			}
			v := append(encodeUints(b.fileBytes, b.verified.Load(), b.tick.Load()), file.Bytes()...)
			if l := b.loan.Load(); l != nil {
				v = l.append(v)
			}
			if err := wb.Set(s.ix.idKey(tagBody, b.id), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// loadBody is the inverse of saveBodies for one entry.
func loadBody(rest, v []byte) (*body, bool) {
	nums, raw, ok := decodeUints(v, 3)
	if !ok || len(rest) != 8 || nums[0] == 0 || nums[0] > maxFileBytes {
		return nil, false
	}
	n, c, err := cid.CidFromBytes(raw)
	if err != nil {
		return nil, false
	}
	id := binary.BigEndian.Uint64(rest)
	b := &body{blob: blob{id: id, name: bodyName(id)}, fileBytes: nums[0], file: c}
	b.verified.Store(nums[1])
	b.tick.Store(nums[2])
	b.committed.Store(true)
	if len(raw) > n {
		l, ok := decodeLoan(raw[n:], nums[0])
		if !ok {
			return nil, false
		}
		b.loan.Store(l)
	}
	return b, true
}

// writeLeaf writes claimed bytes.
func (s *Store) writeLeaf(b *body, off uint64, data []byte) error {
	f, err := s.fds.acquire(&b.blob)
	if err != nil {
		return fmt.Errorf("write body: %w", err)
	}
	defer s.fds.release(&b.blob)
	if _, err := f.WriteAt(data, int64(off)); err != nil {
		return fmt.Errorf("write body: %w", fullError(err))
	}
	s.markDirty(&b.blob)
	s.flowOn(&b.blob, &b.flow, int64(off), int64(len(data)))
	return nil
}

// Body returns a read-only descriptor of a file's bytes when the file is here in full and was
// verified since the last unclean stop. The caller closes it. The bytes stay readable through it
// after the body is evicted. Of a lent file there is none: its bytes may change.
func (s *Store) Body(file cid.Cid) (*os.File, bool) {
	if !file.Defined() {
		return nil, false
	}
	b := s.bodyOf(file)
	if b == nil || b.loan.Load() != nil || !b.complete() {
		return nil, false
	}
	if b.verified.Load() != s.epoch {
		s.verifySoon(b)
		return nil, false
	}
	f, err := s.fs.OpenRead(b.name)
	if err != nil {
		return nil, false
	}
	// A leaf may have been found bad, or the body replaced, while it was opened.
	st, err := f.Stat()
	if err != nil || uint64(st.Size()) != b.fileBytes || !b.complete() || b.leaving.Load() || b.loan.Load() != nil {
		_ = f.Close() // read-only: nothing to lose
		return nil, false
	}
	b.tick.Store(s.clock.Add(1))
	return f, true
}

// BodyState tells how many bytes of a file's body are here; both are zero when it has none.
func (s *Store) BodyState(file cid.Cid) (have, total uint64) {
	if !file.Defined() {
		return 0, 0
	}
	b := s.bodyOf(file)
	if b == nil {
		return 0, 0
	}
	return b.haveBytes(), b.fileBytes
}

// stay takes leave back.
func (b *body) stay() {
	b.mu.Lock()
	b.leaving.Store(false)
	b.mu.Unlock()
}

// dropBody removes a body that leave has marked: index entries first, then the file.
func (s *Store) dropBody(ctx context.Context, b *body) error {
	s.mu.Lock()
	if s.byFile[key2(b)] == b {
		delete(s.byFile, key2(b))
	}
	s.mu.Unlock()
	for from := uint64(0); ; { // on from the last: the index is slow to pass over what was just deleted
		ls, err := s.ix.leaves(ctx, b.id, from, maxChanges)
		if err != nil {
			return err
		}
		if len(ls) == 0 {
			break
		}
		if err := s.dropLeaves(ctx, b, ls); err != nil {
			return err
		}
		from = ls[len(ls)-1].off + 1
	}
	err := s.ix.batch(func(wb *badger.WriteBatch) error {
		if err := wb.Delete(s.ix.idKey(tagSpans, b.id)); err != nil {
			return err
		}
		return wb.Delete(s.ix.idKey(tagBody, b.id))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.bodies, b.id)
	s.unlendLocked(b)
	s.mu.Unlock()
	s.unmarkDirty(&b.blob)
	s.charge(b, -int64(b.haveBytes())) // bytes whose entries a crash took
	return s.fds.remove(&b.blob)
}

// dropLeaves takes leaves out of a body and the index.
func (s *Store) dropLeaves(ctx context.Context, b *body, ls []leaf) error {
	changes := make([]change, len(ls))
	for i, l := range ls {
		changes[i] = change{key: l.key, drop: []place{l.place(b.id)}}
	}
	if err := s.apply(ctx, changes); err != nil {
		return err
	}
	for _, l := range ls {
		s.lose(b, l.off, uint64(l.n))
	}
	return nil
}

// key2 is the name a body goes by in byFile; "" before its root is known.
func key2(b *body) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.file.Defined() {
		return ""
	}
	return key(b.file)
}
