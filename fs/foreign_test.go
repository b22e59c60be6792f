package fs

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mountForeign mounts something that is not ours at dir.
func mountForeign(t *testing.T, source, dir, fsType string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, dir, fsType, flags, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// TestUnmountTouchesNothingElse has something else mounted over a mount, and then in its place.
func TestUnmountTouchesNothingElse(t *testing.T) {
	if os.Geteuid() != 0 {
		return // only root mounts what is not ours
	}
	s := mountChild(t, childSpec{Tree: "mixed"})
	mountForeign(t, "foreign", s.dir, "tmpfs", 0)
	for _, verb := range []string{"unmount", "detach"} {
		if got := s.tell(verb); !strings.Contains(got, "mount is busy: foreign is mounted over it") {
			t.Errorf("%s under another mount: %s", verb, got)
		}
	}
	if err := Unmount(t.Context(), s.dir, true); err == nil || !strings.Contains(err.Error(), ErrNotMounted.Error()) {
		t.Errorf("unmount of the other one: %v", err)
	}
	if n := mountsAt(t, s.dir); n != 2 {
		t.Fatalf("%d mounts, want 2", n)
	}
	sh(t, `umount "$1" && cat "$1"/small && umount "$1"`, s.dir)
	s.tell("wait")
	mountForeign(t, "foreign", s.dir, "tmpfs", 0)
	for _, verb := range []string{"unmount", "detach"} {
		if got := s.tell(verb); got != "ok" {
			t.Errorf("%s of what is gone: %s", verb, got)
		}
	}
	if m, ok, _ := topMount(s.dir); !ok || m.fsType != "tmpfs" {
		t.Errorf("what came in its place is gone: %+v", m)
	}
}

// TestUnmountBoundElsewhere binds a mount to a second directory, where it lives on.
func TestUnmountBoundElsewhere(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	s, other := mountChild(t, childSpec{Tree: "mixed"}), t.TempDir()
	mountForeign(t, s.dir, other, "", unix.MS_BIND)
	if got := s.tell("unmount"); !strings.Contains(got, "mount is busy: it is mounted in another directory") {
		t.Errorf("unmount: %s", got)
	}
	if n := mountsAt(t, s.dir); n != 0 {
		t.Errorf("%d mounts at its own directory", n)
	}
	checkFile(t, other+"/sub/deep/file", []byte("deep down\n"))
	if err := unix.Unmount(other, 0); err != nil {
		t.Fatal(err)
	}
	s.tell("wait")
	if got := s.tell("unmount"); got != "ok" {
		t.Errorf("unmount of what is gone: %s", got)
	}
}

// TestMountWithoutProc mounts where there is no mount table to look at.
func TestMountWithoutProc(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	s := mountChild(t, childSpec{Tree: "mixed", NoProc: true})
	inside := `nsenter -m -t "$2" `
	pid := strconv.Itoa(s.cmd.Process.Pid)
	if got := sh(t, inside+`cat "$1"/sub/deep/file`, s.dir, pid); got != "deep down\n" {
		t.Errorf("read %q", got)
	}
	if got := s.tell("unmount"); got != "ok" {
		t.Errorf("unmount: %s", got)
	}
	s.tell("wait")
	if got := sh(t, inside+`ls -A "$1"`, s.dir, pid); got != "" {
		t.Errorf("still mounted: %s", got)
	}
}
