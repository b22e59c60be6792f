package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestFlippedBitsAreFetchedAgain damages what a killed node has stored: no wrong
// byte is ever read, and with a peer at hand the blocks come again.
func TestFlippedBitsAreFetchedAgain(t *testing.T) {
	s, a, b, tree, root := stored(t)
	b.Kill()
	flip(t, b)
	a.Kill()
	b.Start()
	m := b.Mount("m", root, "--timeout", "2s", "--lazy")
	// Alone the node can't know the right bytes, but it never gives wrong ones.
	s.Sh(`mkdir "$2"; cp -r "$1/." "$2"`, m, s.Path("partly"))
	s.MustSh(`cd "$1"; for f in *; do test ! -s "$f" || cmp -n "$(stat -c %s "$f")" "$f" "$2/$f"; done`, s.Path("partly"), tree)

	a.Start()
	s.Eventually("everything reads right again", func() bool {
		_, err := s.Sh(`diff -r "$1" "$2"`, tree, m)
		return err == nil
	})
	if b.Figure("store.corruptions") == 0 {
		t.Error("status tells of no corruption")
	}
}

// TestFlippedBitsAfterACleanStop damages what counts as verified. What the node
// reads itself it checks, and what it finds bad it fetches again; a mount made
// after that is right, too.
func TestFlippedBitsAfterACleanStop(t *testing.T) {
	s, _, b, tree, root := stored(t)
	b.Stop()
	flip(t, b)
	b.Start()
	b.Must("get", root, "-o", s.Path("again"))
	s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("again"))
	if b.Figure("store.corruptions") == 0 {
		t.Error("status tells of no corruption")
	}
	s.MustSh(`diff -r "$1" "$2"`, tree, b.Mount("m", root))
}

// stored is a node B that has fetched all of a tree of A's.
func stored(t *testing.T) (s *swarm.Swarm, a, b *swarm.Node, tree, root string) {
	t.Helper()
	s, a, b = near(t)
	tree = s.ManyFiles(200, "tree")
	s.RandomFile(12<<20, 1, "tree", "big")
	root = a.Add(tree)
	b.Must("get", root, "-o", s.Path("out"))
	return s, a, b, tree, root
}

// flip changes a bit in the middle of every 512 KiB of every file of a node's
// block store.
func flip(t *testing.T, n *swarm.Node) {
	t.Helper()
	files := 0
	must(t, filepath.WalkDir(filepath.Join(n.Repo, "blocks"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(b) == 0 || strings.HasSuffix(path, ".lock") {
			return nil
		}
		for at := min(len(b)/2, 256<<10); at < len(b); at += 512 << 10 {
			b[at] ^= 4
		}
		files++
		return os.WriteFile(path, b, e.Type().Perm()|0o600)
	}))
	if files < 2 {
		t.Fatalf("%s stores its blocks in %d files, a pack and a body at least are wanted", n.Name, files)
	}
}
