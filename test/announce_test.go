package test

import (
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestAnnouncementsWaitForPeers adds to a node that knows nobody: the
// announcement waits, through a restart, and is made when there is a peer.
func TestAnnouncementsWaitForPeers(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	a := s.Start("a")
	tree := s.ManyFiles(10, "tree")
	root := a.Add(tree)
	a.Kill()
	a.Start()
	b, c := s.Start("b"), s.Start("c")
	b.Connect(c)
	a.Connect(c)
	s.Eventually("B finds A", func() bool {
		_, err := b.Run("get", "--force", "--timeout", "3s", root, "-o", s.Path("out"))
		return err == nil
	})
	s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("out"))
}

// TestFetchedContentIsAnnounced takes away who added a tree: who fetched all of
// it is found instead.
func TestFetchedContentIsAnnounced(t *testing.T) {
	t.Parallel()
	d := newDistant(t)
	tree := d.ManyFiles(10, "tree")
	root := d.a.Add(tree)
	d.b.Must("pin", root)
	d.a.Kill()
	e := d.Start("e")
	e.Connect(d.c)
	d.Eventually("E finds B", func() bool {
		_, err := e.Run("get", "--force", "--timeout", "3s", root, "-o", d.Path("out"))
		return err == nil
	})
	d.MustSh(`diff -r "$1" "$2"`, tree, d.Path("out"))
}

// TestRememberedPeers restarts both ends of a connection that was asked for.
func TestRememberedPeers(t *testing.T) {
	t.Parallel()
	s, a, b := near(t)
	connected := func() bool { return b.Figure("peers") == 1 }
	b.Kill()
	b.Start()
	s.Eventually("B dials A after a restart of B", connected)
	a.Kill()
	s.Eventually("B sees A go", func() bool { return !connected() })
	a.Start()
	s.Eventually("B dials A after a restart of A", connected)
}
