package test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	ft "github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestCIDsEqualBoxos adds what boxo's importer imports under the same profile:
// nobody can tell from a CID which of the two made it.
func TestCIDsEqualBoxos(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	boxo := newBoxoDAG(t, uio2025)
	many := s.ManyFiles(10_000, "many")
	odd := s.Mkdir("odd")
	s.MustSh(`cd "$1"; ln -s ../elsewhere dangling; ln -s here/there deep; printf x > file; mkdir -p sub/empty; printf '' > "ünï cödé"; ln file hardlink`, odd)
	paths := map[string]string{
		"empty file":      s.RandomFile(0, 1, "f0"),
		"1 byte":          s.RandomFile(1, 2, "f1"),
		"1 MiB":           s.RandomFile(1<<20, 3, "f2"),
		"1 MiB + 1":       s.RandomFile(1<<20+1, 4, "f3"),
		"4 MiB":           s.RandomFile(4<<20, 5, "f4"),
		"4 MiB of zeros":  s.WriteFile(string(make([]byte, 4<<20)), "f5"),
		"empty directory": s.Mkdir("empty"),
		"10,000 names":    many,
		"symlinks":        odd,
	}
	for name, path := range paths {
		if got, want := n.Add(path), boxo.tree(path).Cid().String(); got != want {
			t.Errorf("%s: added as %s, boxo says %s", name, got, want)
		}
	}
}

// TestCIDOfManyLeaves compares a file that, in the long run, needs an inner
// node more: 1,025 leaves.
func TestCIDOfManyLeaves(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	path := s.RandomFile(leafFile, 6, "big")
	want := newBoxoHasher(t).tree(path).Cid().String()
	if got := n.Add(path); got != want {
		t.Errorf("added as %s, boxo says %s", got, want)
	}
	if got := n.Add(path); got != want {
		t.Errorf("added again as %s, boxo says %s", got, want)
	}
}

// TestPreservedAttributesInBoxosEyes reads what --preserve wrote with boxo's
// own decoder, from blocks that boxo checked against their CIDs.
func TestPreservedAttributesInBoxosEyes(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	dir := s.Mkdir("tree")
	file := s.WriteFile("some content", "tree", "file")
	when := time.Unix(1_234_567_890, 987_654_321)
	must(t, os.Chmod(file, 0o640))
	must(t, os.Chtimes(file, when, when))
	must(t, os.Chtimes(dir, when, when))
	root := n.Add(dir, "--preserve")

	node := startBoxo(t, newBoxoDAG(t, uio2025))
	node.connect(n)
	ctx, cancel := context.WithTimeout(t.Context(), swarm.Patience)
	defer cancel()
	if err := merkledag.FetchGraph(ctx, cid.MustParse(root), node.online); err != nil {
		t.Fatal(err)
	}
	check := func(c cid.Cid, mode os.FileMode) *merkledag.ProtoNode {
		t.Helper()
		n, err := node.dag.dag.Get(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		pn, ok := n.(*merkledag.ProtoNode)
		if !ok {
			t.Fatalf("%s is no dag-pb node", c)
		}
		fsn, err := ft.FSNodeFromBytes(pn.Data())
		if err != nil {
			t.Fatal(err)
		}
		if !fsn.ModTime().Equal(when) || fsn.Mode().Perm() != mode {
			t.Errorf("%s: boxo reads mode %v and mtime %v", c, fsn.Mode(), fsn.ModTime())
		}
		return pn
	}
	top := check(cid.MustParse(root), 0o755)
	if len(top.Links()) != 1 || top.Links()[0].Name != "file" {
		t.Fatalf("boxo reads the links %v", top.Links())
	}
	leaf := check(top.Links()[0].Cid, 0o640)
	if len(leaf.Links()) != 1 || leaf.Links()[0].Cid.Prefix().Codec != cid.Raw {
		t.Errorf("a preserved file is a dag-pb root over raw leaves, boxo reads the links %v", leaf.Links())
	}
}
