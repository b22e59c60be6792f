package test

import (
	"context"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestTwoOfSixColumnsAreLost protects real files, has six processes keep a column each, and kills one
// after the other while the files are read in every way there is.
func TestTwoOfSixColumnsAreLost(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	c := scatter(t, s, realFiles(t, s))
	root, dag := c.columnOfRoot(), c.compare()
	step := func(what string, do func()) {
		began := time.Now()
		do()
		t.Logf("%s: %v", what, time.Since(began).Round(10*time.Millisecond))
	}
	step("two are killed in mid-read", func() { c.killedMidRead(root, columns-1) })
	step("verify", c.verifiedRecoverable)
	step("read by root", c.readByRoot)
	step("get and pin", c.fetchedWhole)
	var repaired *swarm.Node
	step("repair", func() { repaired = c.repaired() })
	step("a third is killed", func() { c.thirdKilled(dag) })
	c.kill(others(columns, slices.Collect(maps.Keys(c.dead))...)...)
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
func (c *scattered) thirdKilled(dag *compared) {
	c.t.Helper()
	n := c.reader("n")
	m := n.Mount("n.mnt", c.manifest, "--timeout", "4s")
	third, want := c.third(dag)
	c.kill(third)
	var list strings.Builder
	for path := range want {
		list.WriteString(path + "\n")
	}
	reads, fails := countReads(want)
	wrong := 0
	out := runChild(c.t, c.Swarm, "reads", m, c.WriteFile(list.String(), "list"))
	for line := range strings.Lines(out) {
		path, got, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if got != want[path] {
			if wrong++; wrong < 10 {
				c.t.Errorf("%s: %s, want %s", path, got, want[path])
			}
		}
		delete(want, path)
	}
	c.t.Logf("%d files read, %d fail", reads, fails)
	if wrong > 0 || len(want) > 0 || fails == 0 || reads == 0 {
		c.t.Errorf("%d files read as they should not, %d were not read", wrong, len(want))
	}
	v := c.verify(c.reader("w"), 1, c.manifest)
	if _, lost := c.gone(); v.Data.Lost != lost.Len() || v.LostStripes == 0 {
		c.t.Errorf("verify with %d blocks lost: %+v", lost.Len(), v)
	}
}

// third is a column without which most files still read, others not, and how each of them does, by a mount
// that has rebuilt the root's stripe before.
func (c *scattered) third(dag *compared) (column int, want map[string]string) {
	c.t.Helper()
	most := -1
	for _, i := range others(columns, slices.Collect(maps.Keys(c.dead))...) {
		c.dead[i] = true
		_, lost := c.gone()
		delete(c.dead, i)
		for _, s := range c.stripes {
			if slices.ContainsFunc(s.Data, func(d erasure.Shard) bool { return d.CID.String() == c.root }) {
				for _, d := range s.Data {
					lost.Remove(d.CID)
				}
			}
		}
		expected := dag.expect(lost)
		if reads, fails := countReads(expected); fails > 0 && reads > most {
			most, column, want = reads, i, expected
		}
	}
	return column, want
}

func countReads(want map[string]string) (reads, fails int) {
	for _, how := range want {
		if how == "EIO" {
			fails++
		}
	}
	return len(want) - fails, fails
}

// compared is a tree as boxo builds it, with what every file reads.
type compared struct {
	*boxoDAG
	root  ipld.Node
	files map[string]string // by path: "ok" and the hash
}

func (c *scattered) compare() *compared {
	c.t.Helper()
	d := &compared{boxoDAG: newBoxoDAG(c.t, uio2025), files: make(map[string]string)}
	if d.root = d.tree(c.source); d.root.Cid().String() != c.root {
		c.t.Fatalf("%s was added as %s, boxo has %s", c.source, c.root, d.root.Cid())
	}
	must(c.t, filepath.WalkDir(c.source, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(c.source, path)
		d.files[rel] = readWhole(path)
		return err
	}))
	return d
}

// expect says how each file reads when blocks are lost.
func (d *compared) expect(lost *cid.Set) map[string]string {
	d.t.Helper()
	want := maps.Clone(d.files)
	for path := range want {
		if d.touches(d.root, strings.Split(path, "/"), lost) {
			want[path] = "EIO"
		}
	}
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
