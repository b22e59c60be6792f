package fs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// checkFile reads a file whole and compares it.
func checkFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes of %d, equal %v: %v", path, len(got), len(want), bytes.Equal(got, want), err)
	}
}

// wantErrno expects an error of a system call.
func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestMountShowsTree(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	checkFile(t, s.path("big"), random(bigBytes, 1))
	checkFile(t, s.path("empty"), []byte{})
	checkFile(t, s.path("link"), []byte("small\n"))
	checkFile(t, s.path("sub", "deep", "file"), []byte("deep down\n"))
	checkFile(t, s.path("same", "deep", "file"), []byte("deep down\n"))
	if to, err := os.Readlink(s.path("link")); err != nil || to != "small" {
		t.Errorf("link points to %q, %v", to, err)
	}
	for name, want := range map[string]string{"": "dr-xr-xr-x", "small": "-r--r--r--", "script": "-rwxr-xr-x", "sub": "dr-xr-xr-x", "link": "Lrwxrwxrwx"} {
		if info, err := os.Lstat(s.path(name)); err != nil || info.Mode().String() != want {
			t.Errorf("mode of %q: %v, want %s, %v", name, info.Mode(), want, err)
		}
	}
	if info, err := os.Stat(s.path("script")); err != nil || !info.ModTime().Equal(someTime) {
		t.Errorf("script's time is %v, want %v, %v", info.ModTime(), someTime, err)
	}
	if info, err := os.Stat(s.path("small")); err != nil || info.ModTime().Unix() != noTime {
		t.Errorf("small's time is %v, %v", info.ModTime(), err)
	}
	_, err := os.Stat(s.path("nothing"))
	wantErrno(t, "stat a name that is not there", err, syscall.ENOENT)
	_, err = os.Stat(s.path("small", "below"))
	wantErrno(t, "stat below a file", err, syscall.ENOTDIR)
	_, err = os.ReadFile(s.path("sub"))
	wantErrno(t, "read a directory", err, syscall.EISDIR)
}

func TestMountWithOrdinaryTools(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	out := t.TempDir()
	if got := sh(t, `cd "$1" && ./script a b`, s.dir); got != "ran a b\n" {
		t.Errorf("the script said %q", got)
	}
	sh(t, `cp -a "$1"/. "$2"/copy && chmod -R u+w "$2"/copy && diff -r "$1" "$2"/copy`, s.dir, out)
	sh(t, `tar -C "$1" -cf - . | tar -C "$2" -xf - --one-top-level=tar && diff -r "$1" "$2"/tar`, s.dir, out)
	sh(t, `cmp "$1"/big "$2"/copy/big; du -a "$1" >/dev/null; df "$1" >/dev/null; grep -r deep "$1" >/dev/null`, s.dir, out)
	if n := strings.Count(sh(t, `find "$1" -ls`, s.dir), "\n"); n != 13 {
		t.Errorf("find saw %d entries", n)
	}
	f, err := os.Open(s.path("big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, bigBytes, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	if !bytes.Equal(m, random(bigBytes, 1)) {
		t.Error("mapped bytes differ")
	}
	if n, err := f.ReadAt(make([]byte, 10), bigBytes-3); n != 3 || err != io.EOF {
		t.Errorf("a read over the end gave %d bytes, %v", n, err)
	}
}

func TestMountIsReadOnly(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	for what, err := range map[string]error{
		"create": os.WriteFile(s.path("new"), nil, 0o644), "write": os.WriteFile(s.path("small"), nil, 0o644),
		"mkdir": os.Mkdir(s.path("new"), 0o755), "remove": os.Remove(s.path("small")), "rmdir": os.Remove(s.path("emptydir")),
		"rename": os.Rename(s.path("small"), s.path("new")), "link": os.Link(s.path("small"), s.path("new")),
		"symlink": os.Symlink("x", s.path("new")), "chmod": os.Chmod(s.path("small"), 0o600),
		"truncate": os.Truncate(s.path("small"), 1), "mknod": unix.Mknod(s.path("new"), unix.S_IFIFO, 0),
		"setxattr": unix.Setxattr(s.path("small"), "user.x", []byte("x"), 0),
	} {
		wantErrno(t, what, err, syscall.EROFS)
	}
}

func TestMountAttributes(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	buf := make([]byte, 256)
	n, err := unix.Getxattr(s.dir, xattrCID, buf)
	if err != nil || string(buf[:n]) != s.root.String() {
		t.Errorf("the root's CID is %q, %v, want %s", buf[:max(n, 0)], err, s.root)
	}
	if n, err = unix.Listxattr(s.path("small"), buf); err != nil || string(buf[:n]) != xattrCID+"\x00" {
		t.Errorf("the list is %q, %v", buf[:max(n, 0)], err)
	}
	_, err = unix.Getxattr(s.path("small"), xattrCID, buf[:3])
	wantErrno(t, "a buffer too small", err, syscall.ERANGE)
	_, err = unix.Getxattr(s.path("small"), "user.other", buf)
	wantErrno(t, "another attribute", err, syscall.ENODATA)
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil || st.Blocks*uint64(st.Bsize) != 1<<30 {
		t.Errorf("statfs: %+v, %v", st, err)
	}
	m, ok, err := topMount(s.dir)
	if err != nil || !ok || !m.ours() || m.source != "holdfast:"+s.root.String() {
		t.Errorf("mount table: %+v, %v", m, err)
	}
	inodes := map[uint64]string{}
	filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			t.Error(path, err)
		}
		if other, taken := inodes[st.Ino]; taken || st.Ino <= 1 {
			t.Errorf("%s has the inode number %d of %q", path, st.Ino, other)
		}
		inodes[st.Ino] = path
		return nil
	})
	s2 := mountChild(t, childSpec{Tree: "mixed"})
	var st1, st2 unix.Stat_t
	if unix.Stat(s.path("sub/deep/file"), &st1) != nil || unix.Stat(s2.path("sub/deep/file"), &st2) != nil || st1.Ino != st2.Ino {
		t.Errorf("inode numbers of two mounts differ: %d, %d", st1.Ino, st2.Ino)
	}
}

func TestMountBareFile(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "bare"})
	checkFile(t, s.path(s.root.String()), random(bigBytes, 1))
	if got := sh(t, `ls "$1"`, s.dir); got != s.root.String()+"\n" {
		t.Errorf("listing: %q", got)
	}
	point := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(point, []byte("below"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := mountChild(t, childSpec{Tree: "bare", Dir: point})
	checkFile(t, point, random(bigBytes, 1))
	if info, err := os.Stat(point); err != nil || info.Size() != bigBytes || !info.Mode().IsRegular() {
		t.Errorf("the mount point is %v, %v", info, err)
	}
	if got := f.tell("unmount"); got != "ok" {
		t.Error(got)
	}
	checkFile(t, point, []byte("below"))
}

func TestMountNamespace(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed", Namespace: true})
	if got := sh(t, `ls -A "$1"`, s.dir); got != "" {
		t.Errorf("listing: %q", got)
	}
	checkFile(t, s.path(s.root.String(), "sub", "deep", "file"), []byte("deep down\n"))
	checkFile(t, s.path(builder{newFake()}.file(random(bigBytes, 1)).Cid().String()), random(bigBytes, 1))
	_, err := os.Stat(s.path("no-cid"))
	wantErrno(t, "a name that is no CID", err, syscall.ENOENT)
	if got := sh(t, `ls -A "$1"`, s.dir); got != "" {
		t.Errorf("listing after look-ups: %q", got)
	}
}

func TestMountPointErrors(t *testing.T) {
	dir := t.TempDir()
	full, file := filepath.Join(dir, "full"), filepath.Join(dir, "file")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(full, "x"), file} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	alive := mountChild(t, childSpec{Tree: "mixed"})
	for _, c := range []struct {
		spec childSpec
		want string
	}{
		{childSpec{Tree: "mixed", Dir: filepath.Join(dir, "none")}, "no such file or directory"},
		{childSpec{Tree: "mixed", Dir: filepath.Join(dir, "none", "none")}, "no such file or directory"},
		{childSpec{Tree: "mixed", Dir: full}, "not empty"},
		{childSpec{Tree: "mixed", Dir: file}, "is a file"},
		{childSpec{Tree: "mixed", Dir: file, Namespace: true}, "needs a directory"},
		{childSpec{Tree: "mixed", Dir: filepath.Join(file, "below")}, "not a directory"},
		{childSpec{Tree: "mixed", Dir: "/dev/null"}, "neither a directory nor a regular file"},
		{childSpec{Tree: "mixed", Dir: alive.dir}, "mounted there already"},
	} {
		_, line := startChild(t, c.spec)
		if !strings.HasPrefix(line, "error ") || !strings.Contains(line, c.want) || strings.Contains(line, " / ") {
			t.Errorf("%s: %q, want %q", c.spec.Dir, line, c.want)
		}
	}
	checkFile(t, alive.path("small"), []byte("small\n"))
}

func TestMountRunsPrograms(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "program", Away: true, Delay: 10 * time.Millisecond})
	if got := sh(t, `"$1"/echo from the mount`, s.dir); got != "from the mount\n" {
		t.Errorf("the program said %q", got)
	}
}

func TestMountWithoutTheRoot(t *testing.T) {
	dir := t.TempDir()
	_, line := startChild(t, childSpec{Tree: "mixed", Dir: dir, Lost: true, Timeout: 100 * time.Millisecond})
	if !strings.HasPrefix(line, "error mount ") || !strings.Contains(line, "unavailable within 100ms") {
		t.Errorf("a root nobody has: %q", line)
	}
	if n := mountsAt(t, dir); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
	s := mountChild(t, childSpec{Tree: "mixed", Dir: dir, Lost: true, Lazy: true, Timeout: 100 * time.Millisecond})
	sh(t, `stat -f "$1" && stat "$1"`, dir)
	_, err := os.ReadDir(dir)
	wantErrno(t, "list a root nobody has", err, syscall.EIO)
	s.tell("find")
	eventually(t, "the root is back", func() bool { _, err := os.ReadDir(dir); return err == nil })
	checkFile(t, s.path("sub", "deep", "file"), []byte("deep down\n"))
}
