package fs

import (
	"bytes"
	"encoding/binary"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// direntBuffer is how many bytes of a staged directory are read at once.
const direntBuffer = 32 << 10

// dirEntry is an entry of a staged directory. next is where the listing goes on after it.
type dirEntry struct {
	ino  uint64
	next int64
	kind uint32 // S_IFREG and so on; 0 where staging does not say
	name string
}

// dirStream lists a staged directory. Positions are staging's own, so they hold over any change of it.
type dirStream struct {
	// mu guards what follows.
	mu   sync.Mutex
	fd   int
	buf  []byte
	left []byte // of buf, not yet given
	pos  int64  // of left
}

// seek goes to a position.
func (d *dirStream) seek(pos int64) error {
	if pos == d.pos {
		return nil
	}
	if _, err := unix.Seek(d.fd, pos, unix.SEEK_SET); err != nil {
		return staging(err)
	}
	d.left, d.pos = nil, pos
	return nil
}

// peek gives the entry at the position; false at the end.
func (d *dirStream) peek(e *dirEntry) (bool, error) {
	if len(d.left) == 0 {
		n, err := ignoringEINTR(func() (int, error) { return unix.Getdents(d.fd, d.buf) })
		if err != nil {
			return false, staging(err)
		}
		d.left = d.buf[:n]
	}
	if len(d.left) == 0 {
		return false, nil
	}
	return true, e.parse(d.left)
}

// next steps over the entry that peek gave.
func (d *dirStream) next(e *dirEntry) {
	d.left = d.left[binary.NativeEndian.Uint16(d.left[16:]):]
	d.pos = e.next
}

// parse reads a struct linux_dirent64: inode, next position, length, type, name.
func (e *dirEntry) parse(b []byte) error {
	const header = 19
	if len(b) < header || int(binary.NativeEndian.Uint16(b[16:])) > len(b) || binary.NativeEndian.Uint16(b[16:]) < header {
		return staging(syscall.EIO)
	}
	name := b[header:binary.NativeEndian.Uint16(b[16:])]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	e.ino, e.next = binary.NativeEndian.Uint64(b), int64(binary.NativeEndian.Uint64(b[8:]))
	e.kind, e.name = uint32(b[18])<<12, string(name)
	return nil
}

// OpenDir opens a directory.
func (t *uploadTree) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := t.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	fd, err := t.table.reopen(n, unix.O_RDONLY)
	if err != nil {
		t.table.release(n)
		return t.status("open directory", n, err)
	}
	out.Fh = t.handles.add(&uploadHandle{n: n, fd: fd, dir: &dirStream{fd: fd, buf: make([]byte, direntBuffer)}})
	return fuse.OK
}

// ReleaseDir ends one open.
func (t *uploadTree) ReleaseDir(in *fuse.ReleaseIn) {
	if h := t.handles.remove(in.Fh); h != nil {
		h.close()
		t.table.release(h.n)
	}
}

// ReadDir lists names and types.
func (t *uploadTree) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return t.list(in, out, func(h *uploadHandle, e *dirEntry) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: e.name, Ino: e.ino, Mode: e.kind, Off: uint64(e.next)})
	})
}

// ReadDirPlus lists names with attributes.
func (t *uploadTree) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return t.list(in, out, func(h *uploadHandle, e *dirEntry) bool {
		entry := out.AddDirLookupEntry(fuse.DirEntry{Name: e.name, Ino: e.ino, Mode: e.kind, Off: uint64(e.next)})
		if entry == nil {
			return false
		}
		if e.name == "." || e.name == ".." {
			return true
		}
		var st unix.Statx_t
		if n, err := t.table.child(h.n, e.name, &st); err == nil {
			t.entry(n, &st, entry)
		}
		return true // one that went away meanwhile has its name only
	})
}

// list gives entries from the position asked for until there is no room for more.
func (t *uploadTree) list(in *fuse.ReadIn, out *fuse.DirEntryList, add func(*uploadHandle, *dirEntry) bool) fuse.Status {
	h := t.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return fuse.EBADF
	}
	d := h.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.seek(int64(in.Offset))
	for err == nil {
		var e dirEntry
		var more bool
		if more, err = d.peek(&e); err != nil || !more || !add(h, &e) {
			break
		}
		d.next(&e)
	}
	if err != nil && len(out.Bytes()) == 0 {
		return t.status("list", h.n, err)
	}
	return fuse.OK
}
