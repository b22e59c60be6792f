package fs

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

const (
	// xattrCID is the extended attribute that tells a node's CID.
	xattrCID = "user.holdfast.cid"

	// longestName is the bytes that a name may have; statfs tells it.
	longestName = 255
)

// Lookup finds a name. That there is none is told the kernel for good, as content does not change.
func (t *tree) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent := t.table.get(header.NodeId)
	if parent == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if len(name) > longestName {
		return fuse.Status(syscall.ENAMETOOLONG) // the kernel lets longer ones through
	}
	if n := t.table.child(parent, name, true); n != nil {
		t.entry(n, out)
		return fuse.OK
	}
	c := t.call(cancel, &header.Caller)
	defer c.finish()
	un, err := t.find(c, parent, name)
	if err != nil {
		status := t.fail(c, "look up "+name+" in", parent, err)
		if status == fuse.ENOENT {
			out.NodeId = 0
			out.SetEntryTimeout(forever)
			return fuse.OK
		}
		return status
	}
	t.entry(t.table.add(t.nodeOf(parent, name, un)), out)
	return fuse.OK
}

// find describes a name in a directory.
func (t *tree) find(ctx context.Context, parent *node, name string) (*unixfs.Node, error) {
	d, err := t.dir(ctx, parent)
	if err != nil {
		return nil, err
	}
	e, err := d.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	return t.reader.EntryNode(ctx, e, t.datasetOf(parent, e))
}

// entry tells the kernel about a node it now has a reference to.
func (t *tree) entry(n *node, out *fuse.EntryOut) {
	*out = fuse.EntryOut{NodeId: n.id}
	n.attr(&out.Attr, t.uid, t.gid)
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
}

// Forget drops references of the kernel.
func (t *tree) Forget(id, count uint64) { t.table.forget(id, count) }

// GetAttr tells what stat shows. Only the root can be unknown still, in a lazy mount.
func (t *tree) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := t.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if n.parent != nil || t.rootKnown.Load() {
		n.attr(&out.Attr, t.uid, t.gid)
		out.SetTimeout(forever)
		return fuse.OK
	}
	if n.kind == unixfs.KindFile {
		c := t.call(cancel, &in.Caller)
		defer c.finish()
		if err := t.learnFileRoot(c); err != nil {
			return t.fail(c, "stat", n, err)
		}
		out.SetTimeout(forever)
	}
	t.rootMu.Lock()
	defer t.rootMu.Unlock()
	n.attr(&out.Attr, t.uid, t.gid)
	return fuse.OK
}

// learnFileRoot finds out about the file that the mount is.
func (t *tree) learnFileRoot(ctx context.Context) error {
	if t.rootKnown.Load() {
		return nil
	}
	un, err := t.reader.Node(ctx, t.cfg.Root, t.cfg.Root)
	if err != nil {
		return err
	}
	return t.setFileRoot(un)
}

func (t *tree) setFileRoot(un *unixfs.Node) error {
	t.rootMu.Lock()
	defer t.rootMu.Unlock()
	if un.Kind != unixfs.KindFile {
		return fmt.Errorf("mount %s on a file: it is a %s", un.CID, un.Kind)
	}
	if !t.rootKnown.Load() {
		t.rootNode().describe(un, t.cfg.FileMode)
		t.rootKnown.Store(true)
	}
	return nil
}

// Readlink tells where a symbolic link points; the kernel keeps the answer.
func (t *tree) Readlink(_ <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	n := t.table.get(header.NodeId)
	if n == nil || n.kind != unixfs.KindSymlink {
		return nil, fuse.EINVAL
	}
	return []byte(n.target), fuse.OK
}

// Access is left to the kernel, which knows the modes; it stops asking.
func (t *tree) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// GetXAttr tells the CID and nothing else. There are none but user attributes: ls, which asks for security labels and
// access lists of every file, believes that for the whole mount once it was told.
func (t *tree) GetXAttr(_ <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n := t.table.get(header.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	if attr == xattrCID && n.cid.Defined() {
		return fill(dest, n.cid.String())
	}
	err := ErrUnsupported
	if strings.HasPrefix(attr, "user.") {
		err = ErrNoAttribute
	}
	errno, _ := toErrno(err)
	return 0, fuse.Status(errno)
}

// ListXAttr lists the CID's attribute.
func (t *tree) ListXAttr(_ <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := t.table.get(header.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	if !n.cid.Defined() {
		return 0, fuse.OK
	}
	return fill(dest, xattrCID+"\x00")
}

// fill copies an attribute if there is room for it.
func fill(dest []byte, value string) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// StatFs tells the room of the store; it never waits.
func (t *tree) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const unit = 4096
	u := t.cfg.Statfs()
	*out = fuse.StatfsOut{Blocks: u.TotalBytes / unit, Bfree: u.FreeBytes / unit, Bavail: 0,
		Bsize: unit, Frsize: unit, NameLen: longestName}
	return fuse.OK
}
