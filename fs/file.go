package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
)

// opened is what a file node has between its first open and its last release. Its mode is decided at the first open
// and holds for all: the kernel fails an open of an inode in passthrough while it is open cached, and the other way
// round.
type opened struct {
	node *node
	file *unixfs.File

	// mu guards what follows; it is taken before table.mu.
	mu      sync.Mutex
	count   int   // opens not yet released; once it fell to 0 the struct is dead
	backing int32 // the kernel's number of the body behind a passthrough file, 0 for a cached one
}

// handle is one open of a file or directory.
type handle struct {
	node   *node
	opened *opened    // files
	ahead  *aheadFile // files read through us
	dir    *dirHandle // directories
}

// end withdraws what was asked for ahead of the handle's reader.
func (h *handle) end() {
	if h.ahead != nil {
		h.ahead.end()
	}
}

// handles numbers what is open.
type handles struct {
	// mu guards what follows.
	mu   sync.RWMutex
	open map[uint64]*handle
	next uint64
}

func (h *handles) init() { h.open = make(map[uint64]*handle) }

func (h *handles) add(x *handle) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	h.open[h.next] = x
	return h.next
}

func (h *handles) get(fh uint64) *handle {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.open[fh]
}

func (h *handles) remove(fh uint64) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.open[fh]
	delete(h.open, fh)
	return x
}

// Open opens a file. It waits for the file's root, whose true length is compared with the one the directory told:
// the kernel never asks for bytes past the length it knows, so a length too small would cut the file off unnoticed.
func (t *tree) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := t.table.get(in.NodeId)
	switch {
	case n == nil:
		return fuse.Status(syscall.ESTALE)
	case in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY || in.Flags&syscall.O_TRUNC != 0:
		return fuse.EROFS
	case n.kind != unixfs.KindFile:
		return fuse.EINVAL
	}
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	t.walks.opened(n)
	o, err := t.open(c, n)
	if err != nil {
		return t.fail(c, "open", n, err)
	}
	h := &handle{node: n, opened: o}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	if o.backing != 0 {
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH
		out.BackingID = o.backing
	} else if t.cfg.ReadaheadBytes > 0 && n.cid.Type() != cid.Raw { // nothing lies ahead in the one block
		h.ahead = newAheadFile(t, o.file)
	}
	out.Fh = t.handles.add(h)
	t.stats.opens.Add(1)
	return fuse.OK
}

// open counts one more open of n, with the mode of those before it.
func (t *tree) open(ctx context.Context, n *node) (*opened, error) {
	if o := n.opened.Load(); o != nil && o.share() {
		return o, nil
	}
	file, err := t.file(ctx, n)
	if err != nil {
		return nil, err
	}
	for {
		if o := t.openFirst(n, file); o != nil {
			return o, nil
		}
		if o := n.opened.Load(); o != nil && o.share() {
			return o, nil
		}
	}
}

// openFirst opens a node that nobody has open and decides its mode; nil if somebody was faster.
func (t *tree) openFirst(n *node, file *unixfs.File) *opened {
	fresh := &opened{node: n, file: file}
	fresh.mu.Lock()
	defer fresh.mu.Unlock()
	if !n.opened.CompareAndSwap(nil, fresh) {
		return nil
	}
	defer func() {
		if fresh.count == 0 { // the registering panicked
			n.opened.Store(nil)
		}
	}()
	fresh.backing = t.through.register(t, n)
	fresh.count = 1
	return fresh
}

// share joins an open file; false if its last release came first.
func (o *opened) share() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == 0 {
		return false
	}
	o.count++
	return true
}

// file gives the file behind a node. Its root is looked at once.
func (t *tree) file(ctx context.Context, n *node) (*unixfs.File, error) {
	if n.parent == nil {
		if err := t.learnFileRoot(ctx); err != nil {
			return nil, err
		}
	}
	un := &unixfs.Node{CID: n.cid, Dataset: n.dataset(t.cfg.Root), Kind: unixfs.KindFile, Bytes: n.bytes}
	if !n.checked.Load() {
		found, err := t.reader.Node(ctx, n.cid, un.Dataset)
		if err != nil {
			return nil, err
		}
		if found.Kind != unixfs.KindFile || found.Bytes != n.bytes {
			return nil, fmt.Errorf("open %s: %w: its directory says %d bytes, it has %d", n.cid, ErrCorrupt, n.bytes, found.Bytes)
		}
		n.checked.Store(true)
	}
	return t.reader.Open(un)
}

// Release ends one open.
func (t *tree) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	h := t.handles.remove(in.Fh)
	if h == nil || h.opened == nil {
		return
	}
	h.end()
	o := h.opened
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count--
	if o.count > 0 {
		return
	}
	if o.backing != 0 {
		t.through.unregister(o.backing)
	}
	o.node.opened.CompareAndSwap(o, nil)
}

// Read reads bytes of a file that the kernel does not have. It answers with all bytes that there are or with an
// error: the kernel would take fewer for the file's end.
func (t *tree) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := t.handles.get(in.Fh)
	if h == nil || h.opened == nil {
		return nil, fuse.EBADF
	}
	f := h.opened.file
	want := uint64(len(buf))
	if size := f.Bytes(); in.Offset >= size {
		return fuse.ReadResultData(nil), fuse.OK
	} else if size-in.Offset < want {
		want = size - in.Offset
	}
	if h.ahead != nil {
		h.ahead.observe(in.Offset, want)
	}
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	data, err := readAll(c, f, buf[:want], in.Offset)
	if err != nil {
		return nil, t.fail(c, "read", h.node, err)
	}
	t.stats.reads.Add(1)
	t.stats.readBytes.Add(want)
	return fuse.ReadResultData(data), fuse.OK
}

// readAll gives the len(buf) bytes at off: out of their block where they lie in one, copied to buf where not.
func readAll(ctx context.Context, f *unixfs.File, buf []byte, off uint64) ([]byte, error) {
	data, err := f.Lend(ctx, off, uint64(len(buf)))
	if data != nil || err != nil {
		return data, err
	}
	n, err := f.ReadAt(ctx, buf, off)
	if n == len(buf) {
		return buf, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("read at %d: %w: %d bytes instead of %d", off, ErrCorrupt, n, len(buf))
	}
	return nil, err
}

// Flush has nothing to do; the kernel stops asking after this answer.
func (t *tree) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// counters are the figures of a mount.
type counters struct {
	opens, passthrough, reads, readBytes, failed, aheadBytes atomic.Uint64
}

// closeAll ends what the kernel left open when it went away.
func (h *handles) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for fh, x := range h.open {
		x.end()
		delete(h.open, fh)
	}
}
