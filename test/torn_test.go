package test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestKilledInTheMiddle kills both ends again and again while one adds and the
// other fetches. What was there before stays, and in the end all is right.
func TestKilledInTheMiddle(t *testing.T) {
	s, a, b := near(t)
	kept := s.ManyFiles(30, "kept")
	s.RandomFile(5<<20, 1, "kept", "big")
	keptRoot := a.Add(kept)
	b.Must("pin", keptRoot)
	tree := s.ManyFiles(2000, "tree")
	s.RandomFile(24<<20, 2, "tree", "big")
	want := newBoxoHasher(t).tree(tree).Cid().String()

	for round := range 4 {
		add := s.Spawn(a.Command("add", "-q", tree))
		s.Eventually("some of it is added", func() bool { return !add.Running() || a.Figure(storeBytes) > int64(6+4*round)<<20 })
		a.Kill()
		add.Wait(patience)
		a.Start()
		a.Must("get", keptRoot, "-o", s.Path("kept of a", fmt.Sprint(round)))
		s.MustSh(`diff -r "$1" "$2"`, kept, s.Path("kept of a", fmt.Sprint(round)))
	}
	if got := a.Add(tree); got != want {
		t.Errorf("added as %s after all, want %s", got, want)
	}
	for round := range 4 {
		pin := s.Spawn(b.Command("pin", want))
		s.Eventually("some of it has come", func() bool { return !pin.Running() || b.Figure(blocksIn) > int64(50*round) })
		b.Kill()
		pin.Wait(patience)
		b.Start()
		b.Must("get", keptRoot, "-o", s.Path("kept of b", fmt.Sprint(round)))
		s.MustSh(`diff -r "$1" "$2"`, kept, s.Path("kept of b", fmt.Sprint(round)))
	}
	b.Must("pin", want)
	a.Kill()
	b.Must("get", want, "-o", s.Path("out"))
	s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("out"))
}

// TestInterruptedCommandsLeaveNothing presses Ctrl-C in long work.
func TestInterruptedCommandsLeaveNothing(t *testing.T) {
	s, a, b := near(t)
	tree := s.ManyFiles(3000, "tree")
	s.RandomFile(48<<20, 1, "tree", "big")
	add := s.Spawn(a.Command("add", "-q", tree))
	s.Eventually("some of it is added", func() bool { return !add.Running() || a.Figure(storeBytes) > 4<<20 })
	if add.Running() {
		add.Signal(syscall.SIGINT)
	}
	if code := add.Wait(soon); code != 130 && code != 0 {
		t.Errorf("add ended with code %d after ctrl-c: %s", code, add.Err())
	}
	root := a.Add(tree)
	get := s.Spawn(b.Command("get", root, "-o", s.Path("got", "out")))
	s.Eventually("some of it has come", func() bool { return !get.Running() || b.Figure(blocksIn) > 10 })
	if get.Running() {
		get.Signal(syscall.SIGINT)
		if code := get.Wait(soon); code != 130 && code != 0 {
			t.Errorf("get ended with code %d after ctrl-c: %s", code, get.Err())
		}
	}
	if left, _ := os.ReadDir(s.Path("got")); len(left) > 1 {
		t.Errorf("get left %v", left)
	}
	b.Must("get", "--force", root, "-o", s.Path("got", "out"))
	s.MustSh(`diff -r "$1" "$2"; test "$(ls -A "$3")" = out`, tree, s.Path("got", "out"), s.Path("got"))
}

// TestFileLongerThanTheQuota reads through the mount what cannot be kept whole,
// and what is evicted while it is open.
func TestFileLongerThanTheQuota(t *testing.T) {
	s := swarm.New(t)
	a, b := s.Start("a"), s.Start("b", "--quota", "24MiB")
	b.Connect(a)
	big := s.RandomFile(40<<20, 1, "big")
	m := b.Mount("all", "")
	root := a.Add(big)
	s.MustSh(`cmp "$1" "$2/$3"`, big, m, root)

	first := s.RandomFile(16<<20, 2, "first")
	firstRoot := a.Add(first)
	s.MustSh(`cmp "$1" "$2/$3"`, first, m, firstRoot)
	open := newHands(t, s)
	open.must(t, "", "open %s/%s", m, firstRoot)
	open.must(t, hashAt(t, first, 0, 1000), "read 0 1000")
	for i := range 3 {
		other := s.RandomFile(16<<20, uint64(3+i), "other")
		s.MustSh(`cmp "$1" "$2/$3"`, other, m, a.Add(other))
	}
	open.must(t, "", "forget")
	open.must(t, hashAt(t, first, 0, 16<<20), "read 0 %d", 16<<20)
	open.must(t, "", "close")
	if used := b.Figure(storeBytes); used > 24<<20 {
		t.Errorf("%d bytes are stored, the quota is %d", used, 24<<20)
	}
}
