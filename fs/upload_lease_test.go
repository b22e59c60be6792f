package fs

import (
	"bytes"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUploadLease reads a file under a lease while others come to write it.
func TestUploadLease(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		write(t, u.path("file"), "0123456789")
		u.expectCount(t, 1)
		u.ok("lease", "file", "5s")
		reader := openAs(t, u.path("file"), os.O_RDONLY)
		if _, err := reader.Read(make([]byte, 4)); err != nil {
			t.Error(err)
		}
		u.ok("check", "file")
		start := time.Now()
		writer := openAs(t, u.path("file"), os.O_WRONLY)
		if writer == nil || u.tell("broken", "file") != "true" || u.tell("check", "file") == "ok" {
			t.Errorf("a writer opened after %v: broken %s, check %s", time.Since(start), u.tell("broken", "file"), u.tell("check", "file"))
		}
		if told := u.told(); len(told.Opened) != 1 || told.Opened[0] != told.Closed[0] {
			t.Errorf("told of opening %+v, want %+v", told.Opened, told.Closed)
		}
		u.ok("unlease", "file")
		if answer := u.tell("lease", "file", "50ms"); answer == "ok" {
			t.Error("a lease while the file is open for writing")
		}
		writer.Close()
		u.ok("lease", "file", "5s")
		if err := os.Truncate(u.path("file"), 3); err != nil {
			t.Fatal(err)
		}
		if u.tell("check", "file") == "ok" {
			t.Error("a truncated file passes the check")
		}
		u.ok("unlease", "file")
		u.ok("lease", "file", "5s")
		if err := os.Rename(u.path("file"), u.path("other")); err != nil {
			t.Fatal(err)
		}
		if u.tell("check", "file") == "ok" {
			t.Error("another change time passes the check")
		}
		u.ok("unlease", "file")
		if answer := u.tell("lease", "file", "5s"); answer == "ok" {
			t.Error("a lease on a name that is gone")
		}
	})
}

// expectCount waits until so many files were reported.
func (u *uploaded) expectCount(t *testing.T, n int) {
	t.Helper()
	if got := len(u.settledTold().Closed); got != n {
		t.Errorf("%d files reported, want %d", got, n)
	}
}

// TestUploadLeaseForeign has somebody write a leased file in staging, past the mount.
func TestUploadLeaseForeign(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	write(t, u.path("file"), "0123456789")
	u.expectCount(t, 1)
	u.ok("lease", "file", "5s")
	if _, err := os.OpenFile(u.staged("file"), os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
		t.Error("nothing keeps a writer out of staging")
	}
	if u.tell("check", "file") == "ok" {
		t.Error("the check passes while somebody waits to write in staging")
	}
	u.ok("unlease", "file")
	write(t, u.staged("file"), "changed")
	if data, err := os.ReadFile(u.path("file")); err != nil || string(data) != "changed" {
		t.Errorf("the mount has %q, %v", data, err)
	}
}

// evictNew writes a file, has it reported and evicted, and returns what stat said of it before.
func (u *uploaded) evictNew(t *testing.T, name string, data []byte) os.FileInfo {
	t.Helper()
	if err := os.WriteFile(u.path(name), data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(u.path(name), time.Unix(5, 0), time.Unix(123456789, 1234)); err != nil {
		t.Fatal(err)
	}
	u.ok("settle")
	before, err := os.Stat(u.path(name))
	if err != nil {
		t.Fatal(err)
	}
	u.ok("clear")
	u.evictOK(t, name)
	return before
}

func (u *uploaded) expectSame(t *testing.T, name string, before os.FileInfo) {
	t.Helper()
	after, err := os.Stat(u.path(name))
	if err != nil || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) || !os.SameFile(before, after) {
		t.Errorf("%v is %v, %v", before, after, err)
	}
}

// TestUploadEvict evicts a file and reads it, by both its names, as a whole, for holes, and as cp does.
func TestUploadEvict(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		want := random(3<<20+1234, 7)
		before := u.evictNew(t, "file", want)
		if err := os.Link(u.path("file"), u.path("link")); err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(u.staged("file"), &st); err != nil || st.Blocks*512 > 16<<10 { // attributes take a block
			t.Errorf("staging keeps %d blocks, %v", st.Blocks, err)
		}
		if syscall.Stat(u.path("file"), &st); st.Blocks*512 < int64(len(want)) {
			t.Errorf("the file shows %d blocks and will be taken for a hole", st.Blocks)
		}
		checkFile(t, u.path("file"), want)
		checkFile(t, u.path("link"), want)
		u.expectSame(t, "link", before)
		f := openAs(t, u.path("file"), os.O_RDONLY)
		if off, err := unix.Seek(int(f.Fd()), 5, unix.SEEK_HOLE); off != int64(len(want)) {
			t.Errorf("a hole at %d, %v", off, err)
		}
		sh(t, `cp --sparse=always "$1" "$2" && cmp "$1" "$2"; cat "$1" | cmp - "$2"`, u.path("file"), t.TempDir()+"/copy")
		if st, err := os.Stat(u.staged("file")); err != nil || !st.ModTime().Equal(before.ModTime()) {
			t.Errorf("staging: %v, %v", st, err)
		}
	})
}

// TestUploadEvictWhileRead has a writer come while a reader has the stub open.
func TestUploadEvictWhileRead(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		want := random(3<<20+1234, 7)
		before := u.evictNew(t, "file", want)
		f, w := openAs(t, u.path("file"), os.O_RDONLY), openAs(t, u.path("file"), os.O_RDWR)
		u.expectSame(t, "file", before)
		if _, err := w.WriteAt([]byte("new"), 100); err != nil {
			t.Fatal(err)
		}
		copy(want[100:], "new")
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the reader sees what was: %v", err)
		}
		u.ok("clear")
		w.Close()
		f.Close()
		u.expectCount(t, 1)
		checkFile(t, u.staged("file"), want)
		u.expectInStep(t)
	})
}

// TestUploadEvictWritten writes evicted files in every way. What is truncated needs none of its blocks.
func TestUploadEvictWritten(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		want := random(1<<20+1234, 8)
		u.evictNew(t, "truncated", want)
		u.tell("loseall")
		write(t, u.path("truncated"), "short")
		checkFile(t, u.staged("truncated"), []byte("short"))
		u.tell("find")
		u.evictNew(t, "cut", want)
		if err := os.Truncate(u.path("cut"), 1000); err != nil {
			t.Fatal(err)
		}
		checkFile(t, u.staged("cut"), want[:1000])
		u.evictNew(t, "appended", want)
		sh(t, `echo tail >>"$1"`, u.path("appended"))
		checkFile(t, u.staged("appended"), append(bytes.Clone(want), "tail\n"...))
		u.evictNew(t, "gone", want)
		if err := os.Remove(u.path("gone")); err != nil {
			t.Fatal(err)
		}
		u.evictNew(t, "touched", want)
		sh(t, `chmod 600 "$1"; touch -d @77 "$1"; setfattr -n user.x -v y "$1"; mv "$1" "$1.moved"`, u.path("touched"))
		checkFile(t, u.path("touched.moved"), want)
		sh(t, `test "$(stat -c '%a %Y' "$1")" = '600 77'; : >>"$1"; test "$(stat -c '%a %Y' "$1")" = '600 77'`, u.path("touched.moved"))
		checkFile(t, u.staged("touched.moved"), want)
		u.expectInStep(t)
	})
}

func (u *uploaded) evictOK(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" is evicted", func() bool { // the kernel may still be dropping the last descriptor
		answer := u.tell("evict", name)
		if answer != "ok" && !bytes.Contains([]byte(answer), []byte(ErrBusy.Error())) {
			t.Fatal(answer)
		}
		return answer == "ok"
	})
}

// TestUploadEvictRefused asks for evictions that must not be.
func TestUploadEvictRefused(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		write(t, u.path("file"), "0123456789")
		u.ok("settle")
		refuse := func(why string) {
			t.Helper()
			if answer := u.tell("evict", "file"); answer == "ok" {
				t.Errorf("evicted although %s", why)
			}
		}
		f := openAs(t, u.path("file"), os.O_RDONLY)
		refuse("it is open for reading")
		mem, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		refuse("it is mapped")
		if string(mem) != "0123456789" {
			t.Errorf("the mapping has %q", mem)
		}
		unix.Munmap(mem)
		f = openAs(t, u.path("file"), os.O_WRONLY)
		refuse("it is open for writing")
		f.Close()
		u.ok("lease", "file", "5s")
		refuse("it is being read for its upload")
		u.ok("unlease", "file")
		u.ok("refuse", "on")
		if err := os.Truncate(u.path("file"), 5); err != nil {
			t.Fatal(err)
		}
		refuse("it has changed and was not reported")
		u.ok("refuse", "off")
		eventually(t, "the file is reported", func() bool {
			closed := u.told().Closed
			return closed[len(closed)-1].Version.Bytes == 5
		})
		u.evictOK(t, "file")
		refuse("it was evicted before")
		checkFile(t, u.path("file"), []byte("01234"))
	})
}

// TestUploadEvictLost has the blocks of an evicted file missing.
func TestUploadEvictLost(t *testing.T) {
	u := mountUpload(t, uploadSpec{Timeout: 300 * time.Millisecond})
	want := random(2<<20, 9)
	if err := os.WriteFile(u.path("file"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	u.ok("settle")
	u.evictOK(t, "file")
	u.tell("loseall")
	if _, err := os.ReadFile(u.path("file")); err == nil {
		t.Error("read without blocks")
	}
	if _, err := os.OpenFile(u.path("file"), os.O_WRONLY, 0); err == nil || err.(*os.PathError).Err != syscall.EIO {
		t.Errorf("opened for writing: %v", err)
	}
	u.tell("find")
	eventually(t, "the file can be read", func() bool {
		data, err := os.ReadFile(u.path("file"))
		return err == nil && bytes.Equal(data, want)
	})
	eventually(t, "the file can be written", func() bool {
		f, err := os.OpenFile(u.path("file"), os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err == nil
	})
	checkFile(t, u.staged("file"), want)
}
