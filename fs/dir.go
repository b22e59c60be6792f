package fs

import (
	"context"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
)

const (
	// firstBatch and lastBatch are how many entries are read from the directory at once: few at first, so that the
	// head of a big directory comes quickly.
	firstBatch = 128
	lastBatch  = 1024

	// plusEntries is how many entries of a listing carry attributes. Every one of them makes an inode here and in the
	// kernel; in a directory of a million, most are never looked at.
	plusEntries = 10_000

	// dots is how many positions "." and ".." take before the first entry.
	dots = 2
)

// dirHandle is an open directory being listed. It holds one batch of entries at a time.
type dirHandle struct {
	// mu guards what follows.
	mu    sync.Mutex
	batch []unixfs.EntryAt
	pos   unixfs.Cursor // the position of batch[0]
	size  int           // of the next batch
	ended bool          // nothing follows the batch
	count int           // entries given so far
}

// OpenDir opens a directory. Its content is the kernel's to keep, but for a namespace's, which says nothing.
func (t *tree) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := t.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if n.kind != unixfs.KindDir {
		return fuse.ENOTDIR
	}
	out.Fh = t.handles.add(&handle{node: n, dir: &dirHandle{size: firstBatch}})
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	t.walks.listed(n)
	return fuse.OK
}

// ReleaseDir ends one open.
func (t *tree) ReleaseDir(in *fuse.ReleaseIn) {
	t.handles.remove(in.Fh)
}

// ReadDir lists names and types.
func (t *tree) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return t.readDir(cancel, in, out, false)
}

// ReadDirPlus lists names with attributes, as far as they are known here: it does not wait for any child.
func (t *tree) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return t.readDir(cancel, in, out, true)
}

func (t *tree) readDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	h := t.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return fuse.EBADF
	}
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	d := h.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	off := in.Offset
	for ; off < dots; off++ {
		if !emitDot(h.node, off, out, plus) {
			return fuse.OK
		}
	}
	d.seek(unixfs.Cursor(off - dots))
	for {
		e, ok, err := t.peek(c, h)
		if err != nil && len(out.Bytes()) == 0 {
			return t.fail(c, "list", h.node, err)
		}
		if err != nil || !ok || !t.emit(c, h, e, out, plus) {
			return fuse.OK
		}
		d.batch, d.pos = d.batch[1:], e.Next
		d.count++
	}
}

// seek goes to a position, which costs nothing where the last request ended.
func (d *dirHandle) seek(to unixfs.Cursor) {
	if to == d.pos {
		return
	}
	if to == 0 {
		d.count = 0
	}
	d.batch, d.pos, d.ended = nil, to, false
}

// peek gives the entry at the position, reading the next batch if need be.
func (t *tree) peek(ctx context.Context, h *handle) (unixfs.EntryAt, bool, error) {
	d := h.dir
	if len(d.batch) == 0 && !d.ended {
		if err := t.readBatch(ctx, h); err != nil {
			return unixfs.EntryAt{}, false, err
		}
	}
	if len(d.batch) == 0 {
		return unixfs.EntryAt{}, false, nil
	}
	return d.batch[0], true, nil
}

// readBatch reads entries from the position on and has their roots fetched ahead. What came before an error is kept;
// the error comes back when the listing gets there.
func (t *tree) readBatch(ctx context.Context, h *handle) error {
	d := h.dir
	dir, err := t.dir(ctx, h.node)
	if err != nil {
		return err
	}
	batch := make([]unixfs.EntryAt, 0, d.size)
	err = dir.list(ctx, d.pos, func(e unixfs.EntryAt) bool {
		batch = append(batch, e)
		return len(batch) < cap(batch)
	})
	if err != nil && len(batch) == 0 {
		return err
	}
	d.ended = err == nil && len(batch) < cap(batch)
	d.batch = batch
	d.size = min(2*d.size, lastBatch)
	if d.count < plusEntries {
		t.prefetchRoots(h.node, batch)
	}
	return nil
}

// prefetchRoots asks for the blocks without which nothing is known of the children. That goes on when the directory is
// closed: many programs read all names first and look at them after.
func (t *tree) prefetchRoots(parent *node, entries []unixfs.EntryAt) {
	var wants []unixfs.Want
	for _, e := range entries {
		if e.CID.Prefix().Codec != cid.Raw && t.table.child(parent, e.Name, false) == nil {
			wants = append(wants, unixfs.Want{CID: e.CID, Dataset: t.datasetOf(parent, e.Entry)})
		}
	}
	if len(wants) > 0 {
		t.blocks.Prefetch(t.serving.Load().Context, wants)
	}
}

// emitDot adds "." or "..".
func emitDot(n *node, off uint64, out *fuse.DirEntryList, plus bool) bool {
	e := fuse.DirEntry{Name: ".", Ino: n.ino, Mode: syscall.S_IFDIR, Off: off + 1}
	if off == 1 {
		e.Name = ".."
		if n.parent != nil {
			e.Ino = n.parent.ino
		}
	}
	if plus {
		return out.AddDirLookupEntry(e) != nil
	}
	return out.AddDirEntry(e)
}

// emit adds an entry; false if there is no room. Without attributes the kernel asks for them when it wants them.
func (t *tree) emit(ctx context.Context, h *handle, e unixfs.EntryAt, out *fuse.DirEntryList, plus bool) bool {
	parent := h.node
	known := t.table.child(parent, e.Name, false)
	var un *unixfs.Node
	de := fuse.DirEntry{Name: e.Name, Off: uint64(e.Next) + dots}
	switch {
	case known != nil:
		de.Ino, de.Mode = known.ino, typeBits(known.kind)
	default:
		de.Ino = inodeOf(parent.ino, e.Name)
		if local, err := t.reader.LocalEntryNode(ctx, e.Entry, t.datasetOf(parent, e.Entry)); err == nil {
			un, de.Mode = local, typeBits(local.Kind)
		}
	}
	if !plus {
		return out.AddDirEntry(de)
	}
	slot := out.AddDirLookupEntry(de)
	if slot == nil {
		return false
	}
	if h.dir.count >= plusEntries {
		return true
	}
	if known != nil {
		un = nil
		known = t.table.child(parent, e.Name, true)
	}
	if known == nil && un != nil {
		known = t.table.add(t.nodeOf(parent, e.Name, un))
	}
	if known != nil {
		t.entry(known, slot)
	}
	return true
}
