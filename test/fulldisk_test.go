package test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestFullDisk fills the disk of a repo: adding and fetching fail with that
// reason, and what was there is still there, then and after a restart.
func TestFullDisk(t *testing.T) {
	s := swarm.New(t)
	n, disk := onSmallDisk(t, s)
	kept := s.ManyFiles(20, "kept")
	s.RandomFile(8<<20, 1, "kept", "big")
	keptRoot := n.Add(kept)
	leave(s, disk, 100<<20)
	large := s.RandomFile(64<<20, 2, "large")
	refused(t, n, 1, []string{"full"}, "add", large)
	check := func() {
		t.Helper()
		out := s.Path("out")
		n.Must("get", keptRoot, "-o", out)
		s.MustSh(`diff -r "$1" "$2"; rm -r "$2"`, kept, out)
	}
	check()
	n.Stop()
	n.Start()
	check()
	n.Stop()

	// So full that nothing can run.
	leave(s, disk, 0)
	refused(t, n, 1, []string{n.Repo}, "daemon")
	s.MustSh(`rm "$1"/ballast*`, disk)
	n.Start()
	check()
	if got, want := n.Add(large), newBoxoHasher(t).tree(large).Cid().String(); got != want {
		t.Errorf("with room again it is added as %s, want %s", got, want)
	}
}

// TestFetchOntoAFullDisk reads from another node what there is no room to keep.
func TestFetchOntoAFullDisk(t *testing.T) {
	s := swarm.New(t)
	a := s.Start("a")
	b, disk := onSmallDisk(t, s)
	b.Connect(a)
	leave(s, disk, 80<<20)
	big := s.RandomFile(64<<20, 2, "big")
	root := a.Add(big)
	b.Must("get", root, "-o", s.Path("out"))
	s.MustSh(`cmp "$1" "$2"`, big, s.Path("out"))
	refused(t, b, 1, []string{"full"}, "pin", root)
	s.MustSh(`cmp "$1" "$2/$3"`, big, b.Mount("m", ""), root)
}

// TestDiskFillsUp takes the last byte of the disk from a running node: it goes
// on reading, refuses to write, and writes again when there is room.
func TestDiskFillsUp(t *testing.T) {
	s := swarm.New(t)
	n, disk := onSmallDisk(t, s)
	tree := s.ManyFiles(20, "tree")
	s.RandomFile(8<<20, 1, "tree", "big")
	root := n.Add(tree)
	m := n.Mount("m", root)
	pid := n.Pid()
	leave(s, disk, 0)
	s.MustSh(`diff -r "$1" "$2"`, tree, m)
	refused(t, n, 1, []string{"full"}, "add", s.WriteFile("more", "more"))
	n.Run("unpin", root)
	n.Run("pin", root)
	n.Run("gc")
	s.MustSh(`diff -r "$1" "$2"`, tree, m)
	s.MustSh(`rm "$1"/ballast*`, disk)
	n.Add(s.Path("more"))
	if now := n.Pid(); now != pid || syscall.Kill(pid, 0) != nil {
		t.Errorf("the node did not live through it: %s", n.Log())
	}
}

// onSmallDisk runs a node whose repo is alone on a small disk.
func onSmallDisk(t *testing.T, s *swarm.Swarm) (n *swarm.Node, disk string) {
	t.Helper()
	disk = s.Mkdir("disk")
	s.MustSh(`mount -t tmpfs -o size=400m tmpfs "$1"`, disk)
	n = s.Node("disk/n")
	must(t, os.WriteFile(filepath.Join(n.Repo, "config.yaml"), []byte("min-free: 64MiB\n"), 0o600))
	n.Start()
	return n, disk
}

// leave fills a disk up to the last so many bytes.
func leave(s *swarm.Swarm, disk string, bytes int64) {
	s.TB.Helper()
	s.MustSh(`free="$(df --output=avail -B1 "$1" | tail -n 1)"; head -c "$((free - $2))" /dev/zero > "$1/ballast-$2"`, disk, strconv.FormatInt(bytes, 10))
}
