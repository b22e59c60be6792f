package main

import (
	"os"
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

func TestDemoPlaysAndCleansUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("tree/a/file", "some text\n")
	w.file("tree/other", "more text\n")
	out := w.must("demo", "--tree", "tree", "--size", "5")
	for _, want := range []string{"B has found A", "first byte", "equal, at", "What went over the network", "kill -9 A", "✓ diff -r"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
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
	w := newWorld(t)
	w.file("tree/file", "text")
	p := w.start("demo", "--tree", "tree", "--size", "64")
	w.until("something is mounted", func() bool {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && strings.Contains(string(mounts), w.dir)
	})
	p.cmd.Process.Signal(syscall.SIGINT)
	if code := p.wait(); code != 130 {
		t.Errorf("code %d: %s%s", code, p.out.String(), p.err.String())
	}
	if left := w.leftOf(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
