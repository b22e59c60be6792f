package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// Extended attributes of staged inodes that are never shown.
const (
	xattrOurs = "user.holdfast."
	xattrID   = xattrOurs + "id"   // 16 bytes
	xattrStub = xattrOurs + "stub" // see stub.encode
)

// stub is what stands for evicted bytes. The staged inode keeps its length as one hole.
type stub struct {
	cid   cid.Cid
	bytes int64
	mtime int64 // Unix nanoseconds
	empty bool  // the bytes are gone; before, the inode may still have some, and the wrong time
}

// encode gives the attribute's value: a byte that tells whether the bytes are gone, length, time, CID.
func (s *stub) encode() []byte {
	out := make([]byte, 17, 17+64)
	if s.empty {
		out[0] = 1
	}
	binary.BigEndian.PutUint64(out[1:], uint64(s.bytes))
	binary.BigEndian.PutUint64(out[9:], uint64(s.mtime))
	return append(out, s.cid.Bytes()...)
}

func decodeStub(b []byte) (*stub, error) {
	if len(b) < 18 || b[0] > 1 {
		return nil, fmt.Errorf("%w: stub of %d bytes", ErrCorrupt, len(b))
	}
	c, err := cid.Cast(b[17:])
	if err != nil {
		return nil, fmt.Errorf("%w: stub: %w", ErrCorrupt, err)
	}
	s := &stub{cid: c, empty: b[0] == 1, bytes: int64(binary.BigEndian.Uint64(b[1:])), mtime: int64(binary.BigEndian.Uint64(b[9:]))}
	if s.bytes < 0 {
		return nil, fmt.Errorf("%w: stub of negative length", ErrCorrupt)
	}
	return s, nil
}

// getXattr reads an attribute of an inode with a descriptor; nil if there is none.
func getXattr(fd int, name string, buf []byte) ([]byte, error) {
	n, err := unix.Getxattr(procPath(fd), name, buf)
	if errors.Is(err, syscall.ENODATA) || errors.Is(err, syscall.ERANGE) {
		return nil, nil
	}
	if err != nil {
		return nil, staging(err)
	}
	return buf[:n], nil
}

// idLocked gives the ID of a file, and with create makes one where there is none.
func (t *uploadTree) idLocked(n *staged, create bool) (FileID, error) {
	if n.fileID != (FileID{}) {
		return n.fileID, nil
	}
	err := t.withFd(n, func(fd int) error {
		b, err := getXattr(fd, xattrID, make([]byte, 17))
		if err != nil {
			return err
		}
		if len(b) == len(n.fileID) {
			n.fileID = FileID(b)
			return nil
		}
		if !create {
			return nil
		}
		id := newFileID()
		if err := unix.Setxattr(procPath(fd), xattrID, id[:], 0); err != nil {
			return err
		}
		n.fileID = id
		return nil
	})
	return n.fileID, err
}

// isStub tells whether n is evicted.
func (t *uploadTree) isStub(n *staged) bool {
	if n.stub.Load() != nil {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return t.stubLocked(n) != nil
}

// stubLocked gives the stub that n is, nil if it is none. What a crash cut short is finished.
func (t *uploadTree) stubLocked(n *staged) *stub {
	if n.stubKnown {
		return n.stub.Load()
	}
	s, err := t.loadStub(n)
	n.stubKnown = err == nil
	if err != nil {
		t.report("look for a stub at", n, err)
		return nil
	}
	n.stub.Store(s)
	if s != nil && !s.empty {
		if err := t.finishStub(n, s); err != nil {
			t.report("finish the eviction of", n, err)
		}
	}
	return n.stub.Load()
}

// loadStub reads the mark of a stub. One that was truncated is none any more, though its mark was left.
func (t *uploadTree) loadStub(n *staged) (s *stub, err error) {
	err = t.withFd(n, func(fd int) error {
		b, err := getXattr(fd, xattrStub, make([]byte, 256))
		if err != nil || b == nil {
			return err
		}
		var st unix.Statx_t
		if err := statFd(fd, &st); err != nil {
			return err
		}
		if s, err = decodeStub(b); err != nil || st.Size > 0 || s.bytes == 0 {
			return err
		}
		s, n.unstated = nil, true
		return unix.Removexattr(procPath(fd), xattrStub)
	})
	return s, err
}

// finishStub takes the bytes away from an inode whose mark is there, puts its time back, and notes that.
func (t *uploadTree) finishStub(n *staged, s *stub) error {
	fd, err := t.table.reopen(n, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return t.hollow(n, fd, s)
}

func (t *uploadTree) hollow(n *staged, fd int, s *stub) error {
	err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, max(s.bytes, 1))
	if errors.Is(err, syscall.EOPNOTSUPP) {
		if err = unix.Ftruncate(fd, 0); err == nil {
			err = unix.Ftruncate(fd, s.bytes)
		}
	}
	if err != nil {
		return staging(err)
	}
	if err := t.putTimeBack(n, s.mtime); err != nil {
		return err
	}
	done := *s
	done.empty = true
	if err := unix.Fsetxattr(fd, xattrStub, done.encode(), 0); err != nil {
		return staging(err)
	}
	n.stub.Store(&done)
	return nil
}

// putTimeBack sets the modification time that our own writing has changed.
func (t *uploadTree) putTimeBack(n *staged, mtime int64) error {
	return t.chtimes(n, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime)})
}

// dropStubLocked takes the mark off a stub that was emptied.
func (t *uploadTree) dropStubLocked(n *staged) error {
	if t.stubLocked(n) == nil {
		return nil
	}
	err := t.withFd(n, func(fd int) error { return unix.Removexattr(procPath(fd), xattrStub) })
	if err != nil {
		return err
	}
	n.stub.Store(nil)
	return nil
}

// hydration brings a stub's bytes back.
type hydration struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // once done is closed
}

func (h *hydration) wait(c *call) error {
	select {
	case <-h.done:
		return h.err
	case <-c.Done():
		return fmt.Errorf("%w: bytes of an evicted file are still coming: %w", ErrUnavailable, c.Err())
	}
}

// hydrateLocked begins to bring the bytes of n back, or joins. It goes on when who wants them has given up.
func (t *uploadTree) hydrateLocked(n *staged) *hydration {
	if n.hydrating != nil {
		return n.hydrating
	}
	ctx, stop := context.WithCancel(t.serving.Load().Context)
	h := &hydration{stop: stop, done: make(chan struct{})}
	n.hydrating = h
	t.table.hold(n)
	t.work.Go(func() {
		defer t.table.release(n)
		defer close(h.done)
		defer stop()
		h.err = t.hydrate(ctx, n)
	})
	return h
}

// hydrate brings the bytes of a stub back, or leaves the stub as it was.
func (t *uploadTree) hydrate(ctx context.Context, n *staged) error {
	s, err := t.markHalf(n)
	room := int64(0)
	if err == nil {
		if room = roundUp(s.bytes); !t.roomToHydrate(ctx, room) {
			room, err = 0, fmt.Errorf("bring back %d evicted bytes: %w", s.bytes, ErrFull)
		}
	}
	if err == nil {
		err = t.fillStub(ctx, n, s)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hydrating = nil
	if err == nil {
		err = t.wholeLocked(n, s)
	}
	if err != nil && s != nil {
		err = errors.Join(err, t.finishStub(n, s))
	}
	err = errors.Join(err, t.measureLocked(n))
	t.quota.settle(room, 0) // after it, so that nobody takes the room between
	return err
}

// roomToHydrate waits for room as long as who wants the bytes does.
func (t *uploadTree) roomToHydrate(ctx context.Context, bytes int64) bool {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	return t.reserveRoom(ctx, bytes)
}

// markHalf notes on the staged inode that it is a stub that may have bytes, and what its time is.
func (t *uploadTree) markHalf(n *staged) (*stub, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return nil, err
	}
	t.chargeLocked(n, &st) // what it takes now was counted; what it will take was not
	s := n.stub.Load()
	if s == nil {
		return nil, fmt.Errorf("bring back bytes: %w", ErrChanged)
	}
	half := &stub{cid: s.cid, bytes: s.bytes, mtime: nanos(st.Mtime)}
	if err := t.withFd(n, func(fd int) error { return unix.Setxattr(procPath(fd), xattrStub, half.encode(), 0) }); err != nil {
		return nil, err
	}
	n.stub.Store(half)
	return half, nil
}

// fillStub writes all bytes of a stub. Until its mark is off, reads still go to the blocks.
func (t *uploadTree) fillStub(ctx context.Context, n *staged, s *stub) error {
	fd, err := t.table.reopen(n, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	f, err := t.stubFile(ctx, s)
	if err != nil {
		return err
	}
	buf := make([]byte, min(s.bytes, maxRequest))
	for off := int64(0); off < s.bytes; {
		part := buf[:min(int64(len(buf)), s.bytes-off)]
		if err := t.readStub(ctx, f, part, off); err != nil {
			return err
		}
		if err := pwriteAll(fd, part, off); err != nil {
			return err
		}
		off += int64(len(part))
	}
	return staging(unix.Fsync(fd))
}

// wholeLocked makes a stub whose bytes are back an ordinary staged file.
func (t *uploadTree) wholeLocked(n *staged, s *stub) error {
	if err := t.putTimeBack(n, s.mtime); err != nil {
		return err
	}
	if err := t.dropStubLocked(n); err != nil {
		return err
	}
	t.retract(n)
	t.recordLocked(n)
	return nil
}

// stubFile opens the blocks behind a stub.
func (t *uploadTree) stubFile(ctx context.Context, s *stub) (*unixfs.File, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	un, err := t.reader.Node(ctx, s.cid, s.cid)
	if err != nil {
		return nil, err
	}
	f, err := t.reader.Open(un)
	if err != nil {
		return nil, err
	}
	if f.Bytes() != uint64(s.bytes) {
		return nil, fmt.Errorf("read evicted file %s: %w: it has %d bytes, not %d", s.cid, ErrCorrupt, f.Bytes(), s.bytes)
	}
	return f, nil
}

// readStub fills buf with bytes of an evicted file.
func (t *uploadTree) readStub(ctx context.Context, f *unixfs.File, buf []byte, off int64) error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	data, err := readAll(ctx, f, buf, uint64(off))
	if err == nil && len(data) > 0 && &data[0] != &buf[0] {
		copy(buf, data) // lent where it lies in its block
	}
	return err
}

// pwriteAll writes all of b, whatever signals come.
func pwriteAll(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := ignoringEINTR(func() (int, error) { return unix.Pwrite(fd, b, off) })
		if err != nil {
			return staging(err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
