package test

import (
	"context"
	"testing"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// startOldBoxo is startBoxo with a node that speaks Bitswap 1.1 alone, which has no presences.
func startOldBoxo(t *testing.T, dag *boxoDAG) *boxoNode {
	t.Helper()
	counts := &wireCounts{}
	h := newHost(t)
	only := bsnet.SupportedProtocols([]protocol.ID{bsnet.ProtocolBitswapOneOne})
	bs := bitswap.New(t.Context(), countedNetwork{bsnet.NewFromIpfsHost(h, only), counts}, nil, dag.bs, bitswap.WithTracer(counts))
	t.Cleanup(func() { bs.Close() })
	return &boxoNode{t: t, dag: dag, host: h, bitswap: bs, counts: counts,
		online: merkledag.NewDAGService(blockservice.New(dag.bs, bs))}
}

// TestBoxoBothWays fetches a large DAG from boxo and lets boxo fetch the same from us. Every kind of message
// that the version has crosses the wire, each way.
func TestBoxoBothWays(t *testing.T) {
	for version, c := range map[string]struct {
		bytes int64
		start func(*testing.T, *boxoDAG) *boxoNode
	}{"1.2": {300 << 20, startBoxo}, "1.1": {oldBytes, startOldBoxo}} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := swarm.New(t)
			file := s.RandomFile(c.bytes, 41, "file")
			source := newBoxoDAG(t, uio2025)
			root := source.tree(file).Cid()
			b := s.Start("b")
			weAsk(t, s, b, file, root, c.start(t, source), c.start(t, source))
			boxoAsks(t, s, b, root, c.start(t, newBoxoDAG(t, uio2025)))
		})
	}
}

// absent names the kinds of message that a fetch did not need, of those that its version has.
func absent(asked, answered kinds) string {
	if answered.have+answered.dontHave+asked.wantHave == 0 && asked.wantBlock > 0 { // as 1.1 is
		asked.wantHave, answered.have, answered.dontHave = 1, 1, 1
	}
	return missing(asked, answered)
}

// weAsk gets a file from two nodes of boxo's, and asks them for what they have not.
func weAsk(t *testing.T, s *swarm.Swarm, b *swarm.Node, file string, root cid.Cid, one, two *boxoNode) {
	t.Helper()
	b.Must("connect", addressOf(t, one.host), addressOf(t, two.host))
	b.Must("get", root.String(), "-o", s.Path("out"))
	s.MustSh(`cmp "$1" "$2"; rm "$2"`, file, s.Path("out"))
	both := func() (asked, answered kinds) {
		sent1, received1 := one.counts.now()
		sent2, received2 := two.counts.now()
		return received1.plus(received2), sent1.plus(sent2)
	}
	lost := s.Spawn(b.Command("cat", missingCID(3).String(), "--timeout", "2s"))
	if code := lost.Wait(patience); code != 1 {
		t.Errorf("cat of what nobody has ended with code %d", code)
	}
	t.Cleanup(func() { t.Logf("lacking when we asked boxo: %q", absent(both())) })
	s.Eventually("every kind has crossed the wire", func() bool { return absent(both()) == "" })
	asked, answered := both()
	t.Logf("boxo was asked %+v, answered %+v", asked, answered)
	for _, n := range []*boxoNode{one, two} {
		must(t, n.host.Close())
	}
}

// boxoAsks lets a node of boxo's fetch a DAG from ours, and ask for what we have not.
func boxoAsks(t *testing.T, s *swarm.Swarm, b *swarm.Node, root cid.Cid, node *boxoNode) {
	t.Helper()
	node.connect(b)
	ctx, cancel := context.WithTimeout(t.Context(), swarm.Patience)
	defer cancel()
	session := node.bitswap.NewSession(ctx)
	dag := merkledag.NewDAGService(blockservice.New(node.dag.bs, node.bitswap))
	if err := merkledag.FetchGraph(ctx, root, dag); err != nil {
		t.Fatalf("boxo fetches the DAG: %v", err)
	}
	// Who has served a session is asked to say so when it has not what is wanted next.
	node.forget(ctx, root.String())
	if _, err := session.GetBlock(ctx, root); err != nil {
		t.Fatalf("boxo fetches the root: %v", err)
	}
	lost, stop := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		session.GetBlock(lost, missingCID(4))
	}()
	s.Eventually("boxo has asked for what nobody has", func() bool {
		return b.Figure("exchange.blocks_peers_wait_for") > 0
	})
	stop()
	<-gone
	t.Cleanup(func() { t.Logf("lacking when boxo asked us: %q", absent(node.counts.now())) })
	s.Eventually("every kind has crossed the wire", func() bool { return absent(node.counts.now()) == "" })
	sent, received := node.counts.now()
	t.Logf("boxo sent %+v, received %+v", sent, received)
}
