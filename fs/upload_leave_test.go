package fs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// expectLeft expects exactly these files to have been told of as leaving, so many of which could be kept.
func (u *uploaded) expectLeft(t *testing.T, what string, keepable int, want ...string) {
	t.Helper()
	got := u.told()
	if !slices.Equal(paths(got.Leaving), want) || got.Keepable != keepable {
		t.Errorf("%s: told that %q leave, %d to be kept; want %q, %d", what, paths(got.Leaving), got.Keepable, want, keepable)
	}
	u.ok("clear")
}

// TestUploadLeaving takes names and bytes away in every way. Uploads is told before that of last names and bytes only.
func TestUploadLeaving(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		fresh := func(names ...string) {
			t.Helper()
			for _, name := range names {
				write(t, u.path(name), "text of "+name)
			}
			u.ok("settle")
			u.ok("clear")
		}
		fresh("a", "b", "c", "d", "e")
		sh(t, `ln "$1/a" "$1/link"; rm "$1/a"; mv "$1/link" "$1/a"`, u.dir)
		u.expectLeft(t, "one of two names", 0)
		sh(t, `rm "$1/a"`, u.dir)
		u.expectLeft(t, "the last name", 1, "a")
		sh(t, `mv "$1/b" "$1/c"`, u.dir)
		u.expectLeft(t, "renamed over another", 1, "c")
		if err := unix.Renameat2(unix.AT_FDCWD, u.path("c"), unix.AT_FDCWD, u.path("d"), unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
		u.expectLeft(t, "changed places", 0)
		f := openAs(t, u.path("e"), os.O_RDONLY)
		sh(t, `rm "$1/e"`, u.dir)
		u.expectLeft(t, "open for reading", 0, "e")
		f.Close()
		fresh("f")
		u.evictOK(t, "f")
		if left := u.told().Leaving; len(left) == 0 || left[0].Path != "f" {
			t.Errorf("evicted: %v", left)
		}
		u.expectInStep(t)
	})
}

// TestUploadLeavingRefused has Uploads fail: names and bytes stay.
func TestUploadLeavingRefused(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	write(t, u.path("file"), "text")
	write(t, u.path("other"), "text of the other")
	u.ok("settle")
	u.ok("block", "on")
	for what, err := range map[string]error{
		"remove": os.Remove(u.path("file")),
		"rename": os.Rename(u.path("other"), u.path("file")),
	} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if answer := u.tell("evict", "file"); answer == "ok" {
		t.Error("evicted")
	}
	checkFile(t, u.path("file"), []byte("text"))
	checkFile(t, u.staged("file"), []byte("text"))
	u.ok("block", "off")
	if err := os.Rename(u.path("other"), u.path("file")); err != nil {
		t.Error(err)
	}
	u.expectInStep(t)
}

// TestUploadKept keeps the inode of a file whose last name goes. Its room in staging is free all the same.
func TestUploadKept(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		kept := filepath.Join(filepath.Dir(u.staged("")), "kept-"+filepath.Base(u.staged("")))
		t.Cleanup(func() { os.Remove(kept) })
		write(t, u.path("file"), "text")
		u.ok("settle")
		u.ok("keep", kept)
		if err := os.Remove(u.path("file")); err != nil {
			t.Fatal(err)
		}
		checkFile(t, kept, []byte("text"))
		write(t, u.path("file"), "other text")
		checkFile(t, kept, []byte("text"))
		checkFile(t, u.path("file"), []byte("other text"))
		var st unix.Stat_t
		if err := unix.Stat(kept, &st); err != nil || st.Nlink != 1 {
			t.Errorf("what was kept has %d names, %v", st.Nlink, err)
		}
		u.expectInStep(t)
	})
}

// TestUploadKeptAndGivenUp has a removal give up while its file is being kept, before that or after. The file is all the
// tree's again, and the next removal is told as that of the last name.
func TestUploadKeptAndGivenUp(t *testing.T) {
	for name, ends := range map[string][2]string{"before it is kept": {"hold", "letgo"}, "once it is kept": {"linger", "lingered"}} {
		t.Run(name, func(t *testing.T) {
			u := mountUpload(t, uploadSpec{Timeout: 200 * time.Millisecond, Quota: 8 << 20})
			kept := filepath.Join(filepath.Dir(u.staged("")), "kept-"+filepath.Base(u.staged("")))
			t.Cleanup(func() { os.Remove(kept) })
			write(t, u.path("file"), string(make([]byte, 5<<20)))
			u.ok("settle")
			u.ok("keep", kept)
			u.ok(ends[0])
			if err := os.Remove(u.path("file")); !errors.Is(err, syscall.EIO) {
				t.Errorf("removed in spite of all: %v", err)
			}
			u.ok(ends[1])
			eventually(t, "it has one name", func() bool {
				var st unix.Stat_t
				told := u.told()
				return unix.Stat(u.staged("file"), &st) == nil && st.Nlink == 1 && len(told.Leaving) == 1
			})
			u.ok("clear")
			if err := os.Remove(u.path("file")); err != nil {
				t.Fatal(err)
			}
			checkFile(t, kept, make([]byte, 5<<20))
			if told := u.told().Changes; len(told) != 1 || told[0].Kind != Removed || !told[0].Last {
				t.Errorf("told %+v; want that the last name went", told)
			}
			write(t, u.path("other"), string(make([]byte, 5<<20)))
			u.expectInStep(t)
		})
	}
}

// TestUploadOpenedTakesLong has a copy take longer than a request may. Who gave up finds the file open to writers later.
func TestUploadOpenedTakesLong(t *testing.T) {
	u := mountUpload(t, uploadSpec{Timeout: 200 * time.Millisecond})
	write(t, u.path("file"), "text")
	u.ok("settle")
	u.ok("clear")
	u.ok("hold")
	for what, try := range map[string]func() error{
		"open":     func() error { return openErr(u.path("file"), os.O_WRONLY) },
		"empty":    func() error { return openErr(u.path("file"), os.O_WRONLY|os.O_TRUNC) },
		"truncate": func() error { return os.Truncate(u.path("file"), 2) },
		"unlink":   func() error { return os.Remove(u.path("file")) },
	} {
		if err := try(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	checkFile(t, u.path("file"), []byte("text"))
	u.ok("lease", "file", "5s") // nobody writes
	u.ok("unlease", "file")
	u.ok("letgo")
	eventually(t, "the file can be written", func() bool { return openErr(u.path("file"), os.O_RDWR) == nil })
	if opened, left := len(u.told().Opened), len(u.told().Leaving); opened+left > 2 {
		t.Errorf("told %d times of writers, %d times that it leaves: they were one after the other", opened, left)
	}
	u.ok("settle")
	u.expectInStep(t)
}

func openErr(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// TestUploadOpenedEndsWithMount has a mount end while a copy goes on.
func TestUploadOpenedEndsWithMount(t *testing.T) {
	u := mountUpload(t, uploadSpec{Timeout: 200 * time.Millisecond})
	write(t, u.path("file"), "text")
	u.ok("settle")
	u.ok("hold")
	if err := openErr(u.path("file"), os.O_WRONLY); !errors.Is(err, syscall.EIO) {
		t.Errorf("open: %v", err)
	}
	u.ok("unmount")
}

// TestUploadLeaseWhileLeaving asks for a lease while the last name is about to go.
func TestUploadLeaseWhileLeaving(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	write(t, u.path("file"), "text")
	u.ok("settle")
	u.ok("lease", "file", "5s")
	u.ok("hold")
	removed := make(chan error, 1)
	go func() { removed <- os.Remove(u.path("file")) }()
	eventually(t, "the lease is broken", func() bool { return u.tell("broken", "file") == "true" })
	u.ok("unlease", "file")
	if answer := u.tell("lease", "file", "50ms"); answer == "ok" {
		t.Error("a lease was given on what is about to go")
	}
	u.ok("letgo")
	if err := <-removed; err != nil {
		t.Error(err)
	}
	u.expectInStep(t)
}
