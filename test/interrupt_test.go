package test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// patience is a guard against hangs and nothing else.
const patience = swarm.Patience

// soon is far below the timeout that the mounts of these tests are given, and
// ten times above what an answer "at once" takes on a busy machine.
const soon = 30 * time.Second

// stuck is a mount on B of a tree of which A took much with it.
func stuck(t *testing.T) (s *swarm.Swarm, b *swarm.Node, m string) {
	t.Helper()
	s, a, b := near(t)
	tree := s.Mkdir("tree")
	s.RandomFile(8<<20, 1, "tree", "big")
	s.WriteFile("here", "tree", "small")
	s.WriteFile("deep", "tree", "sub", "subsub", "deep")
	m = b.Mount("m", a.Add(tree), "--timeout", "5m")
	s.MustSh(`ls -l "$1"; cat "$1/small"`, m)
	a.Kill()
	s.Eventually("B sees that A is gone", func() bool { return b.Figure("peers") == 0 })
	return s, b, m
}

// TestSignalsEndAWaitingRead interrupts readers of a block nobody has.
func TestSignalsEndAWaitingRead(t *testing.T) {
	t.Parallel()
	s, _, m := stuck(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		for _, script := range []string{`exec cat "$1/big"`, `exec ls -l "$1/sub/subsub"`, `exec stat "$1/sub/subsub/deep"`, `exec find "$1/sub"`,
			`exec dd if="$1/big" of=/dev/null bs=1M skip=4 iflag=direct`, `exec grep -r nothing "$1"`} {
			p := s.SpawnSh(script, m)
			s.Eventually(script+" waits", p.Waits)
			p.Signal(sig)
			if code := p.Wait(soon); code != -1 {
				t.Errorf("%s ended with code %d after signal %d: %s", script, code, sig, p.Err())
			}
			// The mount is well: others read on.
			s.MustSh(`test "$(cat "$1/small")" = here; ls "$1"`, m)
		}
	}
}

// TestUmountWhileReadsWait unmounts below readers that wait.
func TestUmountWhileReadsWait(t *testing.T) {
	t.Parallel()
	s, b, m := stuck(t)
	var readers []*swarm.Process
	for range 4 {
		readers = append(readers, s.SpawnSh(`exec cat "$1/big"`, m))
	}
	for _, p := range readers {
		s.Eventually("cat waits", p.Waits)
	}
	if s.Waiting(m) == 0 {
		t.Fatal("the kernel waits for nothing")
	}
	if _, err := b.RunFor(soon, "umount", m); err != nil {
		t.Fatalf("umount while reads wait: %v", err)
	}
	for _, p := range readers {
		if code := p.Wait(soon); code == 0 {
			t.Error("a read of what nobody has succeeded")
		}
	}
	if here := s.Mounted(m); len(here) != 0 {
		t.Errorf("umount left %v", here)
	}
	if out := b.Must("mounts", "--json"); strings.Contains(out, m) {
		t.Errorf("mounts still lists it: %s", out)
	}
}

// TestCommandsEndAtOnceOnInterrupt interrupts commands that wait for the network.
func TestCommandsEndAtOnceOnInterrupt(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	b := s.Start("b")
	gone := missingCID(3).String()
	for _, args := range [][]string{{"cat", gone}, {"get", gone, "-o", s.Path("out")}, {"ls", gone}, {"stat", gone}, {"pin", gone},
		{"mount", "--timeout", "5m", gone, s.Mkdir("m")}} {
		p := s.Spawn(b.Command(args...))
		s.Eventually("the node looks for it", func() bool { return b.Figure(openWants) > 0 })
		p.Signal(syscall.SIGINT)
		if code := p.Wait(soon); code != 130 {
			t.Errorf("%q ended with code %d after ctrl-c, want 130: %s%s", args, code, p.Out(), p.Err())
		}
		s.Eventually("nobody looks for it any more", func() bool { return b.Figure(openWants) == 0 })
	}
	if here := s.Mounted(s.Path("m")); len(here) != 0 {
		t.Errorf("an interrupted mount left %v", here)
	}
}
