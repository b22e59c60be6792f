package fs

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
)

const (
	// forever is how long the kernel may keep what it was told: content does not change.
	forever = 10 * 365 * 24 * time.Hour

	// noTime is the modification time, in seconds, of what carries none. The same in every mount, so that rsync and
	// make agree with themselves; not 0, which tar calls implausibly old.
	noTime = 1

	dirMode  = 0o555
	linkMode = 0o777
	dirBytes = 4096
)

// node is a file, directory or symbolic link that the kernel knows. There may be a million, so it is small: what is
// needed only while it is open hangs off open, and decoded directories live in the tree's cache.
type node struct {
	id     uint64 // towards the kernel; FUSE_ROOT_ID for the root, otherwise ino
	ino    uint64
	parent *node // nil for the root
	name   string
	cid    cid.Cid
	kind   unixfs.Kind
	perm   uint16
	nsec   uint32
	sec    int64
	bytes  uint64
	target string

	lookups uint64      // references of the kernel; guarded by table.mu
	checked atomic.Bool // a file whose length was found to be what its directory says
	opened  atomic.Pointer[opened]
}

// path is the node's path below the mount point, for people.
func (n *node) path() string {
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.name)
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// dataset is the root under which the node's blocks are found: the CID mounted, or in a namespace mount the CID that
// the path begins with.
func (n *node) dataset(root cid.Cid) cid.Cid {
	if root.Defined() || n.parent == nil {
		return root
	}
	for n.parent.parent != nil {
		n = n.parent
	}
	return n.cid
}

// describe takes over what the DAG says of the node, but for CID and kind: a root has them from the start, and they
// are read without a lock.
func (n *node) describe(un *unixfs.Node, fileMode os.FileMode) {
	n.bytes, n.target = un.Bytes, un.Target
	n.sec, n.nsec = noTime, 0
	if !un.ModTime.IsZero() {
		n.sec, n.nsec = un.ModTime.Unix(), uint32(un.ModTime.Nanosecond())
	}
	switch {
	case un.Kind == unixfs.KindSymlink:
		n.perm = linkMode
	case un.HasMode:
		n.perm = unixMode(un.Mode)
	case un.Kind == unixfs.KindDir:
		n.perm = dirMode
	default:
		n.perm = uint16(fileMode.Perm())
	}
}

// unixMode turns Go's bits into the kernel's.
func unixMode(m os.FileMode) uint16 {
	bits := uint16(m.Perm())
	for from, to := range map[os.FileMode]uint16{
		os.ModeSetuid: syscall.S_ISUID, os.ModeSetgid: syscall.S_ISGID, os.ModeSticky: syscall.S_ISVTX,
	} {
		if m&from != 0 {
			bits |= to
		}
	}
	return bits
}

// typeBits is the kernel's file type of a kind, 0 where it is unknown.
func typeBits(k unixfs.Kind) uint32 {
	switch k {
	case unixfs.KindFile:
		return syscall.S_IFREG
	case unixfs.KindDir:
		return syscall.S_IFDIR
	case unixfs.KindSymlink:
		return syscall.S_IFLNK
	}
	return 0
}

// attr fills in what stat shows. A directory has one link, which tells find that the count says nothing.
func (n *node) attr(out *fuse.Attr, uid, gid uint32) {
	size := n.bytes
	if n.kind == unixfs.KindDir {
		size = dirBytes
	}
	*out = fuse.Attr{
		Ino: n.ino, Size: size, Blocks: (size + 4095) / 4096 * 8,
		Atime: uint64(n.sec), Mtime: uint64(n.sec), Ctime: uint64(n.sec),
		Atimensec: n.nsec, Mtimensec: n.nsec, Ctimensec: n.nsec,
		Mode: typeBits(n.kind) | uint32(n.perm), Nlink: 1,
		Owner: fuse.Owner{Uid: uid, Gid: gid}, Blksize: 4096,
	}
}

// inodeOf is the inode number of name in the directory with inode number parent: a hash of the path, so that it is
// the same in every mount of the same root. It never is a CID's: equal directories at two paths would look like a
// loop to find.
func inodeOf(parent uint64, name string) uint64 {
	buf := make([]byte, 8, 8+len(name))
	binary.BigEndian.PutUint64(buf, parent)
	sum := sha256.Sum256(append(buf, name...))
	return usableInode(binary.BigEndian.Uint64(sum[:]))
}

// rootInode is the inode number of a mount's root.
func rootInode(root cid.Cid) uint64 {
	sum := sha256.Sum256([]byte("holdfast mount root\x00" + root.KeyString()))
	return usableInode(binary.BigEndian.Uint64(sum[:]))
}

// usableInode steps over the numbers that mean something else: none, the root's node ID, and go-fuse's own.
func usableInode(n uint64) uint64 {
	if n <= fuse.FUSE_ROOT_ID || n == ^uint64(0) {
		return n ^ 1<<32
	}
	return n
}

// table holds the nodes that the kernel knows, by node ID.
type table struct {
	mu    sync.RWMutex
	nodes map[uint64]*node // guarded by mu
	peak  int              // most nodes since the map was made; guarded by mu
}

func newTable(root *node) *table {
	return &table{nodes: map[uint64]*node{root.id: root}}
}

// get returns the node with an ID, nil if the kernel has been told of none.
func (t *table) get(id uint64) *node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.nodes[id]
}

// child returns the known child of a directory, nil if there is none. With ref it gains a reference.
func (t *table) child(parent *node, name string, ref bool) *node {
	id := inodeOf(parent.ino, name)
	if !ref {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return t.findLocked(id, parent, name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.findLocked(id, parent, name)
	if n != nil {
		n.lookups++
	}
	return n
}

// findLocked follows the numbers that a name may have got when an earlier one was taken.
func (t *table) findLocked(id uint64, parent *node, name string) *node {
	for {
		n := t.nodes[id]
		if n == nil || (n.name == name && n.parent != nil && n.parent.ino == parent.ino) {
			return n
		}
		id = usableInode(id + 1)
	}
}

// add returns the node for fresh, which is fresh unless its path is known already, with one more reference.
func (t *table) add(fresh *node) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := inodeOf(fresh.parent.ino, fresh.name)
	if n := t.findLocked(id, fresh.parent, fresh.name); n != nil {
		n.lookups++
		return n
	}
	for t.nodes[id] != nil {
		id = usableInode(id + 1)
	}
	fresh.id, fresh.ino, fresh.lookups = id, id, 1
	t.nodes[id] = fresh
	t.peak = max(t.peak, len(t.nodes))
	return fresh
}

// forget drops count references. A map never shrinks, so a much emptied one is made anew.
func (t *table) forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[id]
	if n == nil || n.parent == nil {
		return
	}
	n.lookups -= min(count, n.lookups)
	if n.lookups > 0 {
		return
	}
	delete(t.nodes, id)
	if t.peak > 10_000 && len(t.nodes) < t.peak/8 {
		smaller := make(map[uint64]*node, len(t.nodes))
		for id, n := range t.nodes {
			smaller[id] = n
		}
		t.nodes, t.peak = smaller, len(smaller)
	}
}

// size is the number of nodes known.
func (t *table) size() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.nodes)
}
