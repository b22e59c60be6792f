package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestFlippedBitsAreFetchedAgain damages what a node has stored: no wrong byte
// is ever read, and with a peer at hand the blocks come again.
func TestFlippedBitsAreFetchedAgain(t *testing.T) {
	s, a, b := near(t)
	tree := s.ManyFiles(200, "tree")
	s.RandomFile(12<<20, 1, "tree", "big")
	root := a.Add(tree)
	b.Must("get", root, "-o", s.Path("out"))

	b.Kill()
	if n := flip(t, b); n < 2 {
		t.Fatalf("only %d files were damaged", n)
	}
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

// flip changes a bit in the middle of every 512 KiB of every file of a node's
// block store and returns how many files there were.
func flip(t *testing.T, n *swarm.Node) (files int) {
	t.Helper()
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
	return files
}
