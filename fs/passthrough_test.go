package fs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestPassthroughBetweenOpens has a file become complete while it is open: the mode of an inode holds from its first
// open to its last release, and the bytes are right in both.
func TestPassthroughBetweenOpens(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	s.says("passthrough is o")
	if !strings.Contains(s.log.String(), "passthrough is on") {
		if n := strings.Count(s.log.String(), "passthrough is off"); n != 1 {
			t.Errorf("the log says %d times that passthrough is off:\n%s", n, s.log)
		}
		return
	}
	want := random(bigBytes, 1)
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, want, 0o644); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		t.Helper()
		f, err := os.Open(s.path("big"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	check := func(f *os.File, passthrough uint64) {
		t.Helper()
		got := make([]byte, bigBytes)
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("equal %v: %v", bytes.Equal(got, want), err)
		}
		if n := s.stats().Passthrough; n != passthrough {
			t.Errorf("%d inodes in passthrough, want %d", n, passthrough)
		}
	}
	first := open()
	s.tell("body", s.cidOf("big"), body)
	second := open()
	check(second, 0)
	check(first, 0)
	first.Close()
	check(second, 0)
	second.Close()
	eventually(t, "the file is released", func() bool { return s.stats().Open == 0 })

	third, fourth := open(), open()
	before := s.stats().Reads
	check(third, 1)
	check(fourth, 1)
	// Eviction takes the body's name, and nothing from those who have it open.
	s.tell("unlink", s.cidOf("big"))
	check(third, 1)
	check(open(), 1)
	if n := s.stats().Reads; n != before {
		t.Errorf("%d reads came to the mount", n-before)
	}
	sh(t, `echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true`)
	check(fourth, 1)
}

// TestPassthroughRefusesWrongBody gives a body of the wrong length.
func TestPassthroughRefusesWrongBody(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, make([]byte, bigBytes-1), 0o644); err != nil {
		t.Fatal(err)
	}
	s.tell("body", s.cidOf("big"), body)
	checkFile(t, s.path("big"), random(bigBytes, 1))
	if n := s.stats().Passthrough; n != 0 {
		t.Errorf("%d inodes in passthrough", n)
	}
}

// noBacker refuses every body with an errno.
type noBacker struct{ errno syscall.Errno }

func (b noBacker) RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno) { return 0, b.errno }
func (b noBacker) UnregisterBackingFd(int32) syscall.Errno                   { return b.errno }

// TestPassthroughFailures has the bodies fail, and the kernel refuse them, for now and for good.
func TestPassthroughFailures(t *testing.T) {
	tr, f := newTestTree(t, "mixed", nil)
	big, _ := tr.lookup(t, fuse.FUSE_ROOT_ID, "big")
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, random(bigBytes, 1), 0o644); err != nil {
		t.Fatal(err)
	}
	f.addBody(tr.table.get(big.NodeId).cid, body)
	open := func() {
		var out fuse.OpenOut
		in := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: big.NodeId}}
		if st := tr.Open(nil, in, &out); st != fuse.OK || out.OpenFlags&fuse.FOPEN_PASSTHROUGH != 0 {
			t.Errorf("open: %v, flags %x", st, out.OpenFlags)
		}
		tr.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	}
	tr.through.log = tr.log
	tr.through.on.Store(true)
	f.panics.Store(true)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no fault")
			}
		}()
		tr.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: big.NodeId}}, &fuse.OpenOut{})
	}()
	f.panics.Store(false)
	if tr.table.get(big.NodeId).opened.Load() != nil {
		t.Error("a fault leaves the file open")
	}
	for _, c := range []struct {
		errno syscall.Errno
		on    bool
	}{{syscall.ENOMEM, true}, {syscall.EPERM, false}} {
		tr.through.backer = noBacker{c.errno}
		open()
		if on := tr.through.on.Load(); on != c.on {
			t.Errorf("after %v passthrough is on: %v", c.errno, on)
		}
	}
}
