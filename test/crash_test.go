package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestKilledMountIsMountedAgain kills the mounting process under load, again and
// again: each new start finds the stale mount, cleans it and stands alone there.
func TestKilledMountIsMountedAgain(t *testing.T) {
	s := swarm.New(t)
	n := s.Node("a")
	tree := s.ManyFiles(50, "tree")
	big := s.RandomFile(6<<20, 1, "tree", "big")
	root := n.Add(tree)
	// One who stays inside the dead mounts, with a file open and as its directory.
	clinging := newHands(t, s)
	load := s.SpawnSh(`while :; do cat "$1"/* > /dev/null 2>&1 || true; ls -lR "$1" > /dev/null 2>&1 || true; done`, s.Mkdir("m"))
	for round := range crashRounds {
		p, m := n.MountForeground("m", root)
		here := s.Mounted(m)
		if len(here) != 1 || here[0].Type != "fuse.holdfast" {
			t.Fatalf("round %d: mounted are %v, want one fuse.holdfast", round, here)
		}
		s.MustSh(`cmp "$1/big" "$2"; test "$(ls "$1" | wc -l)" = 51`, m, big)
		if round%5 == 0 {
			clinging.must(t, "", "open %s", m+"/big")
			clinging.must(t, "", "chdir %s", m)
		}
		p.Kill()
	}
	load.Kill()
	p, m := n.MountForeground("m", root)
	s.MustSh(`diff -r "$1" "$2"`, tree, m)
	n.Must("umount", m)
	if code := p.Wait(patience); code != 0 {
		t.Errorf("mount ended with code %d after umount: %s", code, p.Err())
	}
}

// TestDaemonRestoresItsMounts kills a daemon with mounts and starts it again.
func TestDaemonRestoresItsMounts(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	tree := s.ManyFiles(20, "tree")
	root := n.Add(tree)
	dirs := []string{n.Mount("one", root), n.Mount("two", root), n.Mount("all", "")}
	gone := n.Mount("gone", root)
	n.Must("umount", gone)
	s.SpawnSh(`while :; do cat "$1"/* "$2"/* > /dev/null 2>&1 || true; ls -lR "$1" "$3" > /dev/null 2>&1 || true; done`, dirs[0], dirs[1], dirs[2])
	for round := range 3 {
		n.Kill()
		n.Start()
		for _, dir := range dirs {
			s.Eventually(fmt.Sprintf("round %d: %s is mounted once", round, dir), func() bool {
				_, err := s.Sh(`ls "$1"`, dir)
				return err == nil && len(s.Mounted(dir)) == 1
			})
		}
		s.MustSh(`diff -r "$1" "$2"; diff -r "$1" "$3"; diff -r "$1" "$4"`, tree, dirs[0], dirs[1], dirs[2]+"/"+root)
		if here := s.Mounted(gone); len(here) != 0 {
			t.Fatalf("round %d: what was unmounted is mounted again", round)
		}
	}
	n.Stop()
	if left, _ := swarm.Mounts(s.Dir); len(left) != 0 {
		t.Errorf("a clean end left %v", left)
	}
	n.Start()
	for _, dir := range dirs { // the node is ready before its mounts are
		s.Eventually(dir+" is mounted again after a clean end", func() bool {
			out, err := n.Run("mounts")
			return err == nil && strings.Contains(out, dir+" ") && len(s.Mounted(dir)) == 1
		})
	}
}

// TestRestoredMountKeepsItsTimeout starts a daemon again whose own timeout is
// another than that of its mount.
func TestRestoredMountKeepsItsTimeout(t *testing.T) {
	s := swarm.New(t)
	a, b := s.Start("a"), s.Start("b", "--timeout", "1h")
	b.Connect(a)
	s.RandomFile(6<<20, 1, "tree", "big")
	m := b.Mount("m", a.Add(s.Path("tree")), "--timeout", "3s")
	s.MustSh(`ls -l "$1"`, m)
	a.Kill()
	b.Kill()
	b.Start()
	s.Eventually("the mount is restored", func() bool { // the kernel lists also a dead one, from memory
		out, err := b.Run("mounts", "--json")
		return err == nil && strings.Contains(out, `"state": "mounted"`)
	})
	if _, err := s.Sh(`timeout 30 cat "$1/big" > /dev/null`, m); err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("reading what nobody has: %v, want an input/output error", err)
	}
}

// TestKilledWriterLosesNothing kills a node right after add has returned: what
// was acknowledged is there.
func TestKilledWriterLosesNothing(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	for round := range 5 {
		name := fmt.Sprint("tree", round)
		tree := s.ManyFiles(50, name)
		s.RandomFile(6<<20, uint64(round), name, "big")
		root := n.Add(tree)
		n.Kill()
		n.Start()
		n.Must("get", root, "-o", s.Path("out", name))
		s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("out", name))
	}
}
