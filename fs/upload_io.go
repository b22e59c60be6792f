package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"golang.org/x/sys/unix"
)

// blockBytes is the unit in which file systems give out room.
const blockBytes = 4096

func roundUp(n int64) int64 { return (n + blockBytes - 1) / blockBytes * blockBytes }

// Read reads what the kernel does not read by itself.
func (t *uploadTree) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := t.handles.get(in.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	if s := h.n.stub.Load(); s != nil {
		return t.readEvicted(cancel, h, s, in, buf)
	}
	fd, err := t.file(h)
	if err != nil {
		return nil, t.status("read", h.n, err)
	}
	size := 0
	for size < len(buf) { // a short answer would be taken for the end
		n, err := ignoringEINTR(func() (int, error) { return unix.Pread(fd, buf[size:], int64(in.Offset)+int64(size)) })
		if err != nil {
			return nil, t.status("read", h.n, staging(err))
		}
		if n == 0 {
			break
		}
		size += n
	}
	t.countRead(size)
	return fuse.ReadResultData(buf[:size]), fuse.OK
}

func (t *uploadTree) countRead(size int) {
	t.stats.reads.Add(1)
	t.stats.readBytes.Add(uint64(size))
}

// readEvicted reads out of the blocks.
func (t *uploadTree) readEvicted(cancel <-chan struct{}, h *uploadHandle, s *stub, in *fuse.ReadIn, buf []byte) (
	fuse.ReadResult, fuse.Status) {
	if int64(in.Offset) >= s.bytes {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(int64(len(buf)), s.bytes-int64(in.Offset))]
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	f, err := t.evictedFile(c, h, s)
	if err != nil {
		return nil, t.fail(c, "read", h.n, err)
	}
	data, err := readAll(c, f, buf, in.Offset)
	if err != nil {
		return nil, t.fail(c, "read", h.n, err)
	}
	t.countRead(len(data))
	return fuse.ReadResultData(data), fuse.OK
}

// evictedFile is the stub's file, opened once a handle.
func (t *uploadTree) evictedFile(c *call, h *uploadHandle, s *stub) (*unixfs.File, error) {
	h.mu.Lock()
	f := h.blocks
	h.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := t.stubFile(c, s)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blocks = f
	return f, nil
}

// Write writes what the kernel does not write by itself.
func (t *uploadTree) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := t.handles.get(in.Fh)
	if h == nil {
		return 0, fuse.EBADF
	}
	fd, err := t.file(h)
	if err != nil {
		return 0, t.status("write", h.n, err)
	}
	written := int64(0)
	call := func() *call { return t.call(cancel, &in.Caller) }
	err = t.grow(call, h.n, int64(in.Offset), int64(len(data)), h.part, func(size int64) error {
		written = size
		return pwriteAll(fd, data[:size], int64(in.Offset))
	})
	if err == nil && in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		err = t.killPrivileges(h.n)
	}
	if err != nil {
		return 0, t.status("write", h.n, err)
	}
	return uint32(written), fuse.OK
}

// Writev leaves writing to Write, which gets the same bytes in one piece.
func (t *uploadTree) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if len(data) == 1 {
		return t.Write(cancel, in, data[0])
	}
	return 0, fuse.ENOSYS
}

// grow has write take room for size bytes at off within the quota, once there is some. What overwrites bytes that are
// there takes none. With part it may get fewer bytes to write than asked for; otherwise it is all or ErrFull. The call
// is made where somebody has to wait.
func (t *uploadTree) grow(call func() *call, n *staged, off, size int64, part bool, write func(size int64) error) error {
	reserved := roundUp(size)
	if !t.quota.reserve(reserved) {
		reserved = t.missingRoom(n, off, size)
		got := t.waitForRoom(call, reserved, t.quota.reserveSome(reserved), part)
		if short := reserved - got; short > 0 {
			reserved = got
			size -= short
			if !part || size <= 0 {
				t.quota.settle(got, 0)
				return ErrFull
			}
		}
	}
	err := write(size)
	n.mu.Lock()
	defer n.mu.Unlock()
	measured := t.measureLocked(n)
	t.quota.settle(reserved, 0)
	if err == nil {
		err = measured
	}
	return err
}

// missingRoom is how much room size bytes at off may take that the file does not have yet.
func (t *uploadTree) missingRoom(n *staged, off, size int64) int64 {
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return roundUp(size)
	}
	have := roundUp(int64(st.Size))
	if int64(st.Blocks)*512 < have {
		return roundUp(off+size) - off/blockBytes*blockBytes // sparse: who knows where
	}
	return max(0, roundUp(off+size)-max(have, off/blockBytes*blockBytes))
}

// Fallocate takes room ahead, or gives room back.
func (t *uploadTree) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h := t.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	fd, err := t.file(h)
	if err != nil {
		return t.status("allocate", h.n, err)
	}
	allocate := func(int64) error {
		_, err := ignoringEINTR(func() (int, error) {
			return 0, unix.Fallocate(fd, in.Mode, int64(in.Offset), int64(in.Length))
		})
		return staging(err)
	}
	takes := int64(in.Length)
	if in.Mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
		takes = 0
	}
	call := func() *call { return t.call(cancel, &in.Caller) }
	return t.status("allocate", h.n, t.grow(call, h.n, int64(in.Offset), takes, false, allocate))
}

// Lseek finds holes and data. An evicted file is all data.
func (t *uploadTree) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h := t.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if s := h.n.stub.Load(); s != nil {
		return seekEvicted(s, in, out)
	}
	fd, err := t.file(h)
	if err != nil {
		return t.status("seek", h.n, err)
	}
	off, err := unix.Seek(fd, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return t.status("seek", h.n, staging(err))
}

func seekEvicted(s *stub, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	switch {
	case in.Offset >= uint64(s.bytes):
		return fuse.Status(syscall.ENXIO)
	case in.Whence == unix.SEEK_DATA:
		out.Offset = in.Offset
	case in.Whence == unix.SEEK_HOLE:
		out.Offset = uint64(s.bytes)
	default:
		return fuse.EINVAL
	}
	return fuse.OK
}

// Fsync makes a file durable in staging, within the timeout.
func (t *uploadTree) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return t.sync(cancel, in)
}

// FsyncDir makes a directory durable in staging, within the timeout.
func (t *uploadTree) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return t.sync(cancel, in)
}

func (t *uploadTree) sync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := t.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	h.mu.Lock()
	fd := h.fd
	h.mu.Unlock()
	var err error
	if fd < 0 {
		fd, err = t.table.reopen(h.n, unix.O_RDONLY)
	} else {
		fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return t.fail(c, "sync", h.n, staging(err))
	}
	done, dataOnly := make(chan error, 1), in.FsyncFlags&1 != 0
	t.work.Go(func() { // goes on when the answer can't wait for it
		defer unix.Close(fd)
		if dataOnly {
			done <- unix.Fdatasync(fd)
		} else {
			done <- unix.Fsync(fd)
		}
	})
	select {
	case err := <-done:
		return t.fail(c, "sync", h.n, staging(err))
	case <-c.Done():
		return t.fail(c, "sync", h.n, c.Err())
	}
}
