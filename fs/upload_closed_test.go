package fs

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bothWays runs a test on a mount whose files go through to staging, and on one whose files do not.
func bothWays(t *testing.T, test func(t *testing.T, u *uploaded)) {
	for name, through := range map[string]bool{"passthrough": true, "here": false} {
		t.Run(name, func(t *testing.T) { test(t, mountUpload(t, uploadSpec{NoPassthrough: !through})) })
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func openAs(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// expectClosed compares the reports since the last clear with paths, in any order.
func (u *uploaded) expectClosed(t *testing.T, want ...string) []File {
	t.Helper()
	closed := u.settledTold().Closed
	got := paths(closed)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("closed: %q, want %q", got, want)
	}
	for _, f := range closed {
		if st, err := os.Lstat(u.staged(f.Path)); err != nil || st.Size() != f.Version.Bytes || st.ModTime().UnixNano() != f.Version.ModTime {
			t.Errorf("%+v is not what lies in staging: %v", f, err)
		}
	}
	u.ok("clear")
	return closed
}

// TestUploadClosed has files written in every way that ends, or does not end, a version.
func TestUploadClosed(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		write(t, u.path("once"), "text")
		u.expectClosed(t, "once")
		if err := os.Chtimes(u.path("once"), time.Time{}, time.Unix(1000, 0)); err != nil {
			t.Fatal(err)
		}
		first := u.expectClosed(t, "once")
		eventually(t, "the clock ticks", func() bool { return time.Since(time.Unix(0, first[0].Version.ChangeTime)) > racyWindow })
		openAs(t, u.path("once"), os.O_RDWR).Close()
		openAs(t, u.path("once"), os.O_RDONLY).Close()
		u.expectClosed(t)

		write(t, u.path("once"), "more")
		again := u.expectClosed(t, "once")
		if again[0].ID != first[0].ID || again[0].Version == first[0].Version {
			t.Errorf("%+v, then %+v", first, again)
		}
		write(t, u.path("empty"), "")
		u.expectClosed(t, "empty")

		if err := unix.Mknod(u.path("node"), syscall.S_IFREG|0o644, 0); err != nil {
			t.Fatal(err)
		}
		u.expectClosed(t, "node")
		for _, size := range []int64{2, 0} {
			if err := os.Truncate(u.path("once"), size); err != nil {
				t.Fatal(err)
			}
			u.expectClosed(t, "once")
		}
		if err := os.Chmod(u.path("once"), 0o600); err != nil {
			t.Fatal(err)
		}
		u.expectClosed(t, "once")
	})
}

// TestUploadClosedShared has files that are open more than once.
func TestUploadClosedShared(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		// A descriptor handed to children is flushed as often as they end.
		sh(t, `exec 3>"$1"; for i in 1 2 3; do (echo $i >&3); done; sh -c 'echo 4 >&3'; exec 3>&-`, u.path("forked"))
		u.expectClosed(t, "forked")

		f := openAs(t, u.path("dup"), os.O_CREATE|os.O_WRONLY)
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("one")
		f.Close()
		u.expectClosed(t)
		unix.Write(fd, []byte("two"))
		unix.Close(fd)
		u.expectClosed(t, "dup")

		one, two := openAs(t, u.path("both"), os.O_CREATE|os.O_WRONLY), openAs(t, u.path("both"), os.O_WRONLY)
		one.WriteString("aaaa")
		one.Close()
		u.expectClosed(t)
		two.WriteString("bb")
		two.Close()
		u.expectClosed(t, "both")
	})
}

// TestUploadClosedMapped has a file written through a mapping after its descriptor was closed.
func TestUploadClosedMapped(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		path := u.path("mapped")
		write(t, path, "0123456789")
		u.expectClosed(t, "mapped")
		f := openAs(t, path, os.O_RDWR)
		mem, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		mem[3] = 'x'
		u.expectClosed(t)
		if answer := u.tell("lease", "mapped", "50ms"); answer == "ok" {
			t.Error("a lease on a file with a writable mapping")
		}
		mem[4] = 'y'
		if err := unix.Munmap(mem); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the file is reported", func() bool { return len(u.told().Closed) == 1 })
		u.expectClosed(t, "mapped")
		if data, _ := os.ReadFile(u.staged("mapped")); string(data) != "012xy56789" {
			t.Errorf("staged: %q", data)
		}
	})
}

// TestUploadFresh changes a file in ways that the kernel does not notice, and looks.
func TestUploadFresh(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		path := u.path("file")
		write(t, path, "0123456789")
		if err := os.Link(path, u.path("other")); err != nil {
			t.Fatal(err)
		}
		stat := func(name string) (st syscall.Stat_t) {
			t.Helper()
			if err := syscall.Lstat(u.path(name), &st); err != nil {
				t.Fatal(err)
			}
			return st
		}
		if a, b := stat("file"), stat("other"); a != b || a.Nlink != 2 {
			t.Errorf("%+v and %+v", a, b)
		}
		f := openAs(t, path, os.O_RDWR)
		mem, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		before := stat("other").Mtim
		eventually(t, "the time changes", func() bool {
			mem[0]++
			unix.Msync(mem, unix.MS_SYNC)
			return stat("other").Mtim != before
		})
		if data, _ := os.ReadFile(u.path("other")); data[0] != mem[0] {
			t.Errorf("the other name has %q", data)
		}
		unix.Munmap(mem)
		f.Close()
		write(t, path, "longer than before")
		if stat("other").Size != 18 {
			t.Error("the other name has another size")
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if stat("other").Nlink != 1 {
			t.Error("the link count is stale")
		}
	})
}

// TestUploadTemporary has editors and copying tools do what they do before they rename.
func TestUploadTemporary(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	for _, name := range []string{".text.swp", ".text.Ab3dEf", "4913", "text~"} {
		write(t, u.path(name), "not yet")
	}
	write(t, u.path(".my.config"), "a word")
	u.expectClosed(t, ".my.config")
	if err := os.Rename(u.path(".text.Ab3dEf"), u.path("text")); err != nil {
		t.Fatal(err)
	}
	u.expectClosed(t, "text")
	os.Remove(u.path("4913"))
	os.Remove(u.path(".text.swp"))
	f := openAs(t, u.path(".open.Ab3dEf"), os.O_CREATE|os.O_WRONLY)
	if err := os.Rename(u.path(".open.Ab3dEf"), u.path("open")); err != nil {
		t.Fatal(err)
	}
	u.expectClosed(t)
	f.Close()
	u.expectClosed(t, "open")
	if err := unix.Renameat2(unix.AT_FDCWD, u.path("text~"), unix.AT_FDCWD, u.path("open"), unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	u.expectClosed(t, "open")

	short := mountUpload(t, uploadSpec{TempWait: 100 * time.Millisecond, TempNames: []string{"*.part"}})
	write(t, short.path("film.part"), "never renamed")
	write(t, short.path("text~"), "an ordinary name here")
	eventually(t, "both are reported", func() bool { return len(short.told().Closed) == 2 })
}

// TestUploadLooksTemporary gives names of editors and copying tools to what has not been made under them, and ends the wait
// of what was.
func TestUploadLooksTemporary(t *testing.T) {
	u := mountUpload(t, uploadSpec{Records: filepath.Join(t.TempDir(), "records"), TempWait: 1 << 50})
	write(t, u.path("notes"), "text")
	write(t, u.path("linked"), "text")
	u.expectClosed(t, "notes", "linked")
	half := openAs(t, u.path("half"), os.O_CREATE|os.O_WRONLY)
	for from, to := range map[string]string{"notes": ".env.Sample", "half": "half~"} {
		if err := os.Rename(u.path(from), u.path(to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(u.path("linked"), u.path("linked~")); err != nil {
		t.Fatal(err)
	}
	u.ok("settle")
	u.ok("clear") // of what was just written nobody knows whether it is what was told
	half.WriteString("text")
	half.Close()
	write(t, u.path(".env.Sample"), "another version")
	u.expectClosed(t, "half~", ".env.Sample")
	u.expectInStep(t)

	// One more name, or another such, ends the wait; all names count then.
	for _, name := range []string{"one~", "two~", "three~", "four~", "five~"} {
		write(t, u.path(name), "waits")
	}
	u.expectClosed(t)
	if err := os.Link(u.path("one~"), u.path("uno~")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(u.path("two~"), u.path("due~")); err != nil {
		t.Fatal(err)
	}
	if told := u.told(); !slices.ContainsFunc(told.Changes, func(c Change) bool { return c.Kind == Made && c.Path == "uno~" && c.File.Version != Version{} }) {
		t.Errorf("the link was not told of with its file: %+v", told.Changes)
	}
	u.expectClosed(t, "one~", "due~")
	u.expectInStep(t)

	// What is told of stays so over a restart; what waits is told of when the mount ends, or somebody says so.
	os.Remove(u.path("three~"))
	u.ok("endwaits")
	u.expectClosed(t, "four~", "five~")
	write(t, u.path("late~"), "waits")
	u.expectClosed(t)
	u.ok("unmount")
	if told := u.told(); !slices.Equal(paths(told.Closed), []string{"late~"}) {
		t.Errorf("closed: %q", paths(told.Closed))
	}
	u.kill()
	v := u.again()
	write(t, v.path("due~"), "another version")
	v.expectClosed(t, "due~")
}

// TestUploadNameless has files without names written: nobody is told, until they get one.
func TestUploadNameless(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		f := openAs(t, u.path("gone"), os.O_CREATE|os.O_RDWR)
		f.WriteString("one")
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
		f.WriteString("two")
		got := make([]byte, 6)
		if _, err := f.ReadAt(got, 0); err != nil || string(got) != "onetwo" {
			t.Errorf("%q, %v", got, err)
		}
		if st, err := f.Stat(); err != nil || st.Size() != 6 || st.Sys().(*syscall.Stat_t).Nlink != 0 {
			t.Errorf("%+v, %v", st, err)
		}
		if err := f.Truncate(3); err != nil {
			t.Error(err)
		}
		if err := f.Chmod(0o600); err != nil {
			t.Error(err)
		}
		f.Close()
		fd, err := unix.Open(u.dir, unix.O_TMPFILE|unix.O_RDWR, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		unix.Write(fd, []byte("named late"))
		u.expectClosed(t)
		if err := unix.Linkat(unix.AT_FDCWD, procPath(fd), unix.AT_FDCWD, u.path("late"), unix.AT_SYMLINK_FOLLOW); err != nil {
			t.Fatal(err)
		}
		u.expectClosed(t)
		unix.Close(fd)
		u.expectClosed(t, "late")
		if st, err := os.Stat(u.path("late")); err != nil || st.Mode() != 0o640 {
			t.Errorf("%v, %v", st, err)
		}
		if fd, err = unix.Open(u.dir, unix.O_TMPFILE|unix.O_RDWR, 0o640); err != nil {
			t.Fatal(err)
		}
		unix.Write(fd, []byte("never named"))
		unix.Close(fd)
		u.expectClosed(t)
		if left, _ := filepath.Glob(u.staged("*")); len(left) != 1 {
			t.Errorf("staging has %v", left)
		}
	})
}

// TestUploadRefused has Uploads fail: a report is made again, and nobody writes what can't be copied first.
func TestUploadRefused(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	u.ok("refuse", "on")
	write(t, u.path("file"), "text")
	u.ok("refuse", "off")
	eventually(t, "the file is reported", func() bool { return len(u.told().Closed) == 1 })
	u.ok("block", "on")
	if _, err := os.OpenFile(u.path("file"), os.O_WRONLY, 0); err == nil || err.(*os.PathError).Err != syscall.EIO {
		t.Errorf("opened for writing: %v", err)
	}
	if err := os.Truncate(u.path("file"), 0); err == nil {
		t.Error("truncated")
	}
	u.ok("block", "off")
	write(t, u.path("file"), "other text")
}
