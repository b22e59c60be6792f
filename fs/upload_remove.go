package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// doomed is a name about to go away, and what it is a name of.
type doomed struct {
	n       *staged // held, its descriptor in use
	last    bool
	leaving bool // Uploads was told
	id      FileID
}

// doom looks at a name before it is taken away. Whoever has the inode open goes on using it, so its descriptor is kept.
func (t *uploadTree) doom(parent *staged, name string) (*doomed, error) {
	var st unix.Statx_t
	n, err := t.table.child(parent, name, &st)
	if err != nil {
		return nil, err
	}
	if _, err := t.table.use(n); err != nil {
		t.table.release(n)
		return nil, err
	}
	d := &doomed{n: n, last: st.Nlink == 1}
	if n.kind == syscall.S_IFREG {
		n.mu.Lock()
		defer n.mu.Unlock()
		d.id, _ = t.idLocked(n, false)
		t.measureLocked(n)
		if last, err := t.lastLocked(n); err == nil {
			d.last = last
		}
	}
	return d, nil
}

// free ends the look.
func (t *uploadTree) free(d *doomed) {
	if d != nil {
		if d.leaving {
			t.left(d.n)
		}
		t.table.done(d.n)
		t.table.release(d.n)
	}
}

// removed notes that the name is gone.
func (t *uploadTree) removed(d *doomed, parent *staged, name string) {
	t.table.renamed(d.n, parent, name, nil, "")
	if !d.last || d.n.kind != syscall.S_IFREG {
		return
	}
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	d.n.gone = true
	t.lookedAt(d.n)
}

// Unlink takes a file's name away.
func (t *uploadTree) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	c := t.call(cancel, &header.Caller)
	defer c.finish()
	return t.at("unlink", header.NodeId, name, func(parent *staged, dir int) error {
		return c.explain(t.remove(c, parent, dir, name, 0))
	})
}

// Rmdir removes an empty directory.
func (t *uploadTree) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	c := t.call(cancel, &header.Caller)
	defer c.finish()
	return t.at("remove directory", header.NodeId, name, func(parent *staged, dir int) error {
		return t.remove(c, parent, dir, name, unix.AT_REMOVEDIR)
	})
}

func (t *uploadTree) remove(ctx *call, parent *staged, dir int, name string, flags int) error {
	d, err := t.doom(parent, name)
	if err != nil {
		return err
	}
	defer t.free(d)
	if flags == 0 {
		if err := t.leave(ctx, d); err != nil {
			return err
		}
	}
	t.table.names.Lock()
	defer t.table.names.Unlock()
	if err := unix.Unlinkat(dir, name, flags); err != nil {
		return staging(err)
	}
	path, ok := t.pathIn(parent, name)
	t.removed(d, parent, name)
	c := Change{Kind: Removed, Path: path, Dir: flags != 0, Last: d.last || flags != 0, File: File{ID: d.id, Path: path}}
	if !c.Last {
		c.File = t.unchangedFile(d.n)
	}
	if ok {
		t.changed(c)
	}
	return nil
}

// pathIn is the path of a name in a directory; false if that is nowhere any more.
func (t *uploadTree) pathIn(parent *staged, name string) (string, bool) {
	dir, ok := t.table.path(parent)
	return joinPath(dir, name), ok
}

// Rename moves a name, over another, in exchange with it, or only where there is none, as the flags say.
func (t *uploadTree) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	flags := in.Flags
	if in.Opcode != opRename2 {
		flags = 0
	}
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	to := t.table.get(in.Newdir)
	if to == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(to)
	c := t.call(cancel, &in.Caller)
	defer c.finish()
	return t.at("rename", in.NodeId, oldName, func(from *staged, fromDir int) error {
		if err := checkName(newName); err != nil {
			return err
		}
		toDir, err := t.table.use(to)
		if err != nil {
			return err
		}
		defer t.table.done(to)
		m := move{from: from, to: to, oldName: oldName, newName: newName, flags: uint(flags)}
		return c.explain(t.move(c, &m, fromDir, toDir))
	})
}

// move is one rename.
type move struct {
	from, to         *staged
	oldName, newName string
	flags            uint
	source, target   *doomed // target may be nil
}

func (t *uploadTree) move(c *call, m *move, fromDir, toDir int) (err error) {
	if m.source, err = t.doom(m.from, m.oldName); err != nil {
		return err
	}
	defer t.free(m.source)
	m.target, err = t.doom(m.to, m.newName)
	if err != nil && toErrnoOnly(err) != syscall.ENOENT {
		return err
	}
	defer func() { t.free(m.target) }()
	if m.target != nil && m.target.n != m.source.n && m.flags == 0 {
		if err := t.leave(c, m.target); err != nil {
			return err
		}
	}
	if err := t.moveNow(m, fromDir, toDir); err != nil {
		return err
	}
	t.named(m.source.n)
	if m.flags&unix.RENAME_EXCHANGE != 0 {
		t.named(m.target.n)
	}
	return nil
}

func toErrnoOnly(err error) syscall.Errno {
	errno, _ := toErrno(err)
	return errno
}

// moveNow renames, and tells of it before anybody sees the name.
func (t *uploadTree) moveNow(m *move, fromDir, toDir int) error {
	t.table.names.Lock()
	defer t.table.names.Unlock()
	if err := unix.Renameat2(fromDir, m.oldName, toDir, m.newName, m.flags); err != nil {
		return staging(err)
	}
	if m.target == nil || m.target.n != m.source.n { // otherwise two names of one file, which both stay
		t.moved(m)
	}
	return nil
}

// moved notes a rename and tells of it.
func (t *uploadTree) moved(m *move) {
	source, target := m.source, m.target
	c := Change{Kind: Renamed, Dir: source.n.kind == syscall.S_IFDIR}
	var from, to bool
	c.Path, from = t.pathIn(m.from, m.oldName)
	c.To, to = t.pathIn(m.to, m.newName)
	switch {
	case m.flags&unix.RENAME_EXCHANGE != 0:
		c.Kind = Swapped
		t.table.renamed(source.n, m.from, m.oldName, m.to, m.newName)
		t.table.renamed(target.n, m.to, m.newName, m.from, m.oldName)
	case target != nil:
		t.removed(target, m.to, m.newName)
		if target.last {
			c.Replaced = target.id
		}
		fallthrough
	default:
		t.table.renamed(source.n, m.from, m.oldName, m.to, m.newName)
	}
	if c.File = t.unchangedFile(source.n); from && to {
		t.changed(c)
	}
	if target != nil { // swapped, or one of its names less: its change time is another now
		target.n.mu.Lock()
		defer target.n.mu.Unlock()
		t.recordLocked(target.n)
	}
}
