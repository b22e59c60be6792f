package test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestHostilePeers surrounds a reader with peers that hang, lie, drip and rave.
// An honest one among them is enough; without one there is an error in time, and
// when all are gone the node is as it was before.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	a, b := s.Start("a"), s.Start("b")
	tree := s.ManyFiles(40, "tree")
	s.RandomFile(20<<20, 1, "tree", "big")
	unread := s.RandomFile(9<<20, 2, "tree", "unread")
	root := a.Add(tree)
	b.Must("status")
	threads, routines, files := b.Threads(), b.Figure(goroutines), b.OpenFiles()

	var peers []*hostile
	for _, answer := range []func(*hostile, network.Stream){hung, mute, liar, claims, drip, garbage} {
		h := newHostile(t, answer)
		peers = append(peers, h)
		b.Must("connect", addressOf(t, h))
	}
	refused(t, b, 1, []string{root}, "mount", "--detach", "--timeout", "3s", root, s.Mkdir("none"))
	for i, h := range peers {
		select {
		case <-h.asked:
		default:
			t.Errorf("hostile peer %d was never asked", i)
		}
	}
	b.Connect(a)
	m := b.Mount("m", root, "--timeout", "5s")
	s.MustSh(`diff -r --exclude=unread "$1" "$2"`, tree, m)

	a.Kill()
	if _, err := s.Sh(`cat "$1/unread" | cmp - "$2"`, m, unread); err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("reading what only liars claim to have: %v, want an input/output error", err)
	}
	s.MustSh(`diff -r --exclude=unread "$1" "$2"`, tree, m)
	b.Must("umount", m)
	for _, h := range peers {
		h.end()
	}
	s.Eventually("threads, goroutines and files are about what they were", func() bool {
		return b.Threads() <= threads+12 && b.Figure(goroutines) <= routines+40 && b.OpenFiles() <= files+12
	})
	t.Logf("threads %d, then %d; goroutines %d, then %d; files %d, then %d",
		threads, b.Threads(), routines, b.Figure(goroutines), files, b.OpenFiles())
}

// TestConnectToSilence dials something that accepts and never says a word.
func TestConnectToSilence(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	b := s.Start("b")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	var held sync.WaitGroup
	held.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	})
	addr := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", l.Addr().(*net.TCPAddr).Port, newHost(t).ID())
	refused(t, b, 1, []string{"connect"}, "connect", addr)
	b.Must("status")
	l.Close()
	held.Wait()
}
