package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// leftOf lists what a demo left: its directory, its processes, its mounts.
func (w *world) leftOf() (left []string) {
	dirs, _ := filepath.Glob(filepath.Join(w.dir, "holdfast-demo-*"))
	left = append(left, dirs...)
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, proc := range procs {
		if b, err := os.ReadFile(proc); err == nil && strings.Contains(string(b), w.dir+"/holdfast-demo-") {
			left = append(left, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, w.dir) {
			left = append(left, line)
		}
	}
	return left
}

// demoTree makes a small tree to be copied.
func (w *world) demoTree() {
	w.t.Helper()
	for i := range 12 {
		w.file(fmt.Sprintf("tree/%c/file", 'a'+i), strings.Repeat("the text\n", 1+200*i))
	}
	w.file("tree/other", "more text\n")
}

// isMounted says whether dir of the demo is mounted.
func (w *world) isMounted(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Contains(string(mounts), w.dir+"/holdfast-demo-") && strings.Contains(string(mounts), "/"+dir+" ")
}

func TestDemoPlaysAndCleansUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.demoTree()
	out := w.must("demo", "--tree", "tree", "--size", "1")
	for _, want := range []string{"✓ 8 storage providers start", "✓ cp -a tree/{a … ", "✓ rsync -a tree/", "14 files erasure coded", "✓ every pledge is paid for",
		"manifest  bafy", "✓ its repo is deleted", "first byte", "equal, at", "✓ diff -r against the original", "no difference in 13 files",
		"✓ grep", "a/file:the text", "✓ providers settle", "reader ", "taken down again"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if n := strings.Count(out, "✓ kill -9 "); n != 2 {
		t.Errorf("%d providers are killed in\n%s", n, out)
	}
	if strings.ContainsAny(out, "\x1b\r") {
		t.Error("terminal codes in a pipe")
	}
	if left := w.leftOf(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestInterruptedDemoCleansUp(t *testing.T) {
	t.Parallel()
	for dir, sig := range map[string]syscall.Signal{"up": syscall.SIGINT, "content": syscall.SIGTERM} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.demoTree()
			p := w.start("demo", "--tree", "tree", "--size", "1", "--keep")
			w.until(dir+" is mounted", func() bool { return w.isMounted(dir) })
			p.cmd.Process.Signal(sig)
			if code := p.wait(); code != 130 {
				t.Errorf("code %d: %s%s", code, p.out.String(), p.err.String())
			}
			if left := w.leftOf(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestDemoThatFindsADifferenceFails has a diff that says so.
func TestDemoThatFindsADifferenceFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.demoTree()
	diff := w.file("bin/diff", "#!/bin/sh\necho Files differ\nexit 1\n")
	if err := os.Chmod(diff, 0o755); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "PATH="+filepath.Dir(diff)+":"+os.Getenv("PATH"))
	out, said, code := w.run("demo", "--tree", "tree", "--size", "1")
	if code != 1 || !strings.Contains(out, "✗ diff -r") || !strings.Contains(said, "Files differ") {
		t.Errorf("code %d: %s%s", code, out, said)
	}
	if left := w.leftOf(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestKeptDemoRunsUntilItIsEnded reads and uploads through what the demo leaves, as it says, and ends it as it says.
func TestKeptDemoRunsUntilItIsEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.demoTree()
	out := w.must("demo", "--tree", "tree", "--size", "1", "--keep")
	_, end, found := strings.Cut(out, "To end it all:  ")
	if !found {
		t.Fatalf("how to end it is missing in\n%s", out)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			exec.Command("sh", "-c", end).Run()
		}
	})
	script := `set -e; c=$(ls -d holdfast-demo-*/content); d=${c%/content}; diff -r tree $c/tree
		export HOLDFAST_PATH=$PWD/$d/reader HOLDFAST_LEDGER=$PWD/$d/ledger.json
		"$1" mount --detach --upload $d/up; echo new > $d/up/file; "$1" sync $d/up`
	cmd := exec.Command("sh", "-c", script, "sh", os.Args[0])
	cmd.Dir, cmd.Env = w.dir, w.env
	if text, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(text), "manifest  bafy") {
		t.Errorf("%v: %s", err, text)
	}
	if text, err := exec.Command("sh", "-c", end).CombinedOutput(); err != nil || len(text) > 0 {
		t.Errorf("end: %v: %s", err, text)
	}
	ended = true
	if left := w.leftOf(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPanelIsDrawnInPlace(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	p := &panel{w: &out, width: 60, height: 4}
	p.draw([]gauge{{"files", 1, 2, "1 of 2"}, {label: "coding", text: strings.Repeat("long", 20)}, {label: "has no room"}})
	p.draw([]gauge{{"files", 3, 2, "more than all"}})
	p.clear()
	half, full := strings.Repeat("━", 14)+strings.Repeat("─", 14), strings.Repeat("━", 28)
	want := "\n\x1b[2K      files        " + half + " 1 of 2" +
		"\n\x1b[2K      coding       " + strings.Repeat("long", 10) + "\x1b[J" +
		"\x1b[2A\n\x1b[2K      files        " + full + " more than a" + "\x1b[J" +
		"\x1b[1A\r\x1b[J"
	if out.String() != want {
		t.Errorf("drawn\n%q, not\n%q", out.String(), want)
	}
}
