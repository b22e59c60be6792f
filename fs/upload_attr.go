package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// attr fills in what stat shows. An evicted file shows the blocks it would take: programs that copy take a file without
// any for one hole.
func (t *uploadTree) attr(n *staged, st *unix.Statx_t, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: st.Ino, Size: st.Size, Blocks: st.Blocks, Mode: uint32(st.Mode), Nlink: st.Nlink,
		Owner: fuse.Owner{Uid: st.Uid, Gid: st.Gid}, Blksize: st.Blksize, Rdev: uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)),
		Atime: uint64(st.Atime.Sec), Atimensec: st.Atime.Nsec,
		Mtime: uint64(st.Mtime.Sec), Mtimensec: st.Mtime.Nsec,
		Ctime: uint64(st.Ctime.Sec), Ctimensec: st.Ctime.Nsec,
	}
	if n.kind == syscall.S_IFREG && st.Blocks*512 < st.Size && t.isStub(n) {
		out.Blocks = (st.Size + 511) / 512
	}
}

// GetAttr tells what stat shows.
func (t *uploadTree) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := t.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(n)
	return t.status("stat", n, t.getAttr(n, out))
}

func (t *uploadTree) getAttr(n *staged, out *fuse.AttrOut) error {
	valid := t.attrValid(n) // asked before the stat: a writer that comes between makes it 0 by retract
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return err
	}
	t.attr(n, &st, &out.Attr)
	out.SetTimeout(valid)
	return nil
}

// SetAttr changes owner, mode, length and times, as far as staging allows.
func (t *uploadTree) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := t.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(n)
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	if err := t.setAttr(c, n, in); err != nil {
		return t.fail(c, "change attributes of", n, err)
	}
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 {
		t.altered(n)
	}
	return t.fail(c, "stat", n, t.getAttr(n, out))
}

func (t *uploadTree) setAttr(c *call, n *staged, in *fuse.SetAttrIn) error {
	uid, setUID := in.GetUID()
	gid, setGID := in.GetGID()
	if setUID || setGID {
		if err := t.chown(n, uid, gid); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := t.chmod(n, mode); err != nil {
			return err
		}
	}
	if size, ok := in.GetSize(); ok {
		if err := t.truncate(c, n, int64(size)); err != nil {
			return err
		}
		if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
			if err := t.killPrivileges(n); err != nil {
				return err
			}
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
		return nil
	}
	if err := t.awaitBytes(c, n); err != nil { // their end puts the time back that there was before
		return err
	}
	return t.chtimes(n, stamps(in))
}

// awaitBytes waits for evicted bytes that are coming back.
func (t *uploadTree) awaitBytes(c *call, n *staged) error {
	n.mu.Lock()
	h := n.hydrating
	n.mu.Unlock()
	if h == nil {
		return nil
	}
	if err := h.wait(c); err != nil && c.Err() != nil {
		return err
	}
	return nil
}

// stamps are the access and modification times to set.
func stamps(in *fuse.SetAttrIn) []unix.Timespec {
	one := func(set, now uint32, sec uint64, nsec uint32) unix.Timespec {
		switch {
		case in.Valid&set == 0:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		case in.Valid&now != 0:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
	}
	return []unix.Timespec{
		one(fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		one(fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
}

// withFd calls f with the descriptor of n.
func (t *uploadTree) withFd(n *staged, f func(fd int) error) error {
	fd, err := t.table.use(n)
	if err != nil {
		return err
	}
	defer t.table.done(n)
	return staging(f(fd))
}

// chown changes owner and group; all ones means the one there is.
func (t *uploadTree) chown(n *staged, uid, gid uint32) error {
	return t.withFd(n, func(fd int) error {
		return unix.Fchownat(fd, "", int(int32(uid)), int(int32(gid)), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (t *uploadTree) chmod(n *staged, mode uint32) error {
	if n.kind == syscall.S_IFLNK {
		return staging(syscall.EOPNOTSUPP)
	}
	return t.withFd(n, func(fd int) error { return unix.Fchmodat(unix.AT_FDCWD, procPath(fd), mode&0o7777, 0) })
}

func (t *uploadTree) chtimes(n *staged, ts []unix.Timespec) error {
	return t.withFd(n, func(fd int) error {
		return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	})
}

// killPrivileges takes away set-user-ID, and set-group-ID where the group may execute, as a write does.
func (t *uploadTree) killPrivileges(n *staged) error {
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return err
	}
	mode := uint32(st.Mode) & 0o7777
	kept := mode &^ syscall.S_ISUID
	if mode&syscall.S_IXGRP != 0 {
		kept &^= syscall.S_ISGID
	}
	if kept == mode {
		return nil
	}
	return t.chmod(n, kept)
}

// truncate changes the length of a file that need not be open.
func (t *uploadTree) truncate(c *call, n *staged, size int64) error {
	if n.kind != syscall.S_IFREG {
		return staging(syscall.EINVAL)
	}
	if err := t.beginWrite(c, n, size == 0); err != nil {
		return err
	}
	defer t.endWrite(n)
	fd, err := t.table.reopen(n, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, size); err != nil {
		return staging(err)
	}
	return t.truncated(n, size)
}

// truncated notes a change of length.
func (t *uploadTree) truncated(n *staged, size int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unstated = true
	if size == 0 {
		if err := t.dropStubLocked(n); err != nil {
			return err
		}
	}
	t.measureLocked(n)
	return nil
}

// Access is left to the kernel, which knows the modes; it stops asking.
func (t *uploadTree) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// Readlink tells where a symbolic link points.
func (t *uploadTree) Readlink(_ <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	n := t.table.get(header.NodeId)
	if n == nil {
		return nil, fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(n)
	buf := make([]byte, unix.PathMax)
	var size int
	err := t.withFd(n, func(fd int) (err error) {
		size, err = unix.Readlinkat(fd, "", buf)
		return err
	})
	return buf[:max(size, 0)], t.status("read link", n, err)
}

// StatFs tells the quota, or the file system's room where there is none.
func (t *uploadTree) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := unix.Fstatfs(t.table.root.fd, &st); err != nil {
		return t.status("statfs", t.table.root, staging(err))
	}
	*out = fuse.StatfsOut{Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), Frsize: uint32(st.Frsize), NameLen: longestName}
	if free, ok := t.quota.free(); ok {
		unit := uint64(st.Frsize)
		out.Bsize = out.Frsize
		out.Blocks = uint64(t.quota.limit) / unit
		out.Bfree = min(uint64(free)/unit, st.Bavail*uint64(st.Bsize)/unit)
		out.Bavail = out.Bfree
	}
	return fuse.OK
}
