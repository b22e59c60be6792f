package test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestSigtermLeavesNothing ends a daemon with mounts that are read.
func TestSigtermLeavesNothing(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	tree := s.ManyFiles(20, "tree")
	root := n.Add(tree)
	one, _ := n.Mount("one", root), n.Mount("two", "")
	s.MustSh(`diff -r "$1" "$2"`, tree, one)
	pid := n.Pid()
	n.Stop()
	leavesNothing(t, s, n)
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("process %d is still there", pid)
	}
	n.Start()
	n.Must("get", root, "-o", s.Path("out"))
	s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("out"))
}

// TestForegroundMountEndsCleanly ends `holdfast mount` in the three ways there are.
func TestForegroundMountEndsCleanly(t *testing.T) {
	s := swarm.New(t)
	n := s.Node("a")
	tree := s.ManyFiles(20, "tree")
	root := n.Add(tree)
	ends := map[string]func(p *swarm.Process, m string){
		"SIGTERM":     func(p *swarm.Process, _ string) { p.Signal(syscall.SIGTERM) },
		"umount":      func(_ *swarm.Process, m string) { n.Must("umount", m) },
		"fusermount3": func(_ *swarm.Process, m string) { s.MustSh(`fusermount3 -u "$1"`, m) },
	}
	for name, end := range ends {
		p, m := n.MountForeground("m", root)
		s.MustSh(`diff -r "$1" "$2"`, tree, m)
		end(p, m)
		if code := p.Wait(patience); code != 0 {
			t.Errorf("%s: mount ended with code %d: %s", name, code, p.Err())
		}
		leavesNothing(t, s, n)
	}
	p, m := n.MountForeground("m", root)
	s.MustSh(`diff -r "$1" "$2"`, tree, m)
	p.Signal(syscall.SIGINT)
	if code := p.Wait(patience); code != 130 && code != 0 {
		t.Errorf("ctrl-c: mount ended with code %d: %s", code, p.Err())
	}
	leavesNothing(t, s, n)
}

// TestCommandsShareARepo runs commands at the same time where no daemon runs:
// one of them is the node for the others, and passes that on when it ends.
func TestCommandsShareARepo(t *testing.T) {
	s := swarm.New(t)
	n := s.Node("a")
	var adds []*swarm.Process
	for i := range 12 {
		path := s.RandomFile(int64(i+1)<<18, uint64(i), "in", itoa(i))
		adds = append(adds, s.Spawn(n.Command("add", "-q", path)))
	}
	for i, p := range adds {
		if code := p.Wait(patience); code != 0 {
			t.Fatalf("add %d ended with code %d: %s", i, code, p.Err())
		}
	}
	for i, p := range adds {
		root := strings.TrimSpace(p.Out())
		adds[i] = s.Spawn(n.Command("get", root, "-o", s.Path("out", itoa(i))))
	}
	for i, p := range adds {
		if code := p.Wait(patience); code != 0 {
			t.Fatalf("get %d ended with code %d: %s", i, code, p.Err())
		}
	}
	s.MustSh(`diff -r "$1" "$2"`, s.Path("in"), s.Path("out"))
	leavesNothing(t, s, n)
}

// leavesNothing checks that no mount, process or socket of the node is left.
func leavesNothing(t *testing.T, s *swarm.Swarm, n *swarm.Node) {
	t.Helper()
	if left, _ := swarm.Mounts(s.Dir); len(left) != 0 {
		t.Errorf("mounts left: %v", left)
	}
	if left := swarm.Using(s.Dir); len(left) != 0 {
		t.Errorf("processes left: %v", left)
	}
	if left := strings.TrimSpace(s.MustSh(`find "$1" -type s`, n.Repo)); left != "" {
		t.Errorf("sockets left: %s", left)
	}
}
