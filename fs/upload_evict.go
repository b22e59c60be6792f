package fs

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// evict replaces the bytes of a file by a stub, if nobody has it open or mapped and it still is the version given.
func (t *uploadTree) evict(ctx context.Context, f File, c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("evict %s: no CID", f.Path)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("evict %s: %w", f.Path, err)
	}
	n, err := t.findFile(f.ID, f.Path)
	if err != nil {
		return fmt.Errorf("evict: %w", err)
	}
	defer t.table.release(n)
	if err = t.evictable(n, f); err == nil {
		if err = t.tellLeaving(ctx, n, false); err == nil {
			defer t.left(n)
			err = t.evictInode(n, f, c)
		}
	}
	if err != nil {
		return fmt.Errorf("evict %s: %w", f.Path, err)
	}
	return nil
}

// evictable says whether an eviction would come to anything, so that nobody is told of others.
func (t *uploadTree) evictable(n *staged, f File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return t.evictableLocked(n, f)
}

func (t *uploadTree) evictableLocked(n *staged, f File) error {
	if t.stubLocked(n) != nil {
		return ErrEvicted
	}
	if n.opens > 0 || n.writers > 0 || t.leases.any(n) {
		return fmt.Errorf("%w: it is open", ErrBusy)
	}
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return err
	}
	if v := versionOf(&st); v != f.Version || n.pending || n.unstated {
		return fmt.Errorf("%w: it is %+v, not %+v", ErrChanged, v, f.Version)
	}
	return nil
}

func (t *uploadTree) evictInode(n *staged, f File, c cid.Cid) error {
	n.settling.Lock() // no report comes between
	defer n.settling.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := t.evictableLocked(n, f); err != nil {
		return err
	}
	fd, err := t.table.reopen(n, unix.O_RDWR|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	held, err := takeLease(fd, unix.F_WRLCK)
	if err != nil {
		return err // somebody reads or maps it past us
	}
	if !held && t.through.on.Load() {
		return fmt.Errorf("%w: without leases nobody knows who has it mapped", ErrUnsupported)
	}
	var st unix.Statx_t
	if err := statFd(fd, &st); err != nil {
		return err
	}
	if v := versionOf(&st); v != f.Version || n.pending || n.unstated {
		return fmt.Errorf("%w: it is %+v, not %+v", ErrChanged, v, f.Version)
	}
	return t.makeStubLocked(n, fd, &stub{cid: c, bytes: int64(st.Size), mtime: nanos(st.Mtime)})
}

// makeStubLocked marks the inode, makes that durable, and only then takes the bytes away.
func (t *uploadTree) makeStubLocked(n *staged, fd int, s *stub) error {
	if err := t.measureLocked(n); err != nil {
		return err
	}
	if err := unix.Fsetxattr(fd, xattrStub, s.encode(), 0); err != nil {
		return staging(err)
	}
	if err := unix.Fsync(fd); err != nil {
		unix.Fremovexattr(fd, xattrStub)
		return staging(err)
	}
	n.stub.Store(s)
	if err := t.hollow(n, fd, s); err != nil {
		return err // it is a stub all the same; the bytes go at the next start
	}
	t.retract(n)
	t.recordLocked(n)
	return t.measureLocked(n)
}

// enoughRoom is what a request waits for that takes as much as it gets.
const enoughRoom = 1 << 20

// waitForRoom has files evicted until there is room for all that is wanted, of which got is reserved already, or none can
// be; with part some is enough. It returns what is reserved then. Nothing is while it waits: two that wait for each
// other's room would get none.
func (t *uploadTree) waitForRoom(call func() *call, want, got int64, part bool) int64 {
	if part && got == 0 {
		want = min(want, enoughRoom)
	}
	if want <= got || part && got > 0 || want > t.quota.limit || t.cfg.MakeRoom == nil {
		return got
	}
	t.quota.settle(got, 0)
	c := call()
	defer c.finish()
	if t.reserveRoom(c, want) {
		return want
	}
	return t.quota.reserveSome(want)
}

// reserveRoom takes room, all or nothing, once there is as much.
func (t *uploadTree) reserveRoom(ctx context.Context, bytes int64) bool {
	for !t.quota.reserve(bytes) {
		if t.cfg.MakeRoom == nil || bytes > t.quota.limit || ctx.Err() != nil || !t.cfg.MakeRoom(ctx, bytes) {
			return false
		}
	}
	return true
}

// Evicted tells whether an open staged file is a stub, and of which CID its bytes are. The directory need not be mounted.
func Evicted(f *os.File) (c cid.Cid, evicted bool, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return cid.Undef, false, fmt.Errorf("look for a stub: %w", err)
	}
	var value []byte
	cerr := conn.Control(func(fd uintptr) { value, err = getXattr(int(fd), xattrStub, make([]byte, 256)) })
	if err = errors.Join(cerr, err); err != nil || value == nil {
		return cid.Undef, false, err
	}
	s, err := decodeStub(value)
	if err != nil {
		return cid.Undef, false, err
	}
	return s.cid, true, nil
}
