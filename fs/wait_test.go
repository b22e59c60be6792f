package fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patient is a timeout that no test waits for.
const patient = 10 * time.Minute

// waitingChild mounts a tree of which nothing but the root comes, ever, until the child is told otherwise.
func waitingChild(t *testing.T, timeout time.Duration) *served {
	t.Helper()
	s := mountChild(t, childSpec{Tree: "mixed", Timeout: timeout})
	sh(t, `ls -lR "$1"`, s.dir)
	s.tell("loseall")
	return s
}

func TestSignalEndsWaitingRead(t *testing.T) {
	s := waitingChild(t, patient)
	for _, args := range [][]string{{"cat", s.path("big")}, {"cat", s.path("small")}, {"head", "-c1", s.path("big")}} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			cmd := exec.Command(args[0], args[1:]...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the reader waits", func() bool { return s.number("waiters") > 0 })
			cmd.Process.Signal(sig)
			if err := ends(t, cmd); err == nil {
				t.Errorf("%v succeeded after %v", args, sig)
			}
		}
	}
	s.tell("find")
	checkFile(t, s.path("small"), []byte("small\n"))
}

// TestHarmlessSignals has a reader get signals it handles, all the time, while it waits for blocks. Its system calls
// are raw: no library hides an EINTR.
func TestHarmlessSignals(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed", Away: true, Delay: 300 * time.Millisecond, Timeout: patient})
	stop := make(chan struct{})
	var pester sync.WaitGroup
	tids := make(chan int, 1)
	defer pester.Wait()
	defer close(stop)
	pester.Go(func() {
		tid := <-tids
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				unix.Tgkill(os.Getpid(), tid, syscall.SIGURG)
			}
		}
	})
	done := make(chan error, 1)
	go func() { done <- rawRead(tids, s.path("sub", "deep", "file")) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(hangGuard):
		t.Fatal("the reader hangs")
	}
}

// rawRead stats, opens and reads path on a thread of its own, whose ID it sends first.
func rawRead(tids chan<- int, path string) error {
	tids <- lockThread()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer syscall.Close(fd)
	buf := make([]byte, 100)
	if n, err := syscall.Read(fd, buf); err != nil || string(buf[:n]) != "deep down\n" {
		return fmt.Errorf("read %q: %w", buf[:max(n, 0)], err)
	}
	return nil
}

func TestLostBlockTimesOut(t *testing.T) {
	s := waitingChild(t, time.Second)
	for _, name := range []string{"big", "small", "sub/deep/file"} {
		_, err := os.ReadFile(s.path(name))
		wantErrno(t, "read "+name, err, syscall.EIO)
	}
	// What is known is answered all the same.
	sh(t, `ls -lR "$1" && stat -f "$1" && readlink "$1"/link`, s.dir)
	for _, word := range []string{"read failed", "path=/small", "block=", "nobody has"} {
		s.says(word)
	}
	s.tell("find")
	eventually(t, "blocks that are back are read", func() bool {
		_, err := os.ReadFile(s.path("small"))
		return err == nil
	})
	checkFile(t, s.path("big"), random(bigBytes, 1))
}

func TestLostDirectoryTimesOut(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed", Timeout: time.Second})
	s.tell("loseall")
	_, err := os.ReadDir(s.path("sub"))
	wantErrno(t, "list a directory nobody has", err, syscall.EIO)
	_, err = os.Stat(s.path("nothing"))
	wantErrno(t, "a name that the root does not have", err, syscall.ENOENT)
	// The names that the root holds are listed though nothing is known of them.
	if got := sh(t, `ls -U -A --color=never "$1" | wc -l`, s.dir); strings.TrimSpace(got) != "8" {
		t.Errorf("listed %s", got)
	}
}

func TestUnmountWhileReadsWait(t *testing.T) {
	s := waitingChild(t, patient)
	var readers []*exec.Cmd
	for _, name := range []string{"big", "small", "sub/deep/file"} {
		cmd := exec.Command("cat", s.path(name))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, cmd)
	}
	eventually(t, "the readers wait", func() bool { return s.number("waiters") >= 3 })
	if got := s.tell("unmount"); got != "ok" {
		t.Errorf("unmount: %s", got)
	}
	for _, cmd := range readers {
		if err := ends(t, cmd); err == nil {
			t.Errorf("%v succeeded", cmd.Args)
		}
	}
	s.tell("wait")
	if _, ok, _ := topMount(s.dir); ok {
		t.Error("still mounted")
	}
	eventually(t, "all goroutines of the mount end", func() bool { return s.number("goroutines") <= 2 })
}

func TestUnmountBusy(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	f, err := os.Open(s.path("small"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := s.tell("unmount"); !strings.Contains(got, "mount is busy") || !strings.Contains(got, fmt.Sprint(os.Getpid())) {
		t.Errorf("unmount: %s", got)
	}
	checkFile(t, s.path("sub", "deep", "file"), []byte("deep down\n"))
	if got := s.tell("detach"); got != "ok" {
		t.Errorf("detach: %s", got)
	}
	if _, ok, _ := topMount(s.dir); ok {
		t.Error("still mounted")
	}
	buf := make([]byte, 6)
	if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "small\n" {
		t.Errorf("the open file reads %q, %v", buf, err)
	}
	f.Close()
	s.tell("wait")
}

func TestUnmountFromOutside(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	sh(t, `cat "$1"/small && fusermount3 -u "$1"`, s.dir)
	s.tell("wait")
	eventually(t, "all goroutines of the mount end", func() bool { return s.number("goroutines") <= 2 })
	if got := s.tell("unmount"); got != "ok" {
		t.Errorf("unmount of what is gone: %s", got)
	}
}

// TestAbort ends the connection from the kernel's side while reads wait.
func TestAbort(t *testing.T) {
	s := waitingChild(t, patient)
	cmd := exec.Command("cat", s.path("sub", "deep", "file"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reader waits", func() bool { return s.number("waiters") > 0 })
	sh(t, `umount --force "$1" || true`, s.dir)
	if err := ends(t, cmd); err == nil {
		t.Error("cat succeeded")
	}
	s.tell("wait")
	eventually(t, "all goroutines of the mount end", func() bool { return s.number("goroutines") <= 2 })
}

// TestRemountAfterKill kills the serving process under load, again and again.
func TestRemountAfterKill(t *testing.T) {
	dir := t.TempDir()
	for round := range 20 {
		s := mountChild(t, childSpec{Tree: "mixed", Dir: dir, Away: true, Delay: 20 * time.Millisecond})
		var load []*exec.Cmd
		for range 3 {
			cmd := exec.Command("sh", "-c", `while cat "$1"/script; do tar -C "$1" -cf - . | cat; ls -lR "$1"; done`, "sh", dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			load = append(load, cmd)
		}
		eventually(t, "the load reads", func() bool { return s.stats().Opens > 2 })
		s.cmd.Process.Kill()
		s.cmd.Wait()
		for _, cmd := range load {
			ends(t, cmd)
		}
		if n := mountsAt(t, dir); n > 1 {
			t.Fatalf("round %d: %d mounts at %s", round, n, dir)
		}
	}
	s := mountChild(t, childSpec{Tree: "mixed", Dir: dir})
	checkFile(t, filepath.Join(dir, "small"), []byte("small\n"))
	if n := mountsAt(t, dir); n != 1 {
		t.Errorf("%d mounts at %s", n, dir)
	}
	s.tell("unmount")
}

func mountsAt(t *testing.T, dir string) (n int) {
	t.Helper()
	table, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table {
		if m.dir == dir {
			n++
		}
	}
	return n
}

func TestUnmountOfForeignAndStale(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	if err := Unmount(t.Context(), t.TempDir(), false); err == nil || !strings.Contains(err.Error(), ErrNotMounted.Error()) {
		t.Errorf("unmount of a plain directory: %v", err)
	}
	if err := Unmount(t.Context(), s.dir, false); err != nil {
		t.Error(err)
	}
	s.tell("wait")
	dead := mountChild(t, childSpec{Tree: "mixed"})
	dead.cmd.Process.Kill()
	dead.cmd.Wait()
	if err := Unmount(t.Context(), dead.dir, false); err != nil {
		t.Error(err)
	}
	if n := mountsAt(t, dead.dir); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}
