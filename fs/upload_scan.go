package fs

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deep directories may lie in each other: each level keeps a descriptor open while it is scanned.
const maxDepth = 1000

// scan walks the staging directory at the start: it counts what is used, tells where each file lies, finishes what a
// crash cut short, and reports the files that differ from their records.
type scan struct {
	t     *uploadTree
	ctx   context.Context
	seen  map[FileID]inodeKey
	files int
	told  int
}

// rescan scans before the mount answers, so nobody changes anything through it meanwhile.
func (t *uploadTree) rescan(ctx context.Context) error {
	s := &scan{t: t, ctx: ctx, seen: make(map[FileID]inodeKey)}
	if err := s.dir(t.table.root, 0); err != nil {
		return fmt.Errorf("scan staging directory %s: %w", t.cfg.Staging, err)
	}
	if err := t.cfg.Uploads.Scanned(ctx); err != nil {
		return fmt.Errorf("scan staging directory %s: %w", t.cfg.Staging, err)
	}
	t.log.Info("staging directory scanned", "files", s.files, "changed", s.told, "bytes", t.quota.measured())
	return nil
}

// dir scans a directory and all below it.
func (s *scan) dir(n *staged, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories in each other", maxDepth)
	}
	fd, err := s.t.table.reopen(n, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	d := &dirStream{fd: fd, buf: make([]byte, direntBuffer)}
	for {
		var e dirEntry
		more, err := d.peek(&e)
		if err != nil || !more {
			return err
		}
		d.next(&e)
		if e.name == "." || e.name == ".." {
			continue
		}
		if err := s.entry(n, e.name, depth); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
}

func (s *scan) entry(parent *staged, name string, depth int) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	var st unix.Statx_t
	n, err := s.t.table.child(parent, name, &st)
	if errno := toErrnoOnly(err); errno == syscall.ENOENT || errno == syscall.EXDEV {
		return nil // gone meanwhile, or somebody's mount
	}
	if err != nil {
		return err
	}
	defer s.t.table.release(n)
	switch n.kind {
	case syscall.S_IFDIR:
		return s.dir(n, depth+1)
	case syscall.S_IFREG:
		return s.file(n, &st)
	}
	return nil
}

// file tells of a file, once for all its hard links.
func (s *scan) file(n *staged, st *unix.Statx_t) error {
	t := s.t
	n.mu.Lock()
	evicted := t.stubLocked(n) != nil // finishes an eviction
	f, err := s.identify(n)
	var now unix.Statx_t
	if err == nil {
		err = t.table.stat(n, &now)
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	if key, again := s.seen[f.ID]; again && key == n.key {
		return nil
	}
	s.seen[f.ID] = n.key
	s.files++
	t.quota.settle(0, int64(now.Blocks)*512)
	recorded, known, err := t.cfg.Uploads.Recorded(s.ctx, f)
	if err != nil || evicted {
		return err
	}
	n.mu.Lock()
	n.before, n.unstated = recorded, !known
	if !known && now.Nlink == 1 {
		t.madeTemp(n, n.name)
	}
	n.mu.Unlock()
	if !known || recorded != f.Version {
		s.told++
	}
	t.settle(n)
	return nil
}

// identify gives the file with its ID. A copy made in staging, attributes and all, gets an ID of its own.
func (s *scan) identify(n *staged) (File, error) {
	t := s.t
	f, err := t.fileLocked(n)
	if err != nil {
		return f, err
	}
	if key, taken := s.seen[f.ID]; !taken || key == n.key {
		return f, nil
	}
	id := newFileID()
	err = t.withFd(n, func(fd int) error {
		if err := unix.Removexattr(procPath(fd), xattrID); err != nil && !errors.Is(err, syscall.ENODATA) {
			return err
		}
		return unix.Setxattr(procPath(fd), xattrID, id[:], 0)
	})
	if err != nil {
		return f, err
	}
	n.fileID, n.unstated = id, true
	return t.fileLocked(n)
}
