package fs

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"golang.org/x/sys/unix"
)

// ioMode is the way of a file's bytes from its first open to its last release; the kernel allows no mixture.
type ioMode int

const (
	ioHere    ioMode = iota // read and written through this process, cached by the kernel
	ioThrough               // the kernel reads and writes the staged file by itself
)

// uploadHandle is one open of a file or directory.
type uploadHandle struct {
	n     *staged
	write bool
	flags uint32
	part  bool // writes may be answered in part: the kernel does not cache them

	// mu guards what follows.
	mu  sync.Mutex
	fd  int        // of the staged file, with rights; -1: not needed yet
	dir *dirStream // directories

	blocks *unixfs.File // behind a stub that was read
}

// uploadHandles numbers what is open.
type uploadHandles struct {
	// mu guards what follows.
	mu   sync.RWMutex
	open map[uint64]*uploadHandle
	next uint64
}

func (h *uploadHandles) add(x *uploadHandle) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	h.open[h.next] = x
	return h.next
}

func (h *uploadHandles) get(fh uint64) *uploadHandle {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.open[fh]
}

func (h *uploadHandles) remove(fh uint64) *uploadHandle {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.open[fh]
	delete(h.open, fh)
	return x
}

func (h *uploadHandles) size() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.open)
}

// written gives the files open for writing.
func (h *uploadHandles) written() (files []*staged) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, x := range h.open {
		if x.write {
			files = append(files, x.n)
		}
	}
	return files
}

func (h *uploadHandles) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for fh, x := range h.open {
		x.close()
		delete(h.open, fh)
	}
}

func (h *uploadHandle) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
}

// file gives the handle's descriptor with rights.
func (t *uploadTree) file(h *uploadHandle) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd >= 0 {
		return h.fd, nil
	}
	fd, err := t.table.reopen(h.n, rights(h.flags))
	if err == nil {
		h.fd = fd
	}
	return h.fd, err
}

// rights are the flags with which a staged file is opened for a program that opened with others. Positions come from
// the kernel, which also does what O_DIRECT and O_SYNC ask for.
func rights(flags uint32) int {
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		return unix.O_RDONLY
	}
	return unix.O_RDWR
}

// Open opens a file. A stub that is to be written gets its bytes back first.
func (t *uploadTree) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := t.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(n)
	if n.kind != syscall.S_IFREG {
		return fuse.EINVAL
	}
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	h := &uploadHandle{n: n, flags: in.Flags, fd: -1, write: in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	if err := t.open(c, h, in.Mode&fuse.OPEN_KILL_SUIDGID != 0, out); err != nil {
		return t.fail(c, "open", n, err)
	}
	return fuse.OK
}

// open makes h an open of its file, which has existed before.
func (t *uploadTree) open(c *call, h *uploadHandle, kill bool, out *fuse.OpenOut) error {
	truncate := h.flags&syscall.O_TRUNC != 0
	if !h.write && !truncate {
		return t.admit(h, out)
	}
	if err := t.beginWrite(c, h.n, truncate); err != nil {
		return err
	}
	if truncate {
		if err := t.emptyFile(h, kill); err != nil {
			t.endWrite(h.n)
			return err
		}
	}
	if err := t.admit(h, out); err != nil {
		t.endWrite(h.n)
		return err
	}
	if !h.write { // opened for reading and truncated by the way
		t.endWrite(h.n)
	}
	return nil
}

// emptyFile truncates as open was told to.
func (t *uploadTree) emptyFile(h *uploadHandle, kill bool) error {
	fd, err := t.table.reopen(h.n, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 0); err != nil {
		return staging(err)
	}
	if err := t.truncated(h.n, 0); err != nil {
		return err
	}
	if kill {
		return t.killPrivileges(h.n)
	}
	return nil
}

// admit decides the way of the bytes and answers the kernel. A writer has begun by beginWrite.
func (t *uploadTree) admit(h *uploadHandle, out *fuse.OpenOut) error {
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opens == 0 {
		n.io = ioHere
		if t.stubLocked(n) == nil && !(h.write && t.quota.limit > 0) { // what is written is counted before it is there
			t.passLocked(n)
		}
	}
	if n.io == ioThrough {
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, n.backing
		if h.write && t.watched(n) {
			out.OpenFlags |= fuse.FOPEN_DIRECT_IO // reads and writes come here, mappings go through
			h.part = true
		}
	}
	if (n.io == ioHere && n.stub.Load() == nil || h.part) && h.fd < 0 {
		if _, err := t.file(h); err != nil {
			t.leaveLocked(n)
			return err
		}
	}
	if n.io == ioThrough && !h.part {
		h.close()
	}
	if !h.write {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH
	} else if n.io == ioThrough {
		t.closings.watch(n, 1)
	}
	n.opens++
	t.table.hold(n)
	out.Fh = t.handles.add(h)
	t.stats.opens.Add(1)
	return nil
}

// passLocked has the kernel read and write n by itself, if it does.
func (t *uploadTree) passLocked(n *staged) {
	if t.cfg.NoPassthrough || !t.through.on.Load() {
		return
	}
	fd, err := t.table.use(n)
	if err != nil {
		return
	}
	defer t.table.done(n)
	if id := t.through.offer(fd, n.name); id != 0 {
		n.io, n.backing = ioThrough, id
		t.stats.passthrough.Add(1)
	}
}

// watched tells whether every write to n has to come here: where there is a quota, and where a write takes privileges
// away, which the kernel leaves to us.
func (t *uploadTree) watched(n *staged) bool {
	if t.quota.limit > 0 {
		return true
	}
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return true
	}
	return st.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0
}

// leaveLocked undoes passLocked when nobody has n open any more.
func (t *uploadTree) leaveLocked(n *staged) {
	if n.opens == 0 && n.io == ioThrough {
		t.through.unregister(n.backing)
		n.io, n.backing = ioHere, 0
	}
}

// beginWrite makes way for a change of a file's bytes: they are all here, nobody reads them under a lease, and whoever
// keeps a copy of the version that was has been told. endWrite follows.
func (t *uploadTree) beginWrite(c *call, n *staged, empty bool) error {
	n.mu.Lock()
	for !empty && t.stubLocked(n) != nil {
		h := t.hydrateLocked(n)
		n.mu.Unlock()
		if err := h.wait(c); err != nil {
			return err
		}
		n.mu.Lock()
	}
	for n.hydrating != nil { // to be emptied while its bytes come back
		h := n.hydrating
		h.stop()
		n.mu.Unlock()
		<-h.done
		n.mu.Lock()
	}
	n.writers++
	n.unstable.Store(true)
	t.retract(n)
	t.leases.breakAllOf(n)
	err := t.openedLocked(c, n)
	n.mu.Unlock()
	if err != nil {
		t.endWrite(n)
	}
	return err
}

// openedLocked tells of the first writer, once for all that come meanwhile.
func (t *uploadTree) openedLocked(c *call, n *staged) error {
	if err := t.hearLocked(c, n); err != nil {
		return err
	}
	if n.heard {
		return nil
	}
	if n.gone && n.kept {
		return staging(syscall.ESTALE) // it was found before it lost its name
	}
	return t.firstWriterLocked(c, n)
}

// firstWriterLocked remembers what the file was before it is written, and tells so.
func (t *uploadTree) firstWriterLocked(c *call, n *staged) error {
	if err := t.measureLocked(n); err != nil {
		return err
	}
	f, err := t.fileLocked(n)
	if err != nil {
		return err
	}
	if !n.pending && !n.unstated {
		n.before, n.racy = f.Version, racy(f.Version)
	}
	n.pending = true
	return t.tellLocked(c, n, func(ctx context.Context) error {
		if err := t.cfg.Uploads.Opened(ctx, f); err != nil {
			return fmt.Errorf("%w: tell that %s is written: %w", ErrUnavailable, f.Path, err)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.heard = n.writers > 0 // who was to write may have given up
		n.kept = n.kept && n.gone
		return nil
	})
}

// endWrite says that a writer is done; after the last the file may be complete.
func (t *uploadTree) endWrite(n *staged) {
	n.mu.Lock()
	n.writers--
	last := n.writers == 0
	if last {
		n.flushed, n.heard = false, false
	}
	t.measureLocked(n)
	n.mu.Unlock()
	if last {
		t.settle(n)
	}
}

// Release ends one open.
func (t *uploadTree) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	t.releasing.Add(1)
	defer t.releasing.Add(-1)
	h := t.handles.remove(in.Fh)
	if h == nil {
		return
	}
	h.close()
	n := h.n
	n.mu.Lock()
	if h.write && n.io == ioThrough {
		t.closings.watch(n, -1)
	}
	n.opens--
	t.leaveLocked(n)
	n.mu.Unlock()
	if h.write {
		t.endWrite(n)
	}
	t.table.release(n)
}

// Flush is called when a descriptor is closed, which may be one of several. It is no end of the file's version.
func (t *uploadTree) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h := t.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if !h.write {
		return fuse.OK
	}
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.n.flushed = true
	return t.status("flush", h.n, t.measureLocked(h.n))
}
