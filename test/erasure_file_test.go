package test

import (
	"path/filepath"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestBigFileOfSixColumns reads a big file through a mount, of which two of six columns go in the middle of it; by the
// root's CID on a node of its own; and with a third one gone.
func TestBigFileOfSixColumns(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	c := scatter(t, s, s.RandomFile(erasureBytes, 7, "big"))
	b := c.reader("b")
	file := filepath.Join(b.Mount("b.mnt", c.manifest), c.root)
	compare := s.SpawnSh(`cmp "$1" "$2"`, c.source, file)
	s.Eventually("some has been read", func() bool { return b.Figure(blocksIn) > erasureBytes>>22 })
	root := c.columnOfRoot()
	c.kill(root, (root+1)%codeK)
	if !compare.Running() {
		t.Error("all was read before anybody was killed")
	}
	if code := compare.Wait(swarm.Patience); code != 0 {
		t.Fatalf("cmp ended with code %d: %s%s", code, compare.Out(), compare.Err())
	}
	c.told(b)

	d := c.reader("d")
	s.MustSh(`cmp "$1" "$2"`, c.source, filepath.Join(d.Mount("d.mnt", c.root), c.root))
	c.told(d)
	if rss := d.RssAnon(); rss > 400<<20 {
		t.Errorf("%d MiB of memory", rss>>20)
	}

	e := c.reader("e")
	file = filepath.Join(e.Mount("e.mnt", c.manifest, "--timeout", "3s"), c.root)
	c.kill(codeK)
	out, err := s.Sh(`cmp "$1" "$2" 2>&1`, c.source, file)
	if err == nil {
		t.Errorf("cmp of a file with three columns gone succeeded: %s", out)
	}
	contains(t, "what cmp said", out, "Input/output error")
	contains(t, "the log", e.Log(), "nobody gave block")
}
