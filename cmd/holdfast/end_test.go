package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// endedInOrder checks that the last owner of the repo came to its end.
func (w *world) endedInOrder() {
	w.t.Helper()
	if _, err := os.Lstat(filepath.Join(w.repo, "running")); !os.IsNotExist(err) {
		w.t.Errorf("the repo's owner did not come to its end: %v", err)
	}
}

func TestAReaderThatHasSeenEnoughEndsACommandInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.must("add", "-q", w.file("f", strings.Repeat("some text\n", 1<<18)))
	p := &process{t: t, cmd: w.command("cat", root)}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if code := p.wait(); code != 141 || p.err.Len() > 0 {
		t.Errorf("code %d, said %q", code, p.err.String())
	}
	w.endedInOrder()
}

func TestOutputThatCanNotBeWrittenIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.must("add", "-q", w.file("tree/f", "content"))
	dir := w.must("add", "-q", "tree")
	for _, args := range [][]string{{"id"}, {"status"}, {"add", "-q", "tree/f"}, {"cat", root}, {"ls", dir}, {"ls", "-l", dir}, {"pins", "--json"}} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		p := &process{t: t, cmd: w.command(args...)}
		p.cmd.Stdout, p.cmd.Stderr = full, &p.err
		err = p.cmd.Start()
		full.Close()
		if err != nil {
			t.Fatal(err)
		}
		if code := p.wait(); code != 1 || !strings.Contains(p.err.String(), "write the output: no space left on device") {
			t.Errorf("%v: code %d, said %q", args, code, p.err.String())
		}
	}
}

func TestInterruptedAddDoesNotWaitForItsInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := &process{t: t, cmd: w.command("add", "-")}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(make([]byte, 1<<20)); err != nil { // more than a pipe holds: somebody reads
		t.Fatal(err)
	}
	p.cmd.Process.Signal(syscall.SIGINT)
	if code := p.wait(); code != 130 || p.out.Len()+p.err.Len() > 0 {
		t.Errorf("code %d, said %q%q", code, p.out.String(), p.err.String())
	}
	w.endedInOrder()
}

func TestAddDoesNotWaitForItsInputWhenTheNodeIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d, _ := w.daemon()
	p := &process{t: t, cmd: w.command("add", "-")}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		t.Errorf("the daemon ended with code %d: %s", code, d.err.String())
	}
	if code := p.wait(); code != 1 || !strings.Contains(p.err.String(), "lost the node") {
		t.Errorf("code %d, said %q", code, p.err.String())
	}
}

func TestCtrlCEndsAMountWith130AndSIGTERMWith0(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("tree/f", "content")
	root := w.must("add", "-q", "tree")
	m := filepath.Join(w.dir, "m")
	if err := os.Mkdir(m, 0o755); err != nil {
		t.Fatal(err)
	}
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 0} {
		p := &process{t: t, cmd: w.command("mount", root, m)}
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "mounted ") {
			t.Errorf("mount printed %q, %v", line, err)
		}
		p.cmd.Process.Signal(sig)
		if code := p.wait(); code != want {
			t.Errorf("%v: code %d, want %d", sig, code, want)
		}
		w.endedInOrder()
		if entries, err := os.ReadDir(m); err != nil || len(entries) > 0 {
			t.Errorf("%v left %v, %v", sig, entries, err)
		}
	}
}

func TestNohupKeepsTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := &process{t: t, cmd: exec.Command("sh", "-c", `trap "" HUP; exec "$0" daemon`, os.Args[0])}
	p.cmd.Dir, p.cmd.Env = w.dir, w.env
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	w.daemonOf(p)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, mask, _ := strings.Cut(string(status), "SigIgn:")
	ignored, err := strconv.ParseUint(strings.Fields(mask)[0], 16, 64)
	if err != nil || ignored&(1<<(syscall.SIGHUP-1)) == 0 {
		t.Errorf("SIGHUP is not ignored any more: %x, %v", ignored, err)
	}
}

func TestAMistypedCommandIsGuessed(t *testing.T) {
	t.Parallel()
	_, said, code := newWorld(t).run("sttaus")
	if code != 2 || !strings.Contains(said, "did you mean holdfast status?") {
		t.Errorf("code %d, said %q", code, said)
	}
}
