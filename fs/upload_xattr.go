package fs

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The attributes that tell what became of files. They are not listed, so that programs that copy attributes leave them
// alone, and can't be set.
const (
	xattrState    = xattrOurs + "state"
	xattrProgress = xattrOurs + "progress"
	xattrError    = xattrOurs + "error"
	xattrManifest = xattrOurs + "manifest"
)

// isOurs tells whether an attribute is told by us rather than by staging.
func isOurs(name string) bool { return strings.HasPrefix(name, xattrOurs) }

// GetXAttr tells an attribute: ours from Uploads, other user attributes from staging. There are no others.
func (t *uploadTree) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n := t.table.get(header.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(n)
	if isOurs(attr) {
		c := t.call(cancel, &header.Caller)
		defer c.finish()
		value, err := t.tell(c, n, attr)
		if err != nil {
			return 0, t.fail(c, "read attribute "+attr+" of", n, err)
		}
		return fill(dest, value)
	}
	if !strings.HasPrefix(attr, "user.") {
		return 0, t.status("", n, ErrUnsupported)
	}
	var size int
	err := t.withFd(n, func(fd int) (err error) {
		size, err = unix.Getxattr(procPath(fd), attr, dest)
		return err
	})
	return uint32(max(size, 0)), t.status("read attribute "+attr+" of", n, err)
}

// tell gives the value of one of our attributes.
func (t *uploadTree) tell(ctx context.Context, n *staged, attr string) (value string, err error) {
	switch n.kind {
	case syscall.S_IFDIR:
		value, err = t.tellDir(ctx, n, attr)
	case syscall.S_IFREG:
		value, err = t.tellFile(ctx, n, attr)
	}
	if errors.Is(err, ErrNotFound) {
		return "", ErrNoAttribute
	}
	if err == nil && value == "" {
		return "", ErrNoAttribute
	}
	return value, err
}

func (t *uploadTree) tellDir(ctx context.Context, n *staged, attr string) (string, error) {
	path, ok := t.table.path(n)
	switch {
	case !ok:
		return "", ErrNotFound
	case attr == xattrCID:
		c, err := t.cfg.Uploads.Directory(ctx, path)
		if err != nil || !c.Defined() {
			return "", err
		}
		return c.String(), nil
	case attr == xattrManifest && n == t.table.root:
		c, err := t.cfg.Uploads.Manifest(ctx)
		if err != nil || !c.Defined() {
			return "", err
		}
		return c.String(), nil
	}
	return "", ErrNotFound
}

func (t *uploadTree) tellFile(ctx context.Context, n *staged, attr string) (string, error) {
	if attr != xattrCID && attr != xattrState && attr != xattrProgress && attr != xattrError {
		return "", ErrNotFound
	}
	n.mu.Lock()
	id, err := t.idLocked(n, false)
	n.mu.Unlock()
	if err != nil || id == (FileID{}) {
		return "", errors.Join(ErrNotFound, err)
	}
	s, err := t.cfg.Uploads.Status(ctx, id)
	if err != nil {
		return "", err
	}
	switch {
	case attr == xattrState:
		return s.State, nil
	case attr == xattrProgress:
		return s.Progress, nil
	case attr == xattrError:
		return s.Err, nil
	case s.CID.Defined():
		return s.CID.String(), nil
	}
	return "", ErrNotFound
}

// ListXAttr lists the user attributes in staging that are not ours.
func (t *uploadTree) ListXAttr(_ <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := t.table.get(header.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(n)
	if n.kind != syscall.S_IFREG && n.kind != syscall.S_IFDIR {
		return 0, fuse.OK // others have no user attributes
	}
	list, err := t.listXattrs(n)
	if err != nil {
		return 0, t.status("list attributes of", n, err)
	}
	return fill(dest, list)
}

func (t *uploadTree) listXattrs(n *staged) (string, error) {
	buf := make([]byte, 64<<10) // the most that the kernel lets anybody list
	var size int
	err := t.withFd(n, func(fd int) (err error) {
		size, err = unix.Listxattr(procPath(fd), buf)
		return err
	})
	if err != nil {
		return "", err
	}
	var list strings.Builder
	for name := range bytes.SplitSeq(buf[:size], []byte{0}) {
		if s := string(name); strings.HasPrefix(s, "user.") && !isOurs(s) {
			list.WriteString(s)
			list.WriteByte(0)
		}
	}
	return list.String(), nil
}

// SetXAttr sets a user attribute in staging.
func (t *uploadTree) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	return t.changeXattr(in.NodeId, attr, func(fd int) error {
		return unix.Setxattr(procPath(fd), attr, data, int(in.Flags))
	})
}

// RemoveXAttr removes a user attribute in staging.
func (t *uploadTree) RemoveXAttr(_ <-chan struct{}, header *fuse.InHeader, attr string) fuse.Status {
	return t.changeXattr(header.NodeId, attr, func(fd int) error { return unix.Removexattr(procPath(fd), attr) })
}

func (t *uploadTree) changeXattr(id uint64, attr string, change func(fd int) error) fuse.Status {
	n := t.table.get(id)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(n)
	switch {
	case isOurs(attr):
		return fuse.EPERM
	case !strings.HasPrefix(attr, "user."):
		return t.status("", n, ErrUnsupported)
	}
	n.settling.Lock() // a report of the version before comes before
	defer n.settling.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kind == syscall.S_IFREG && !n.counted {
		t.measureLocked(n)
	}
	err := t.withFd(n, change)
	if n.kind == syscall.S_IFREG {
		t.measureLocked(n)
	}
	if err == nil && n.kind == syscall.S_IFREG && n.writers == 0 {
		t.recordLocked(n)
	}
	return t.status("change attribute "+attr+" of", n, err)
}
