package fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func splitLines(s string) []string {
	return slices.DeleteFunc(strings.Split(s, "\n"), func(line string) bool { return line == "" })
}

// TestUploadRestart ends the mount in good order and starts again: the tree is there, and nothing is reported twice.
func TestUploadRestart(t *testing.T) {
	u := mountUpload(t, uploadSpec{Records: filepath.Join(t.TempDir(), "records")})
	sh(t, `cd "$1" && mkdir -p a/b && echo one >a/b/one && echo two >two && ln two a/three && ln -s two link && mkfifo pipe && chmod 700 a &&
		mv a z && echo more >>z/b/one && mv two four`, u.dir)
	before := sh(t, `cd "$1" && find . -printf '%p %i %m %s %n %l %T@\n' | sort`, u.dir)
	u.ok("unmount")
	u.kill()
	v := u.again()
	if told := v.settledTold(); len(told.Closed) != 0 || told.Scanned != 1 || len(told.Found) != 2 {
		t.Errorf("closed %q, found %q", paths(told.Closed), paths(told.Found))
	}
	if after := sh(t, `cd "$1" && find . -printf '%p %i %m %s %n %l %T@\n' | sort`, u.dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestUploadKilled kills the process in the middle of everything. What differs from its record is reported.
func TestUploadKilled(t *testing.T) {
	u := mountUpload(t, uploadSpec{Records: filepath.Join(t.TempDir(), "records"), TempWait: 1 << 50})
	for _, name := range []string{"same", "rewritten", "renamed", "evicted", "removed"} {
		write(t, u.path(name), "text of "+name)
	}
	u.ok("settle")
	u.evictOK(t, "evicted")
	if err := os.Mkdir(u.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	open := openAs(t, u.path("open"), os.O_CREATE|os.O_WRONLY)
	open.WriteString("half")
	late := openAs(t, u.path("late"), os.O_CREATE|os.O_WRONLY)
	late.WriteString("half")
	gone := openAs(t, u.path("removed"), os.O_RDWR)
	os.Remove(gone.Name())
	fd, err := unix.Open(u.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	unix.Write(fd, []byte("nameless"))
	u.ok("refuse", "on") // reports are lost from here on
	write(t, u.path("rewritten"), "another text")
	write(t, u.path(".new.Ab3dEf"), "renamed in staging later")
	if err := os.Rename(u.path("renamed"), u.path("dir/renamed")); err != nil {
		t.Fatal(err)
	}
	u.kill()
	open.Close()
	gone.Close()
	write(t, u.staged("foreign"), "somebody put it there")
	sh(t, `cp --preserve=all "$1" "$2"`, u.staged("same"), u.staged("twin"))

	v := u.again()
	told := v.settledTold()
	// Of two files with one ID the first found keeps it, and the other counts as new.
	got := slices.DeleteFunc(paths(told.Closed), func(path string) bool { return path == "same" || path == "late" })
	slices.Sort(got)
	// The change time of what was renamed was told of with the rename.
	if want := []string{"foreign", "open", "rewritten", "twin"}; !slices.Equal(got, want) {
		t.Errorf("reported %q, want %q", got, want)
	}
	found := paths(told.Found)
	slices.Sort(found)
	if want := []string{".new.Ab3dEf", "dir/renamed", "evicted", "foreign", "late", "open", "rewritten", "same", "twin"}; !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
	ids := make(map[FileID]string)
	for _, f := range told.Found {
		if other, twice := ids[f.ID]; twice {
			t.Errorf("%s and %s have one ID", f.Path, other)
		}
		ids[f.ID] = f.Path
	}
	// Who had a file open in passthrough may go on writing to it without any mount.
	late.WriteString(" and more")
	late.Close()
	size := int64(len(must(os.ReadFile(u.staged("late")))))
	eventually(t, "the last version is reported", func() bool {
		return slices.ContainsFunc(v.settledTold().Closed, func(f File) bool { return f.Path == "late" && f.Version.Bytes == size })
	})
	if err := os.Rename(v.path(".new.Ab3dEf"), v.path("new")); err != nil {
		t.Fatal(err)
	}
	if told := v.settledTold(); told.Closed[len(told.Closed)-1].Path != "new" {
		t.Errorf("reported %q", paths(told.Closed))
	}
}

// TestUploadKilledEvicting finds files whose eviction, or the way back, was cut short.
func TestUploadKilledEvicting(t *testing.T) {
	u := mountUpload(t, uploadSpec{Records: filepath.Join(t.TempDir(), "records")})
	write(t, u.path("file"), "0123456789")
	u.ok("settle")
	before, err := os.Stat(u.path("file"))
	if err != nil {
		t.Fatal(err)
	}
	u.evictOK(t, "file")
	u.kill()
	// As it is before the bytes are taken: the mark says that they may be there, and whose time it was.
	mark := make([]byte, 256)
	n, err := unix.Getxattr(u.staged("file"), xattrStub, mark)
	if err != nil {
		t.Fatal(err)
	}
	write(t, u.staged("file"), "01234")
	mark[0] = 0
	if err := unix.Setxattr(u.staged("file"), xattrStub, mark[:n], 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(u.staged("file"), 10); err != nil {
		t.Fatal(err)
	}
	v := u.again()
	if after, err := os.Stat(v.path("file")); err != nil || after.Size() != 10 || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("%v, %v", after, err)
	}
	if data, err := os.ReadFile(v.staged("file")); err != nil || strings.Trim(string(data), "\x00") != "" {
		t.Errorf("staging has %q, %v", data, err)
	}
	if told := v.settledTold(); len(told.Closed) != 0 {
		t.Errorf("reported %q", paths(told.Closed))
	}
}

// TestUploadKilledWriting kills the process while programs write through it, again and again.
func TestUploadKilledWriting(t *testing.T) {
	u := mountUpload(t, uploadSpec{Records: filepath.Join(t.TempDir(), "records")})
	for round := range 3 {
		cmd := exec.Command("sh", "-c", fmt.Sprintf(`cd "$1" && i=0; while :; do i=$((i+1)); mkdir d%d.$i && echo $i >d%d.$i/a && mv d%d.$i/a d%d.$i/b && echo x >>d%d.$i/b || exit; done`,
			round, round, round, round, round), "sh", u.dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "files are written", func() bool { return len(u.told().Closed) > 20 })
		u.kill()
		ends(t, cmd)
		u = u.again()
		want := splitLines(sh(t, `cd "$1" && find * -type f | sort`, u.spec.Staging))
		found := paths(u.settledTold().Found)
		slices.Sort(found)
		if !slices.Equal(found, want) {
			t.Errorf("round %d: found %d files of %d", round, len(found), len(want))
		}
	}
	u.ok("unmount")
	u.kill()
	u = u.again()
	if told := u.settledTold(); len(told.Closed) != 0 {
		t.Errorf("reported again: %q", paths(told.Closed))
	}
	u.expectInStep(t)
}

// TestUploadRefusesStaging gives directories that can't be staging directories.
func TestUploadRefusesStaging(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for _, c := range []struct{ staging, dir string }{
		{u.spec.Staging, t.TempDir()},               // another mount has it
		{filepath.Dir(file) + "/none", t.TempDir()}, // is not there
		{file, t.TempDir()},                         // no directory
		{t.TempDir(), file},                         // no mount point
		{"/proc/self", t.TempDir()},                 // no attributes
	} {
		if s, line := startChild(t, childSpec{Dir: c.dir, Upload: &uploadSpec{Staging: c.staging}}); s.root.Defined() {
			t.Errorf("%s on %s: %s", c.staging, c.dir, line)
		}
	}
	dir := t.TempDir()
	if s, line := startChild(t, childSpec{Dir: dir, Upload: &uploadSpec{Staging: dir}}); s.root.Defined() {
		t.Errorf("staging on itself: %s", line)
	}
	if _, err := os.Stat(u.dir); err != nil && err.(*os.PathError).Err == syscall.ENOTCONN {
		t.Error("the mount has died of it")
	}
}
