package fs

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// forNobody gives an ordinary user a copy of this program and an empty directory.
func forNobody(t *testing.T) (program, dir string) {
	t.Helper()
	home := t.TempDir()
	program, dir = filepath.Join(home, "program"), filepath.Join(home, "mnt")
	in, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(filepath.Dir(home), 0o755), os.Chmod(home, 0o755), os.Mkdir(dir, 0o755), os.Chown(dir, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return program, dir
}

// TestMountAsOrdinaryUser mounts through fusermount3. Who runs the tests without being root is tested by all others.
func TestMountAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	program, dir := forNobody(t)
	device, err := os.Stat("/dev/fuse")
	if err != nil {
		t.Fatal(err)
	}
	if device.Mode().Perm()&0o006 != 0o006 {
		_, line := startChild(t, childSpec{Tree: "mixed", Dir: dir, Program: program})
		if line != "error mount "+dir+": failed to open /dev/fuse: Permission denied" {
			t.Errorf("a device that users may not open: %q", line)
		}
		return
	}
	s := mountChild(t, childSpec{Tree: "mixed", Dir: dir, Program: program})
	// Nobody else gets in, root neither.
	if _, err := os.ReadFile(s.path("small")); err == nil {
		t.Error("root reads a user's mount")
	}
	s.says("passthrough is off")
	m, ok, err := topMount(dir)
	if err != nil || !ok || !m.ours() || m.source != "holdfast:"+s.root.String() {
		t.Errorf("mount table: %+v, %v", m, err)
	}
	as := `setpriv --reuid=65534 --regid=65534 --clear-groups `
	if got := sh(t, as+`cat "$1"/small "$1"/sub/deep/file`, dir); got != "small\ndeep down\n" {
		t.Errorf("read %q", got)
	}
	if got := sh(t, as+`stat -c '%u %g %A' "$1"/small`, dir); got != "65534 65534 -r--r--r--\n" {
		t.Errorf("stat says %q", got)
	}
	if got := s.tell("unmount"); got != "ok" {
		t.Errorf("unmount: %s", got)
	}
	s.tell("wait")
	dead := mountChild(t, childSpec{Tree: "mixed", Dir: dir, Program: program})
	dead.cmd.Process.Kill()
	dead.cmd.Wait()
	again := mountChild(t, childSpec{Tree: "mixed", Dir: dir, Program: program})
	if n := mountsAt(t, dir); n != 1 {
		t.Errorf("%d mounts at %s", n, dir)
	}
	again.tell("unmount")
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, line := startChild(t, childSpec{Tree: "mixed", Dir: dir, Program: program})
	if !strings.HasPrefix(line, "error mount "+dir+": ") || strings.Contains(line, " / ") {
		t.Errorf("a directory of somebody else's: %q", line)
	}
}

func TestMountNeedsDeviceAndHelper(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	_, err := openDevice(ctx, mountRequest{dir: dir, device: filepath.Join(dir, "fuse")})
	if err == nil || !strings.Contains(err.Error(), "no "+dir+"/fuse") {
		t.Errorf("without the device: %v", err)
	}
	_, err = mountHelper(ctx, mountRequest{dir: dir, helpers: []string{"fusermount-that-is-not-there"}})
	if err == nil || !strings.Contains(err.Error(), "no fusermount3") {
		t.Errorf("without the helper: %v", err)
	}
}

// TestHelperStoppedHalfway ends the wait for a helper that has mounted and does not come to its end.
func TestHelperStoppedHalfway(t *testing.T) {
	dir, helper := t.TempDir(), filepath.Join(t.TempDir(), "helper")
	script := "#!/bin/sh\nfusermount3 \"$@\" && exec tail -f /dev/null\n"
	if err := os.WriteFile(helper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := mountHelper(ctx, mountRequest{dir: dir, fsName: "x", helpers: []string{helper}})
		done <- err
	}()
	eventually(t, "the helper has mounted", func() bool { return mountsAt(t, dir) == 1 })
	cancel()
	if err := <-done; err == nil {
		t.Error("a mount without its device")
	}
	if n := mountsAt(t, dir); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}

func TestMountTable(t *testing.T) {
	table, err := parseMountTable(strings.NewReader(
		"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n" +
			`40 35 0:52 / /home/a\040b ro,nosuid - fuse.holdfast holdfast:bafy\134x ro` + "\n" +
			"garbage\n41 35 0:53 / /x ro shared:7 propagate_from:2 - fuse.other y ro\n" +
			"42 35 0:54 / /a\u00a0b\vc ro - fuse.holdfast a\\043b\\8\\04 ro\n"))
	if err != nil || len(table) != 4 {
		t.Fatalf("%+v, %v", table, err)
	}
	if m := table[1]; !m.ours() || m.dir != "/home/a b" || m.device != "0:52" || m.source != `holdfast:bafy\x` {
		t.Errorf("%+v", m)
	}
	if m := table[3]; !m.ours() || m.dir != "/a\u00a0b\vc" || m.source != `a#b\8\04` {
		t.Errorf("%+v", m)
	}
	if table[0].ours() || table[2].ours() {
		t.Error("other file systems count as ours")
	}
}

// TestMountPointWithBlanks mounts where the mount table has to escape the name.
func TestMountPointWithBlanks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b\t\\c\u00a0\n\u3000#")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := mountChild(t, childSpec{Tree: "mixed", Dir: dir})
	checkFile(t, s.path("small"), []byte("small\n"))
	s.cmd.Process.Kill()
	s.cmd.Wait()
	again := mountChild(t, childSpec{Tree: "mixed", Dir: dir})
	if n := mountsAt(t, dir); n != 1 {
		t.Errorf("%d mounts", n)
	}
	again.tell("unmount")
	if err := unix.Rmdir(dir); err != nil {
		t.Error(err)
	}
}
