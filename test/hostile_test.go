package test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	mh "github.com/multiformats/go-multihash"

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

// TestGreedyPeers lets peers want everything many times over and read nothing of
// it, and flood a node with wants for what does not exist: it serves an honest
// peer all the same, and does not grow.
func TestGreedyPeers(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	a, b := s.Start("a"), s.Start("b")
	dag := newBoxoDAG(t, uio2025)
	big := s.RandomFile(24<<20, 1, "big")
	root := a.Add(big)
	if got := dag.tree(big).Cid().String(); got != root {
		t.Fatalf("added as %s, boxo says %s", root, got)
	}
	keys, err := dag.bs.AllKeysChan(t.Context())
	must(t, err)
	wants := message.New(false)
	for c := range keys {
		wants.AddEntry(cid.NewCidV1(cid.Raw, c.Hash()), 1, pb.Message_Wantlist_Block, true)
	}
	nonsense := message.New(false)
	for i := range 20_000 {
		c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte(itoa(i)))
		must(t, err)
		nonsense.AddEntry(c, 1, pb.Message_Wantlist_Block, true)
	}
	for range 8 {
		h := newHostile(t, hung)
		dial(t, h, a)
		h.floods(t, a, wants, nonsense)
	}
	b.Connect(a)
	b.Must("get", root, "-o", s.Path("out"))
	s.MustSh(`cmp "$1" "$2"`, big, s.Path("out"))
	rss := a.RssAnon()
	t.Logf("RssAnon of A: %d MiB", rss>>20)
	if rss > 400<<20 {
		t.Errorf("greedy peers grew the node to %d MiB", rss>>20)
	}
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
