package fs

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// inodeKey tells a staged inode from every other, also from a later one with its number. The clock of births may
// stand still for milliseconds, in which a number can be used again: an inode of another kind is another one.
type inodeKey struct {
	ino       uint64
	birthSec  int64
	birthNsec uint32
	kind      uint32 // S_IFREG and so on
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
	others  []place // more hard links that the kernel knows of
	fd      int     // -1: closed
	pins    int     // users of fd
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
	notice    *notice // Uploads is being told what is about to happen to the bytes
	heard     bool    // Uploads knows of the writers that there are
	leaving   int     // who is about to take the last name or the bytes away
	kept      bool    // the inode has a name outside the tree, and stays as it is once it has no other
	io        ioMode
	backing   int32 // the kernel's number of the staged file, with ioThrough
	opens     int
	writers   int
	flushed   bool // a writer has flushed, and may be about to close
	counted   bool // charged is in quota.used
	charged   int64
	gone      bool    // the last name was removed
	pending   bool    // somebody wrote, or may have, since the file was last reported or found to be unchanged
	unstated  bool    // content or attributes differ from what was reported, whatever before says
	before    Version // as reported or found unchanged; with pending, as it was before that
	racy      bool    // before may hold, too, for what was written in the same tick of the clock
	temp      tempState
	tempUntil time.Time // when a temporary name has waited enough; zero: not known yet
}

// place is a name in a directory.
type place struct {
	parent *staged
	name   string
}

// stagedTable knows the staged inodes.
type stagedTable struct {
	dev    uint64 // device of the staging directory
	proc   int    // descriptor of /proc/self/fd
	root   *staged
	maxFds int

	// names is held by who changes names that exist, together with telling of it, and shared by who looks one up or
	// tells one: so nobody takes an old name for the present one. It is taken after staged.settling and before
	// staged.mu.
	names sync.RWMutex

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
	return inodeKey{ino: st.Ino, birthSec: st.Btime.Sec, birthNsec: st.Btime.Nsec, kind: uint32(st.Mode) & syscall.S_IFMT}
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
		n = &staged{id: t.next, key: key, kind: key.kind, fd: -1}
		t.byID[n.id], t.byKey[key] = n, n
	}
	if n != t.root && parent != nil {
		if st.Nlink == 1 || n.kind == syscall.S_IFDIR {
			t.forgetNamesLocked(n, place{parent, name}) // somebody has renamed it in staging
		}
		t.addNameLocked(n, place{parent, name})
	}
	n.holds++
	return n
}

// addNameLocked notes a name of n.
func (t *stagedTable) addNameLocked(n *staged, at place) {
	if n.parent == at.parent && n.name == at.name || slices.Contains(n.others, at) {
		return
	}
	at.parent.kids++
	if n.parent == nil {
		n.parent, n.name = at.parent, at.name
	} else {
		n.others = append(n.others, at)
	}
}

// dropNameLocked notes that a name of n is gone.
func (t *stagedTable) dropNameLocked(n *staged, at place) {
	if i := slices.Index(n.others, at); i >= 0 {
		n.others = slices.Delete(n.others, i, i+1)
		at.parent.kids--
		return
	}
	if n.parent != at.parent || n.name != at.name || at.parent == nil {
		return
	}
	at.parent.kids--
	n.parent, n.name = nil, ""
	if last := len(n.others) - 1; last >= 0 {
		n.parent, n.name = n.others[last].parent, n.others[last].name
		n.others = n.others[:last]
	}
}

// forgetNamesLocked drops all names of n but one.
func (t *stagedTable) forgetNamesLocked(n *staged, but place) {
	for _, at := range append([]place{{n.parent, n.name}}, n.others...) {
		if at != but && at.parent != nil {
			t.dropNameLocked(n, at) // its directory is swept when it is next let go of
		}
	}
}

// renamed notes that one name of n is another now; parent nil means none.
func (t *stagedTable) renamed(n, oldParent *staged, oldName string, parent *staged, name string) {
	t.mu.Lock()
	if parent != nil {
		t.addNameLocked(n, place{parent, name})
	}
	t.dropNameLocked(n, place{oldParent, oldName})
	dropped := t.sweepLocked(oldParent, nil)
	t.mu.Unlock()
	t.dropped(dropped)
}

// elsewhere tells whether n, which was not under a name, may be under another, which is tried before that one then.
// The name is kept: what somebody else has put in its place may go away again, and no lookup tells who has the
// directory open.
func (t *stagedTable) elsewhere(n, parent *staged, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.parent != parent || n.name != name {
		return n.parent != nil // renamed meanwhile
	}
	if len(n.others) == 0 {
		return false
	}
	first := n.others[0]
	n.others = append(n.others[1:], place{parent, name})
	n.parent, n.name = first.parent, first.name
	return true
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
	if n == nil || n == t.root || n.lookups > 0 || n.kids > 0 || n.holds > 0 || n.pins > 0 || t.byID[n.id] != n {
		return dropped
	}
	delete(t.byID, n.id)
	delete(t.byKey, n.key)
	delete(t.fds, n)
	dropped = append(dropped, n)
	for _, at := range append(n.others, place{n.parent, n.name}) {
		if at.parent != nil {
			at.parent.kids--
			dropped = t.sweepLocked(at.parent, dropped)
		}
	}
	return dropped
}

// dropped lets go of what was taken out. To close the last descriptor of a big file without a name takes time.
func (t *stagedTable) dropped(list []*staged) {
	for _, n := range list {
		if n.fd >= 0 {
			unix.Close(n.fd)
		}
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

// paths are the paths of all names of n that are known.
func (t *stagedTable) paths(n *staged) (list []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, at := range append([]place{{n.parent, n.name}}, n.others...) {
		if at.parent == nil {
			continue
		}
		if dir, ok := t.pathLocked(at.parent); ok {
			list = append(list, joinPath(dir, at.name))
		}
	}
	return list
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
