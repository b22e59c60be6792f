package test

import (
	"encoding/json"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestPassthrough opens a file before and after it is complete: the first open
// is served by the node, the next by the kernel alone.
func TestPassthrough(t *testing.T) {
	s, a, b := near(t)
	big := s.RandomFile(16<<20, 1, "tree", "big")
	m := b.Mount("m", a.Add(s.Path("tree")))
	file := m + "/big"
	const n = 100_000

	first := newHands(t, s)
	first.must(t, "", "open %s", file)
	first.must(t, hashAt(t, big, 0, n), "read 0 %d", n)
	s.MustSh(`cmp "$1" "$2"`, file, big) // completes the body below the open file
	first.must(t, hashAt(t, big, 7<<20, n), "read %d %d", 7<<20, n)
	second := newHands(t, s)
	second.must(t, "", "open %s", file) // as the first: the kernel allows no mixture
	second.must(t, hashAt(t, big, 9<<20, n), "read %d %d", 9<<20, n)
	first.must(t, "", "close")
	second.must(t, "", "close")

	s.Eventually("the next first open is passthrough", func() bool {
		second.must(t, "", "open %s", file)
		second.must(t, "", "forget")
		before := readsOf(t, b, m)
		second.must(t, hashAt(t, big, 11<<20, n), "read %d %d", 11<<20, n)
		if readsOf(t, b, m) == before {
			return true
		}
		second.must(t, "", "close")
		return false
	})
	// What the kernel reads by itself it reads while the node stands still.
	second.must(t, "", "forget")
	stopped(t, b, func() {
		second.must(t, hashAt(t, big, 0, 16<<20), "read 0 %d", 16<<20)
	})
	second.must(t, "", "close")

	// Collecting the file's blocks takes nothing from who has it open.
	second.must(t, "", "open %s", file)
	b.Must("gc")
	second.must(t, "", "forget")
	stopped(t, b, func() {
		second.must(t, hashAt(t, big, 3<<20, 12<<20), "read %d %d", 3<<20, 12<<20)
	})
	second.must(t, "", "close")
	a.Kill()
	if got := second.do("open %s", file); got == "ok" {
		if got = second.do("read 0 1000"); got != "EIO" && got != "ok "+hashAt(t, big, 0, 1000) {
			t.Errorf("a read of what was collected gave %s", got)
		}
	}
}

// TestPassthroughOfOwnFiles opens a file that was added here: complete from the
// start.
func TestPassthroughOfOwnFiles(t *testing.T) {
	s := swarm.New(t)
	a := s.Start("a")
	big := s.RandomFile(16<<20, 1, "tree", "big")
	m := a.Mount("m", a.Add(s.Path("tree")))
	h := newHands(t, s)
	h.must(t, "", "open %s", m+"/big")
	stopped(t, a, func() {
		h.must(t, hashAt(t, big, 0, 16<<20), "read 0 %d", 16<<20)
	})
	h.must(t, "", "close")
	runChild(t, s, "mmap", m+"/big", big)
	runChild(t, s, "readers", m+"/big", big, "20", "20", "1")
}

// readsOf is how many reads of a mount the node has answered.
func readsOf(t *testing.T, n *swarm.Node, dir string) uint64 {
	t.Helper()
	var mounts []struct {
		Dir   string `json:"dir"`
		Reads uint64 `json:"reads"`
	}
	must(t, json.Unmarshal([]byte(n.Must("mounts", "--json")), &mounts))
	for _, m := range mounts {
		if m.Dir == dir {
			return m.Reads
		}
	}
	t.Fatalf("%s is not mounted: %v", dir, mounts)
	return 0
}

// stopped runs do while the node's process stands still.
func stopped(t *testing.T, n *swarm.Node, do func()) {
	t.Helper()
	must(t, syscall.Kill(n.Pid(), syscall.SIGSTOP))
	defer syscall.Kill(n.Pid(), syscall.SIGCONT)
	do()
}

// TestPassthroughTurnedOff reads a complete file of a mount that is told to answer all reads itself.
func TestPassthroughTurnedOff(t *testing.T) {
	s, a, _ := near(t)
	big := s.RandomFile(16<<20, 2, "tree", "big")
	root := a.Add(s.Path("tree"))
	for _, flag := range []string{"--passthrough=true", "--passthrough=false"} {
		m := a.Mount("m"+flag, root, flag)
		before := readsOf(t, a, m)
		s.MustSh(`cmp "$1" "$2"`, m+"/big", big)
		if answered := readsOf(t, a, m) > before; answered != (flag == "--passthrough=false") {
			t.Errorf("%s: the node answered reads: %v", flag, answered)
		}
		a.Must("umount", m)
	}
}
