package test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// corrupter serves a DAG as a good peer does, but of every so many blocks one has wrong bytes.
type corrupter struct {
	dag   *boxoDAG
	every int
	sent  int // blocks
}

// newCorrupter runs one and returns its host. One node alone may fetch from it.
func newCorrupter(t *testing.T, dag *boxoDAG, every int) *hostile {
	t.Helper()
	c := &corrupter{dag: dag, every: every}
	return newHostile(t, c.serve)
}

// serve answers the want lists of one stream, over one stream of its own.
func (c *corrupter) serve(h *hostile, s network.Stream) {
	out, err := h.NewStream(h.ctx, s.Conn().RemotePeer(), bitswapProtocols...)
	if err != nil {
		return
	}
	defer out.Reset()
	eachMessage(s, func(m message.BitSwapMessage) {
		reply := message.New(false)
		for _, e := range m.Wantlist() {
			switch {
			case e.Cancel:
				continue
			case e.WantType == pb.Message_Wantlist_Have:
				reply.AddHave(e.Cid)
				continue
			}
			if b, err := c.dag.bs.Get(h.ctx, e.Cid); err == nil {
				data := b.RawData()
				if c.sent++; c.sent%c.every == 0 {
					data = bytes.Clone(data)
					data[len(data)/2] ^= 0x40
				}
				reply.AddBlock(mustBlock(data, e.Cid))
			}
			if reply.Size() > 1<<20 {
				_ = reply.ToNetV1(out) // an error comes again below
				reply = message.New(false)
			}
		}
		if reply.Empty() {
			return
		}
		if reply.ToNetV1(out) != nil {
			s.Reset() // shut out: no message comes after
		}
	})
}

// TestFourPeersOneDiesOneCorrupts fetches from four peers, of which one is killed in the middle and one
// spoils every tenth block: what arrives is right, and who spoiled it is shut out and named.
func TestFourPeersOneDiesOneCorrupts(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	tree := s.Mkdir("tree")
	for i := range spreadFiles {
		s.RandomFile(64<<10, uint64(i), "tree", "sub"+itoa(i/500), "file"+itoa(i))
	}
	dag := newBoxoDAG(t, uio2025)
	root := dag.tree(tree).Cid().String()
	bad := newCorrupter(t, dag, 10)
	// So slow that the end of one is in the middle, and that all have to help.
	rate := []string{"--peer-upload-rate", "12MiB"}
	a, c, d, b := s.Start("a", rate...), s.Start("c", rate...), s.Start("d", rate...), s.Start("b", "--limits", "unasked-blocks="+itoa(spoiltBlocks))
	honest := []*swarm.Node{a, c, d}
	for _, n := range honest {
		if got := n.Add(tree); got != root {
			t.Fatalf("%s adds the tree as %s, boxo as %s", n.Name, got, root)
		}
		b.Connect(n)
	}
	b.Must("connect", addressOf(t, bad))

	get := s.Spawn(b.Command("get", root, "-o", s.Path("out")))
	busy := -1
	s.Eventually("one of them has sent a part", func() bool {
		busy = slices.IndexFunc(honest, func(n *swarm.Node) bool { return n.Figure(bytesOut) > 4<<20 })
		return busy >= 0 || !get.Running()
	})
	if busy < 0 {
		t.Fatalf("get ended when nobody had given much: %s", get.Err())
	}
	honest[busy].Kill()
	if !get.Running() {
		t.Error("it was killed when all was over")
	}
	if code := get.Wait(patience); code != 0 {
		t.Fatalf("get ended with code %d: %s", code, get.Err())
	}
	s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("out"))

	peers := b.Peers()
	for id, p := range peers {
		if shut := p.BannedSeconds > 0; shut != (id == bad.ID().String()) {
			t.Errorf("after the transfer: %+v", p)
		}
	}
	why := peers[bad.ID().String()].BannedFor
	t.Logf("%s is shut out for %q", bad.ID(), why)
	contains(t, "why the corrupter is shut out", why, "asked for")
	contains(t, "what a user sees of it", b.Must("peers"), bad.ID().String(), "banned for", why)
	contains(t, "the log", b.Log(), bad.ID().String(), "shut out", why)
	if n := b.Figure("exchange.bans"); n != 1 {
		t.Errorf("%d peers were shut out", n)
	}
	for _, n := range slices.Delete(honest, busy, busy+1) {
		if sent := n.Figure(bytesOut); sent < 1<<20 {
			t.Errorf("%s sent %d bytes", n.Name, sent)
		}
	}
}
