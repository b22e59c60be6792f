package test

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestTwoOfSixColumnsAreLost protects real files, has six processes keep a column each, and kills one
// after the other while the files are read in every way there is.
func TestTwoOfSixColumnsAreLost(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	c := scatter(t, s, realFiles(t, s))
	root := c.columnOfRoot()
	c.killedMidRead(root, others(1, root)[0])
	c.verifiedRecoverable()
	c.readByRoot()
	c.fetchedWhole()
	repaired := c.repaired()
	c.thirdKilled(others(1, root, others(1, root)[0])[0])
	c.kill(others(columns, slicesOf(c.dead)...)...)
	s.MustSh(`diff -r "$1" "$2"`, c.source, repaired.Mount("repaired", c.root))
}

// realFiles is a tree of Go's own source.
func realFiles(t *testing.T, s *swarm.Swarm) string {
	t.Helper()
	goroot := strings.TrimSpace(s.MustSh("go env GOROOT"))
	if len(realParts) == 0 {
		return goroot + "/src"
	}
	tree := s.Mkdir("source")
	for _, part := range realParts {
		s.MustSh(`mkdir -p "$(dirname "$2")"; cp -r "$1" "$2"`, filepath.Join(goroot, "src", part), filepath.Join(tree, part))
	}
	return tree
}

func slicesOf(set map[int]bool) (out []int) {
	for i := range maps.Keys(set) {
		out = append(out, i)
	}
	return out
}

// killedMidRead mounts the manifest with everybody there, kills two while all is being read, and finds
// nothing amiss.
func (c *scattered) killedMidRead(columns ...int) {
	c.t.Helper()
	b := c.reader("b")
	m := b.Mount("b.mnt", c.manifest)
	diff := c.SpawnSh(`diff -r "$1" "$2"`, c.source, m)
	c.Eventually("some has been read", func() bool { return b.Figure(blocksIn) > 50 })
	c.kill(columns...)
	if !diff.Running() {
		c.t.Error("all was read before anybody was killed")
	}
	if code := diff.Wait(swarm.Patience); code != 0 {
		c.t.Fatalf("diff ended with code %d: %s%s", code, diff.Out(), diff.Err())
	}
	c.told(b)
}

// verifiedRecoverable asks a node that has nothing.
func (c *scattered) verifiedRecoverable() {
	c.t.Helper()
	n := c.reader("v")
	recoverable, lost := c.gone()
	v := c.verify(n, 0, c.manifest)
	if v.Root != c.root || v.Manifest != c.manifest || v.Data.Recoverable != recoverable || v.Data.Lost != 0 || lost.Len() != 0 ||
		v.Stripes != len(c.stripes) || v.LostStripes != 0 || v.WeakStripes == 0 {
		c.t.Errorf("verify with two columns lost, %d blocks to be rebuilt in %d stripes: %+v", recoverable, len(c.stripes), v)
	}
}

// readByRoot mounts by the root, whose only holder is dead, and learns the manifest from peers.
func (c *scattered) readByRoot() {
	c.t.Helper()
	d := c.reader("d")
	c.MustSh(`diff -r "$1" "$2"`, c.source, d.Mount("d.mnt", c.root))
	c.told(d)
}

// fetchedWhole gets by the manifest and pins by the root, on nodes that have nothing.
func (c *scattered) fetchedWhole() {
	c.t.Helper()
	e, f := c.reader("e"), c.reader("f")
	e.Must("get", c.manifest, "-o", c.Path("got"))
	c.MustSh(`diff -r "$1" "$2"`, c.source, c.Path("got"))
	c.told(e)
	f.Must("pin", c.root)
	c.told(f)
	f.Must("gc")
	v := c.verify(f, 0, c.root)
	if v.Data.Reachable+v.Data.Recoverable+v.Data.Lost != 0 {
		c.t.Errorf("verify of what is pinned: %+v", v)
	}
}

// repaired has a node repair everything.
func (c *scattered) repaired() *swarm.Node {
	c.t.Helper()
	n := c.reader("repairer")
	out := n.Must("repair", c.manifest)
	c.t.Logf("repair: %s", out)
	v := c.verify(n, 0, c.manifest)
	if v.Data.Reachable+v.Data.Recoverable+v.Data.Lost != 0 || v.Parity.Lost != 0 || v.WeakStripes != 0 {
		c.t.Errorf("verify after repair: %+v", v)
	}
	c.verify(n, 0, "--deep", c.manifest)
	return n
}

// thirdKilled mounts, which rebuilds the root, kills another one, and reads every file: those that lie
// on lost blocks fail with EIO, all others read.
func (c *scattered) thirdKilled(column int) {
	c.t.Helper()
	n := c.reader("n")
	m := n.Mount("n.mnt", c.manifest, "--timeout", "4s")
	c.kill(column)
	_, lost := c.gone()
	for _, s := range c.stripes { // what the mount has rebuilt
		for _, d := range s.Data {
			if d.CID.String() == c.root {
				for _, d := range s.Data {
					lost.Remove(d.CID)
				}
			}
		}
	}
	want := c.expect(lost)
	var list strings.Builder
	for path := range want {
		list.WriteString(path + "\n")
	}
	wrong, failed := 0, 0
	out := runChild(c.t, c.Swarm, "reads", m, c.WriteFile(list.String(), "list"))
	for line := range strings.Lines(out) {
		path, got, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if want[path] == "EIO" {
			failed++
		}
		if got != want[path] {
			if wrong++; wrong < 10 {
				c.t.Errorf("%s: %s, want %s", path, got, want[path])
			}
		}
		delete(want, path)
	}
	c.t.Logf("%d blocks are lost, %d files of %d fail", lost.Len(), failed, strings.Count(list.String(), "\n"))
	if wrong > 0 || len(want) > 0 || failed == 0 {
		c.t.Errorf("%d files read as they should not, %d were not read", wrong, len(want))
	}
	fresh := c.reader("w")
	v := c.verify(fresh, 1, c.manifest)
	if _, all := c.gone(); v.Data.Lost != all.Len() || v.LostStripes == 0 {
		c.t.Errorf("verify with %d blocks lost: %+v", all.Len(), v)
	}
}

// expect says how each file reads when blocks are lost.
func (c *scattered) expect(lost *cid.Set) map[string]string {
	c.t.Helper()
	dag := newBoxoDAG(c.t, uio2025)
	node := dag.tree(c.source)
	if node.Cid().String() != c.root {
		c.t.Fatalf("%s was added as %s, boxo has %s", c.source, c.root, node.Cid())
	}
	want := make(map[string]string)
	must(c.t, filepath.WalkDir(c.source, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(c.source, path)
		want[rel] = "ok " + hash(b)
		if err == nil && dag.touches(node, strings.Split(rel, "/"), lost) {
			want[rel] = "EIO"
		}
		return err
	}))
	return want
}

// touches says whether a block of a file, or of a directory above it, is lost.
func (b *boxoDAG) touches(node ipld.Node, path []string, lost *cid.Set) bool {
	b.t.Helper()
	if lost.Has(node.Cid()) {
		return true
	}
	for _, l := range node.Links() {
		if len(path) > 0 && l.Name != path[0] {
			continue
		}
		next, err := b.dag.Get(context.Background(), l.Cid)
		must(b.t, err)
		if len(path) > 0 {
			return b.touches(next, path[1:], lost)
		}
		if b.touches(next, nil, lost) {
			return true
		}
	}
	return false
}
