package fs

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// inodeKey tells a staged inode from every other, also from a later one with its number.
type inodeKey struct {
	ino       uint64
	birthSec  int64
	birthNsec uint32
}

// staged is a staged inode that the kernel, an open file or a report still to be made refers to. It is reached through
// a descriptor without rights (O_PATH), which is opened again by name when it was closed for want of descriptors.
type staged struct {
	id   uint64 // towards the kernel
	key  inodeKey
	kind uint32 // S_IFREG and so on

	// Guarded by table.mu.
	parent  *staged // nil: no name is known, and fd stays open
	name    string
	fd      int // -1: closed
	pins    int // users of fd
	lookups uint64
	kids    int // staged inodes whose parent this is
	holds   int // open files, reports to be made and others that need the struct

	told     atomic.Bool          // the kernel may keep attributes since it was last told not to
	unstable atomic.Bool          // somebody writes, or may: attributes are not to be kept
	stub     atomic.Pointer[stub] // nil: not evicted, or not known to be

	// settling orders reports about the file. It is taken before mu.
	settling sync.Mutex

	// mu guards what follows; it is taken before table.mu, leases.mu, closings.mu and quota.mu.
	mu        sync.Mutex
	fileID    FileID // zero: not looked for, or none yet
	stubKnown bool   // stub was looked for
	hydrating *hydration
	io        ioMode
	backing   int32 // the kernel's number of the staged file, with ioThrough
	opens     int
	writers   int
	flushed   bool // a writer has flushed, and may be about to close
	counted   bool // charged is in quota.used
	charged   int64
	gone      bool      // the last name was removed
	before    Version   // as it was when the first of the present writers came, or when last reported
	racy      bool      // before may hold, too, for what was written in the same tick of the clock
	unstated  bool      // content or attributes differ from what was reported, whatever before says
	tempUntil time.Time // when a temporary name has waited enough; zero: not waiting
}

// stagedTable knows the staged inodes.
type stagedTable struct {
	dev    uint64 // device of the staging directory
	proc   int    // descriptor of /proc/self/fd
	root   *staged
	maxFds int

	// mu guards what follows and parts of staged.
	mu    sync.Mutex
	byID  map[uint64]*staged
	byKey map[inodeKey]*staged
	fds   map[*staged]struct{} // with open descriptors
	next  uint64
	drop  func(*staged) // told, without lock, of a struct that nobody refers to any more
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

func keyOf(st *unix.Statx_t) inodeKey {
	return inodeKey{ino: st.Ino, birthSec: st.Btime.Sec, birthNsec: st.Btime.Nsec}
}

func versionOf(st *unix.Statx_t) Version {
	return Version{Bytes: int64(st.Size), ModTime: nanos(st.Mtime), ChangeTime: nanos(st.Ctime)}
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// statAt is stat of a name in a directory, of the link itself where it is one. What lies on another file system is
// not ours.
func (t *stagedTable) statAt(dirfd int, name string, st *unix.Statx_t) error {
	if err := unix.Statx(dirfd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, st); err != nil {
		return staging(err)
	}
	if unix.Mkdev(st.Dev_major, st.Dev_minor) != t.dev {
		return staging(syscall.EXDEV)
	}
	return nil
}

// statFd is stat of an open inode.
func statFd(fd int, st *unix.Statx_t) error {
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, statMask, st); err != nil {
		return staging(err)
	}
	return nil
}

func newStagedTable(rootFd, procFd int, maxFds int) (*stagedTable, error) {
	var st unix.Statx_t
	if err := statFd(rootFd, &st); err != nil {
		return nil, err
	}
	root := &staged{id: fuse.FUSE_ROOT_ID, key: keyOf(&st), kind: syscall.S_IFDIR, fd: rootFd, lookups: 1, pins: 1}
	return &stagedTable{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), proc: procFd, root: root, maxFds: maxFds,
		byID: map[uint64]*staged{root.id: root}, byKey: map[inodeKey]*staged{root.key: root},
		fds: map[*staged]struct{}{}, next: fuse.FUSE_ROOT_ID, drop: func(*staged) {}}, nil
}

// get returns the inode with an ID, held; nil if the kernel was told of none.
func (t *stagedTable) get(id uint64) *staged {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n != nil {
		n.holds++
	}
	return n
}

// intern returns the struct of an inode just seen under a name, held. A name known already stays: it is as good.
func (t *stagedTable) intern(parent *staged, name string, st *unix.Statx_t) *staged {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := keyOf(st)
	n := t.byKey[key]
	if n == nil {
		t.next++
		n = &staged{id: t.next, key: key, kind: uint32(st.Mode) & syscall.S_IFMT, fd: -1}
		t.byID[n.id], t.byKey[key] = n, n
	}
	if n.parent == nil && n != t.root && parent != nil {
		t.renameLocked(n, parent, name)
	}
	n.holds++
	return n
}

// renameLocked gives n another name, or none.
func (t *stagedTable) renameLocked(n, parent *staged, name string) {
	old := n.parent
	n.parent, n.name = parent, name
	if parent != nil {
		parent.kids++
	}
	if old != nil {
		old.kids--
	}
}

// renamed notes that the name of n, if it was this one, is another now; parent nil means none.
func (t *stagedTable) renamed(n, oldParent *staged, oldName string, parent *staged, name string) {
	t.mu.Lock()
	if n.parent == oldParent && n.name == oldName {
		t.renameLocked(n, parent, name)
	}
	dropped := t.sweepLocked(oldParent, nil)
	t.mu.Unlock()
	t.dropped(dropped)
}

// isNamed tells whether n goes by this name here.
func (t *stagedTable) isNamed(n, parent *staged, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.parent == parent && n.name == name
}

// release takes back a hold.
func (t *stagedTable) release(n *staged) {
	t.mu.Lock()
	n.holds--
	dropped := t.sweepLocked(n, nil)
	t.mu.Unlock()
	t.dropped(dropped)
}

// entered turns a hold into a reference of the kernel.
func (t *stagedTable) entered(n *staged) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.holds--
	n.lookups++
}

// hold keeps n while somebody who has it needs it longer.
func (t *stagedTable) hold(n *staged) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.holds++
}

// forget drops references of the kernel.
func (t *stagedTable) forget(id, count uint64) {
	t.mu.Lock()
	n := t.byID[id]
	if n == nil {
		t.mu.Unlock()
		return
	}
	n.lookups -= min(count, n.lookups)
	dropped := t.sweepLocked(n, nil)
	t.mu.Unlock()
	t.dropped(dropped)
}

// sweepLocked takes out n, and the directories above it, as far as nobody refers to them any more.
func (t *stagedTable) sweepLocked(n *staged, dropped []*staged) []*staged {
	for n != nil && n != t.root && n.lookups == 0 && n.kids == 0 && n.holds == 0 && n.pins == 0 && t.byID[n.id] == n {
		delete(t.byID, n.id)
		delete(t.byKey, n.key)
		t.closeLocked(n)
		dropped = append(dropped, n)
		up := n.parent
		if up != nil {
			up.kids--
		}
		n = up
	}
	return dropped
}

func (t *stagedTable) dropped(list []*staged) {
	for _, n := range list {
		t.drop(n)
	}
}

func (t *stagedTable) closeLocked(n *staged) {
	if n.fd >= 0 && n != t.root {
		unix.Close(n.fd)
		n.fd = -1
		delete(t.fds, n)
	}
}

// path is the path of n below the root; false if it has no name.
func (t *stagedTable) path(n *staged) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pathLocked(n)
}

func (t *stagedTable) pathLocked(n *staged) (string, bool) {
	size, depth := 0, 0
	for p := n; p != t.root; p = p.parent {
		if p == nil {
			return "", false
		}
		size += len(p.name) + 1
		depth++
	}
	if depth == 0 {
		return "", true
	}
	buf := make([]byte, size-1)
	end := len(buf)
	for p := n; p != t.root; p = p.parent {
		copy(buf[end-len(p.name):end], p.name)
		end -= len(p.name) + 1
		if end >= 0 {
			buf[end] = '/'
		}
	}
	return string(buf), true
}

// size is the number of inodes known.
func (t *stagedTable) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

// closeAll closes every descriptor.
func (t *stagedTable) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range t.fds {
		t.closeLocked(n)
	}
	unix.Close(t.root.fd)
	unix.Close(t.proc)
}
