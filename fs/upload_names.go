package fs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// opRename2 is the request that carries flags; the plain one has other bytes in their place.
const opRename2 = 45

// at calls f with the directory of a request.
func (t *uploadTree) at(op string, id uint64, name string, f func(parent *staged, dir int) error) fuse.Status {
	parent := t.table.get(id)
	if parent == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(parent)
	if err := checkName(name); err != nil {
		return t.status(op, parent, err)
	}
	dir, err := t.table.use(parent)
	if err != nil {
		return t.status(op, parent, err)
	}
	defer t.table.done(parent)
	return t.status(op+" "+name+" in", parent, f(parent, dir))
}

// own gives what was just made to the caller, and the mode that it asked for: this process has its own umask. A
// directory with the set-group-ID bit hands its group down.
func (t *uploadTree) own(n *staged, parent *staged, caller *fuse.Caller, mode uint32, st *unix.Statx_t) error {
	changed := false
	if t.uid == 0 && (st.Uid != caller.Uid || st.Gid != caller.Gid) {
		gid := caller.Gid
		var up unix.Statx_t
		if parent != nil && t.table.stat(parent, &up) == nil && up.Mode&syscall.S_ISGID != 0 {
			gid = st.Gid
		}
		if err := t.chown(n, caller.Uid, gid); err != nil {
			return err
		}
		changed = true
	}
	want := mode&0o7777 | uint32(st.Mode)&syscall.S_ISGID
	if n.kind != syscall.S_IFLNK && (uint32(st.Mode)&0o7777 != want || changed && want&0o7000 != 0) {
		if err := t.chmod(n, want); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return t.table.stat(n, st)
}

// made answers with what was just made under a name.
func (t *uploadTree) made(parent *staged, name string, caller *fuse.Caller, mode uint32, out *fuse.EntryOut) error {
	var st unix.Statx_t
	n, err := t.table.child(parent, name, &st)
	if err != nil {
		return err
	}
	if err := t.own(n, parent, caller, mode, &st); err != nil {
		t.table.release(n)
		return err
	}
	if n.kind == syscall.S_IFREG {
		n.mu.Lock()
		n.counted, n.unstated = true, true
		t.madeTemp(n, name)
		n.mu.Unlock()
		t.settle(n)
	} else {
		t.told(Change{Kind: Made, Dir: n.kind == syscall.S_IFDIR}, parent, name)
	}
	t.entry(n, &st, out)
	return nil
}

// Mkdir makes a directory.
func (t *uploadTree) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return t.at("make directory", in.NodeId, name, func(parent *staged, dir int) error {
		if err := unix.Mkdirat(dir, name, in.Mode); err != nil {
			return staging(err)
		}
		return t.made(parent, name, &in.Caller, in.Mode, out)
	})
}

// Mknod makes an empty file, or a special one.
func (t *uploadTree) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return t.at("make", in.NodeId, name, func(parent *staged, dir int) error {
		if err := unix.Mknodat(dir, name, in.Mode, int(in.Rdev)); err != nil {
			return staging(err)
		}
		return t.made(parent, name, &in.Caller, in.Mode, out)
	})
}

// Symlink makes a symbolic link.
func (t *uploadTree) Symlink(_ <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return t.at("make symbolic link", header.NodeId, name, func(parent *staged, dir int) error {
		if err := unix.Symlinkat(target, dir, name); err != nil {
			return staging(err)
		}
		return t.made(parent, name, &header.Caller, linkMode, out)
	})
}

// Link gives a file one more name. One made without a name (O_TMPFILE) becomes part of the tree by it.
func (t *uploadTree) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n := t.table.get(in.Oldnodeid)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(n)
	return t.at("link", in.NodeId, name, func(parent *staged, dir int) error {
		if err := t.linkTo(n, dir, name); err != nil {
			return err
		}
		var st unix.Statx_t
		linked, err := t.table.child(parent, name, &st)
		if err != nil {
			return err
		}
		t.linked(linked, parent, name)
		t.entry(linked, &st, out)
		return nil
	})
}

// linkTo makes a hard link, unless the last name is being taken away, which then came first.
func (t *uploadTree) linkTo(n *staged, dir int, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leaving > 0 {
		return staging(syscall.ENOENT)
	}
	return t.withFd(n, func(fd int) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	})
}

func (t *uploadTree) linked(n, parent *staged, name string) {
	n.mu.Lock()
	fresh := n.gone
	n.gone = false
	n.mu.Unlock()
	defer t.named(n)
	if !fresh {
		n.settling.Lock() // a report of the version before comes before
		t.told(Change{Kind: Made, File: t.unchangedFile(n)}, parent, name)
		n.settling.Unlock()
	}
	if n.kind == syscall.S_IFREG {
		t.settle(n)
	}
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// Create makes a file and opens it.
func (t *uploadTree) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	return t.at("create", in.NodeId, name, func(parent *staged, dir int) error {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, in.Mode&0o7777)
		if errors.Is(err, syscall.EEXIST) && in.Flags&syscall.O_EXCL == 0 {
			return t.createExisting(c, parent, name, in, out)
		}
		if err != nil {
			return staging(err)
		}
		return t.created(fd, parent, name, in, out)
	})
}

// createExisting opens what somebody else made since the kernel looked.
func (t *uploadTree) createExisting(c *call, parent *staged, name string, in *fuse.CreateIn, out *fuse.CreateOut) error {
	var st unix.Statx_t
	n, err := t.table.child(parent, name, &st)
	if err != nil {
		return err
	}
	if n.kind != syscall.S_IFREG {
		t.table.release(n)
		return staging(syscall.ESTALE) // the kernel looks again
	}
	h := &uploadHandle{n: n, flags: in.Flags, fd: -1, write: in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	if err := t.open(c, h, in.OpenFlags&fuse.OPEN_KILL_SUIDGID != 0, &out.OpenOut); err != nil {
		t.table.release(n)
		return err
	}
	t.entry(n, &st, &out.EntryOut)
	return nil
}

// created answers with a new file, open as fd, which is the handle's from now on. Without a name, parent is nil.
func (t *uploadTree) created(fd int, parent *staged, name string, in *fuse.CreateIn, out *fuse.CreateOut) error {
	id := newFileID()
	var st unix.Statx_t
	err := staging(unix.Fsetxattr(fd, xattrID, id[:], 0))
	if err == nil {
		err = statFd(fd, &st)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	n := t.table.intern(parent, name, &st)
	h := &uploadHandle{n: n, flags: in.Flags, fd: fd, write: in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	if parent == nil {
		err = t.nameless(n, fd)
	}
	if err == nil {
		err = t.own(n, parent, &in.Caller, in.Mode, &st)
	}
	if err == nil {
		n.mu.Lock()
		n.fileID, n.stubKnown, n.counted, n.unstated, n.gone = id, true, true, true, parent == nil
		n.writers++
		n.heard = true // nobody knows of it yet
		t.madeTemp(n, name)
		n.mu.Unlock()
		n.unstable.Store(true)
		if err = t.admit(h, &out.OpenOut); err != nil || !h.write {
			t.endWrite(n)
		}
	}
	if err != nil {
		h.close()
		t.table.release(n)
		return err
	}
	t.entry(n, &st, &out.EntryOut)
	// Nobody has mapped what has no bytes, and the kernel forgets attributes with each byte that it writes. So its checks
	// of what it has just made need no questions: two for each file that a copy makes.
	n.told.Store(true)
	out.SetAttrTimeout(stagedValid)
	return nil
}

// Tmpfile makes a file without a name and opens it.
func (t *uploadTree) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return t.at("create", in.NodeId, "a file without a name", func(_ *staged, dir int) error {
		fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|int(in.Flags)&unix.O_EXCL, in.Mode&0o7777)
		if err != nil {
			return staging(err)
		}
		return t.created(fd, nil, "", in, out)
	})
}

// nameless gives n the descriptor that it can't be found without.
func (t *uploadTree) nameless(n *staged, fd int) error {
	path, err := unix.Open(procPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return staging(err)
	}
	t.table.keep(n, path)
	t.table.done(n)
	return nil
}

// told tells of a change of a name in a directory, by the path that it has now.
func (t *uploadTree) told(c Change, parent *staged, name string) {
	t.table.names.RLock()
	defer t.table.names.RUnlock()
	if dir, ok := t.table.path(parent); ok {
		c.Path = joinPath(dir, name)
		t.changed(c)
	}
}

// changed tells of a change, in time for what the kernel does next.
func (t *uploadTree) changed(c Change) {
	ctx, cancel := t.telling()
	defer cancel()
	t.cfg.Uploads.Changed(ctx, c)
}

// altered tells that attributes of n have changed. The mode and the time of a file are part of what is uploaded.
func (t *uploadTree) altered(n *staged) {
	if n.kind != syscall.S_IFREG {
		t.table.names.RLock()
		defer t.table.names.RUnlock()
		if path, ok := t.table.path(n); ok {
			t.changed(Change{Kind: Altered, Path: path, Dir: n.kind == syscall.S_IFDIR})
		}
		return
	}
	n.mu.Lock()
	n.unstated = true
	writers := n.writers
	n.mu.Unlock()
	if writers == 0 {
		t.settle(n)
	}
}
