package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUploadNames makes, moves and removes names in the less usual ways, and looks at what Uploads is told.
func TestUploadNames(t *testing.T) {
	u := mountUpload(t, uploadSpec{AllowOther: true})
	p := u.path
	for _, name := range []string{"a", "b", "c"} {
		write(t, p(name), name)
	}
	sh(t, `mkdir -p "$1/d/e" && mkdir "$1/full" && echo x >"$1/full/x" && ln -s a "$1/l"`, u.dir)
	u.ok("settle")
	ids := make(map[string]FileID)
	for _, f := range u.told().Closed {
		ids[f.Path] = f.ID
	}
	u.ok("clear")
	rename := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, p(from), unix.AT_FDCWD, p(to), flags)
	}
	must0 := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	wantErrno(t, "rename without replacing", rename("a", "b", unix.RENAME_NOREPLACE), syscall.EEXIST)
	wantErrno(t, "exchange with nothing", rename("a", "none", unix.RENAME_EXCHANGE), syscall.ENOENT)
	wantErrno(t, "leave a whiteout", rename("a", "b", unix.RENAME_WHITEOUT), syscall.EINVAL)
	wantErrno(t, "rename over a full directory", rename("d", "full", 0), syscall.ENOTEMPTY)
	wantErrno(t, "rename into itself", rename("d", "d/e/f", 0), syscall.EINVAL)
	wantErrno(t, "unlink a directory", unix.Unlink(p("d")), syscall.EISDIR)
	wantErrno(t, "remove a full directory", unix.Rmdir(p("d")), syscall.ENOTEMPTY)
	wantErrno(t, "a long name", os.Mkdir(p(fmt.Sprintf("%0256d", 0)), 0o755), syscall.ENAMETOOLONG)
	if n := len(u.told().Changes); n != 0 {
		t.Errorf("%d changes are told of what failed", n)
	}
	must0("exchange", rename("a", "d", unix.RENAME_EXCHANGE))
	must0("move over", rename("b", "c", 0))
	must0("link", os.Link(p("c"), p("a/c2")))
	must0("rename one link over another", os.Rename(p("c"), p("a/c2")))
	must0("unlink", os.Remove(p("c")))
	must0("move", os.Rename(p("a/c2"), p("full/c")))
	must0("remove directory", os.Remove(p("a/e")))
	must0("unlink", os.Remove(p("full/c")))
	got := fmt.Sprint(changeTexts(u.settledTold().Changes))
	want := fmt.Sprint([]string{"swapped a d", "renamed b c", "made a/c2", "removed c", "renamed a/c2 full/c", "removed a/e last", "removed full/c last"})
	if got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
	if c := u.told().Changes; c[1].Replaced != ids["c"] || c[1].File.ID != ids["b"] || c[6].File.ID != ids["b"] {
		t.Errorf("IDs %v: %+v", ids, c)
	}
	u.expectInStep(t)
	sh(t, `cd "$1"; test "$(cat d)" = a; test "$(readlink l)" = a; test "$(ls -A)" = 'a
d
full
l'`, u.dir)
}

func changeTexts(changes []Change) (list []string) {
	kinds := map[ChangeKind]string{Made: "made", Removed: "removed", Renamed: "renamed", Swapped: "swapped", Altered: "altered"}
	for _, c := range changes {
		text := kinds[c.Kind] + " " + c.Path
		if c.To != "" {
			text += " " + c.To
		}
		if c.Last {
			text += " last"
		}
		list = append(list, text)
	}
	return list
}

// TestUploadOwners has another user work in the mount: what he makes is his, modes hold, and umasks are the callers'.
func TestUploadOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: files are given to other users")
	}
	u := mountUpload(t, uploadSpec{AllowOther: true})
	sh(t, `chmod 755 "$1" "$2" "$(dirname "$1")" "$(dirname "$2")"; cd "$1"; mkdir -m 1777 open; mkdir -m 2777 group; chgrp 33 group; mkdir -m 700 mine`, u.dir, u.spec.Staging)
	sh(t, `cd "$1"; setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec '
		umask 027; echo x >open/file; mkdir open/dir; echo x >group/file; mkdir group/dir; mkfifo open/pipe; ln -s x open/link
		(! echo x >mine/file) 2>/dev/null; (! chown 0 open/file) 2>/dev/null; chmod 600 open/file; touch -d @5 open/file'`, u.dir)
	got := sh(t, `cd "$1"; find open group ! -type l -printf '%p %U %G %m\n' | sort`, u.dir)
	want := `group 0 33 2777
group/dir 65534 33 2750
group/file 65534 33 640
open 0 0 1777
open/dir 65534 65534 750
open/file 65534 65534 600
open/pipe 65534 65534 640
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	sh(t, `cd "$1"; umask 0; cp /bin/true suid; chown 65534 suid; chmod 6777 suid; setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'echo x >>suid'; test "$(stat -c %a suid)" = 777
		chmod 6777 suid; setpriv --reuid 1000 --regid 1000 --clear-groups sh -c ': >suid'; test "$(stat -c %a suid)" = 777`, u.dir)
}

// TestUploadAttributes reads and sets extended attributes: ours, and others.
func TestUploadAttributes(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	write(t, u.path("file"), "text")
	u.ok("settle")
	sh(t, `mkdir "$1/dir"; ln -s file "$1/link"; mkfifo "$1/pipe"`, u.dir)
	get := func(path, attr string) string {
		t.Helper()
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(path, "user.holdfast."+attr, buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
	none := syscall.ENODATA.Error()
	for _, c := range []struct{ path, attr, want string }{
		{"file", "state", "uploading"}, {"file", "progress", "0/1"}, {"file", "error", none}, {"file", "cid", none},
		{"file", "id", none}, {"file", "stub", none}, {"file", "manifest", none},
		{"dir", "cid", fakeCID("directory dir").String()}, {"dir", "manifest", none}, {"dir", "state", none},
		{"", "cid", fakeCID("directory ").String()}, {"", "manifest", fakeCID("manifest").String()},
	} {
		if got := get(u.path(c.path), c.attr); got != c.want {
			t.Errorf("%s of %q: %q, want %q", c.attr, c.path, got, c.want)
		}
	}
	u.tell("uploaded", "file")
	for attr, want := range map[string]string{"state": "failed", "progress": "3/4", "error": "nobody has room", "cid": fakeCID("file").String()} {
		if got := get(u.path("file"), attr); got != want {
			t.Errorf("%s: %q, want %q", attr, got, want)
		}
	}
	for _, attr := range []string{"user.holdfast.cid", "user.holdfast.id", "user.holdfast.anything"} {
		wantErrno(t, "set "+attr, unix.Setxattr(u.path("file"), attr, []byte("x"), 0), syscall.EPERM)
		wantErrno(t, "remove "+attr, unix.Removexattr(u.path("file"), attr), syscall.EPERM)
	}
	wantErrno(t, "set another space's", unix.Setxattr(u.path("file"), "trusted.x", []byte("x"), 0), syscall.EOPNOTSUPP)
	if err := unix.Setxattr(u.path("file"), "user.mine", []byte("value"), unix.XATTR_CREATE); err != nil {
		t.Error(err)
	}
	wantErrno(t, "create again", unix.Setxattr(u.path("file"), "user.mine", []byte("value"), unix.XATTR_CREATE), syscall.EEXIST)
	list := make([]byte, 256)
	if n, err := unix.Listxattr(u.path("file"), list); err != nil || string(list[:n]) != "user.mine\x00" {
		t.Errorf("%q, %v", list[:n], err)
	}
	if n, err := unix.Llistxattr(u.path("link"), list); err != nil || n != 0 {
		t.Errorf("a link has attributes: %v", err)
	}
	u.expectClosed(t, "file") // once: attributes of users are not part of what is uploaded
	sh(t, `cp -a "$1" "$2"`, u.path("file"), u.path("copy"))
	if copies := u.expectClosedID(t, "copy"); copies == u.idOf(t, "file") {
		t.Error("a copy has the same ID")
	}
}

func (u *uploaded) idOf(t *testing.T, name string) (id FileID) {
	t.Helper()
	if n, err := unix.Getxattr(u.staged(name), xattrID, id[:]); err != nil || n != len(id) {
		t.Fatal(n, err)
	}
	return id
}

func (u *uploaded) expectClosedID(t *testing.T, name string) FileID {
	t.Helper()
	closed := u.settledTold().Closed
	if len(closed) == 0 || closed[len(closed)-1].Path != name {
		t.Fatalf("reported %q", paths(closed))
	}
	return closed[len(closed)-1].ID
}

// TestUploadLocks has two processes lock a file: by record, which a process's own descriptors share, and whole.
func TestUploadLocks(t *testing.T) {
	bothWays(t, func(t *testing.T, u *uploaded) {
		f := openAs(t, u.path("file"), os.O_CREATE|os.O_RDWR)
		lock := unix.Flock_t{Type: unix.F_WRLCK, Len: 10}
		if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
			t.Fatal(err)
		}
		other := openAs(t, u.path("file"), os.O_RDWR)
		if err := unix.FcntlFlock(other.Fd(), unix.F_SETLK, &lock); err != nil {
			t.Errorf("another descriptor of this process: %v", err)
		}
		ofd := unix.Flock_t{Type: unix.F_RDLCK, Start: 5, Len: 10}
		wantErrno(t, "a lock of the open file", unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &ofd), syscall.EAGAIN)
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Error(err)
		}
		wantErrno(t, "flock", unix.Flock(int(other.Fd()), unix.LOCK_SH|unix.LOCK_NB), syscall.EAGAIN)
		sh(t, `! flock -n "$1" true`, u.path("file"))
		other.Close() // record locks of the process go with any of its descriptors
		third := openAs(t, u.path("file"), os.O_RDWR)
		if err := unix.FcntlFlock(third.Fd(), unix.F_OFD_SETLK, &ofd); err != nil {
			t.Error(err)
		}
		f.Close()
		sh(t, `flock -n "$1" true`, u.path("file"))
	})
}

// TestUploadEscape has somebody put links to a directory outside in the place of staged ones, while programs use them.
func TestUploadEscape(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	sh(t, `mkdir -p "$1/d/e"; echo fine >"$1/d/secret"; echo fine >"$1/d/e/secret"`, u.dir)
	var stop atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		for !stop.Load() {
			os.Rename(u.staged("d"), u.staged("away"))
			os.Symlink(outside, u.staged("d"))
			os.Remove(u.staged("d"))
			os.Symlink(outside+"/secret", u.staged("away/s"))
			os.Rename(u.staged("away/s"), u.staged("away/secret"))
			os.WriteFile(u.staged("away/f"), []byte("fine\n"), 0o644)
			os.Rename(u.staged("away/f"), u.staged("away/secret"))
			os.Rename(u.staged("away"), u.staged("d"))
		}
	})
	for range 4 {
		all.Go(func() {
			dir, err := unix.Open(u.path("d"), unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
			defer unix.Close(dir)
			for !stop.Load() {
				if err != nil {
					dir, err = unix.Open(u.path("d"), unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
				}
				fd, err := unix.Openat(dir, "secret", unix.O_RDWR|unix.O_NOFOLLOW, 0)
				if err == nil {
					buf := make([]byte, 10)
					if n, err := unix.Pread(fd, buf, 0); err == nil && string(buf[:n]) != "fine\n" {
						t.Errorf("read %q", buf[:n])
					}
					unix.Close(fd)
				} else if errors.Is(err, syscall.EIO) {
					t.Error(err)
				}
				unix.Unlinkat(dir, "none", 0)
				unix.Mkdirat(dir, "made", 0o755)
				unix.Unlinkat(dir, "made", unix.AT_REMOVEDIR)
			}
		})
	}
	defer all.Wait()
	defer stop.Store(true)
	eventually(t, "programs have tried", func() bool { return u.stats().Opens > 300 })
	stop.Store(true)
	all.Wait()
	if left, _ := os.ReadDir(outside); len(left) != 1 {
		t.Errorf("outside has %v", left)
	}
	checkFile(t, filepath.Join(outside, "secret"), []byte("secret"))
}
