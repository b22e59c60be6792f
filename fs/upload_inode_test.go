package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// newTestUpload makes an upload tree without a mount.
func newTestUpload(t *testing.T, maxFds int) *uploadTree {
	t.Helper()
	cfg, err := UploadConfig{Staging: t.TempDir(), Uploads: newFakeUploads(""), Blocks: newFake(), Logger: slog.New(slog.DiscardHandler)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	up, err := openStaging(cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	up.table.maxFds = maxFds
	up.startClosings()
	t.Cleanup(func() {
		up.letGo()
		up.finish()
	})
	return up
}

func (t *uploadTree) mkdir(tb testing.TB, parent uint64, name string) (out fuse.EntryOut) {
	tb.Helper()
	if st := t.Mkdir(nil, &fuse.MkdirIn{InHeader: fuse.InHeader{NodeId: parent}, Mode: 0o755}, name, &out); st != fuse.OK {
		tb.Fatal(name, st)
	}
	return out
}

// TestDescriptors has the kernel know far more inodes than there may be descriptors. All can be used, wherever they
// were moved, and those without a name too.
func TestDescriptors(t *testing.T) {
	const few = 4
	up := newTestUpload(t, few)
	ids := make(map[uint64]string)
	for i := range 10 {
		top := up.mkdir(t, fuse.FUSE_ROOT_ID, fmt.Sprint("top", i))
		for j := range 10 {
			sub := up.mkdir(t, top.NodeId, fmt.Sprint("sub", j))
			ids[sub.NodeId] = fmt.Sprintf("top%d/sub%d", i, j)
		}
		in := fuse.RenameIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Newdir: fuse.FUSE_ROOT_ID}
		if st := up.Rename(nil, &in, fmt.Sprint("top", i), fmt.Sprint("moved", i)); st != fuse.OK {
			t.Fatal(st)
		}
	}
	for id, name := range ids {
		var out fuse.AttrOut
		if st := up.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: id}}, &out); st != fuse.OK {
			t.Fatal(name, st)
		}
		made := up.mkdir(t, id, "leaf")
		if st := up.Rmdir(nil, &fuse.InHeader{NodeId: id}, "leaf"); st != fuse.OK {
			t.Fatal(name, st)
		}
		if st := up.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: made.NodeId}}, &out); st != fuse.OK || out.Nlink != 0 {
			t.Fatalf("%s, removed: %v, %d links", name, st, out.Nlink)
		}
		up.Forget(made.NodeId, 1)
		path, _ := up.table.path(up.table.byID[id])
		if _, err := os.Stat(filepath.Join(up.cfg.Staging, path)); err != nil || path == name || !strings.HasPrefix(path, "moved") {
			t.Fatal(path, err)
		}
	}
	if n := len(up.table.fds); n > few+1 {
		t.Errorf("%d descriptors are open", n)
	}
	for id := range ids {
		up.Forget(id, 1)
	}
	if n := up.table.size(); n != 11 {
		t.Errorf("%d inodes are known, want the root and ten", n)
	}
}

// TestStaleInode has somebody replace in staging what the kernel knows.
func TestStaleInode(t *testing.T) {
	up := newTestUpload(t, 1)
	a, _ := up.mkdir(t, fuse.FUSE_ROOT_ID, "a"), up.mkdir(t, fuse.FUSE_ROOT_ID, "b")
	up.mkdir(t, fuse.FUSE_ROOT_ID, "c")
	staged, away := filepath.Join(up.cfg.Staging, "a"), filepath.Join(t.TempDir(), "away")
	if err := errors.Join(os.Rename(staged, away), os.Symlink("/", staged)); err != nil {
		t.Fatal(err)
	}
	up.table.mu.Lock()
	up.table.closeLocked(up.table.byID[a.NodeId])
	up.table.mu.Unlock()
	var out fuse.EntryOut
	if st := up.Lookup(nil, &fuse.InHeader{NodeId: a.NodeId}, "etc", &out); st != fuse.Status(syscall.ESTALE) {
		t.Errorf("a name in what was replaced: %v", st)
	}
	for _, name := range []string{"..", ".", "", "b/c", "b\x00"} {
		if st := up.Lookup(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, name, &out); st != fuse.EINVAL {
			t.Errorf("%q: %v", name, st)
		}
	}
	if err := errors.Join(os.Remove(staged), os.Rename(away, staged), os.Mkdir(filepath.Join(staged, "etc"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if st := up.Lookup(nil, &fuse.InHeader{NodeId: a.NodeId}, "etc", &out); st != fuse.OK {
		t.Errorf("a name in what was put back: %v", st)
	}
}

// TestReusedInode has an inode's number used again in the same tick of the clock.
func TestReusedInode(t *testing.T) {
	table := newTestUpload(t, 1).table
	seen := make(map[*staged]bool)
	for _, kind := range []uint32{syscall.S_IFREG, syscall.S_IFLNK, syscall.S_IFDIR, syscall.S_IFREG} {
		n := table.intern(table.root, "name", &unix.Statx_t{Ino: 1 << 40, Mode: uint16(kind | 0o644), Nlink: 1})
		seen[n] = true
		if n.kind != kind {
			t.Errorf("an inode of kind %o is used as one of %o", kind, n.kind)
		}
		defer table.release(n)
	}
	if len(seen) != 3 {
		t.Errorf("%d inodes, want one of each kind", len(seen))
	}
}

func TestStagingErrno(t *testing.T) {
	for from, to := range map[error]syscall.Errno{
		syscall.ENOENT: syscall.ENOENT, syscall.EDQUOT: syscall.ENOSPC, syscall.ENOSYS: syscall.EOPNOTSUPP,
		syscall.EMFILE: syscall.EIO, syscall.EAGAIN: syscall.EBUSY, syscall.EPERM: syscall.EPERM,
		&os.PathError{Op: "open", Err: syscall.EISDIR}: syscall.EISDIR,
		ErrChanged: syscall.EBUSY, ErrEvicted: syscall.EBUSY, ErrFull: syscall.ENOSPC,
	} {
		if errno, known := toErrno(fmt.Errorf("doing: %w", staging(from))); errno != to || !known {
			t.Errorf("%v: %v, known %v", from, errno, known)
		}
	}
	if err := staging(nil); err != nil {
		t.Error(err)
	}
	// An errno of the blocks' disk is not one of staging's.
	if errno, known := toErrno(syscall.EACCES); errno != syscall.EIO || known {
		t.Error(errno, known)
	}
	if !errors.Is(staging(unix.ENOENT), ErrNotFound) {
		t.Error("no such name is not found")
	}
}

func TestTempNames(t *testing.T) {
	names := newTempNames(nil)
	for name, want := range map[string]bool{
		".a.swp": true, ".a.swo": true, "4913": true, "a~": true, ".a.b.Xy12zQ": true, ".#a": true, "#a#": true,
		"a": false, ".a": false, ".my.config": false, "a.Xy12zQ": false, ".a.Xy12z": false, ".a.Xy12z-": false, "..Xy12zQ": false,
		"a.swp": false, "49130": false,
	} {
		if names.match(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
	editors := Temporary([]string{TempEditors, "*.part"})
	for name, want := range map[string]bool{".a.swp": true, "x.part": true, ".a.b.Xy12zQ": false, "@editors": false} {
		if editors(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
	if none := newTempNames([]string{}); none.match(".a.swp") || none.match(".a.Xy12zQ") {
		t.Error("an empty list matches")
	}
}

func TestStubMark(t *testing.T) {
	want := stub{cid: fakeCID("x"), bytes: 1 << 40, mtime: -5, empty: true}
	got, err := decodeStub(want.encode())
	if err != nil || *got != want {
		t.Errorf("%+v, %v", got, err)
	}
	raw := want.encode()
	for i := range raw {
		if _, err := decodeStub(raw[:i]); err == nil {
			t.Errorf("decoded from %d bytes of %d", i, len(raw))
		}
	}
	raw[1] = 0xff
	if _, err := decodeStub(raw); err == nil {
		t.Error("decoded a negative length")
	}
	id := newFileID()
	if back, err := ParseFileID(id.String()); err != nil || back != id {
		t.Errorf("%v, %v", back, err)
	}
	for _, s := range []string{"", "xyz", id.String() + "00"} {
		if _, err := ParseFileID(s); err == nil {
			t.Errorf("parsed %q", s)
		}
	}
}
