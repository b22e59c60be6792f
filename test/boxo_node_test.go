package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/ipld/merkledag"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// newHost is a libp2p host on loopback that ends with the test.
func newHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// addressOf is a host's multiaddr with its peer ID, as `connect` takes it.
func addressOf(t *testing.T, h host.Host) string {
	t.Helper()
	if len(h.Addrs()) == 0 {
		t.Fatal("the host listens nowhere")
	}
	return fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID())
}

// dial connects h to a running node.
func dial(t *testing.T, h host.Host, n *swarm.Node) {
	t.Helper()
	addr, err := ma.NewMultiaddr(n.Identity().Addresses[0])
	must(t, err)
	info, err := peer.AddrInfoFromP2pAddr(addr)
	must(t, err)
	must(t, h.Connect(t.Context(), *info))
}

// boxoNode is a peer of another make: boxo's bitswap client and server over a
// host of its own.
type boxoNode struct {
	t       *testing.T
	dag     *boxoDAG
	host    host.Host
	bitswap *bitswap.Bitswap
	online  ipld.DAGService // fetches what the blockstore has not
	counts  *wireCounts
}

func startBoxo(t *testing.T, dag *boxoDAG) *boxoNode {
	t.Helper()
	counts := &wireCounts{}
	h := newHost(t)
	net := countedNetwork{BitSwapNetwork: bsnet.NewFromIpfsHost(h), counts: counts}
	bs := bitswap.New(t.Context(), net, nil, dag.bs, bitswap.WithTracer(counts))
	t.Cleanup(func() { bs.Close() })
	return &boxoNode{t: t, dag: dag, host: h, bitswap: bs, counts: counts,
		online: merkledag.NewDAGService(blockservice.New(dag.bs, bs))}
}

func (n *boxoNode) connect(to *swarm.Node) {
	n.t.Helper()
	dial(n.t, n.host, to)
}

// wireCounts counts what a boxo node sends and receives, by kind.
type wireCounts struct {
	mu             sync.Mutex // guards both
	sent, received kinds
}

// kinds are the things a Bitswap message may say.
type kinds struct {
	wantHave, wantBlock, cancel, have, dontHave, block int
}

// plus adds up what two nodes saw.
func (k kinds) plus(o kinds) kinds {
	return kinds{k.wantHave + o.wantHave, k.wantBlock + o.wantBlock, k.cancel + o.cancel,
		k.have + o.have, k.dontHave + o.dontHave, k.block + o.block}
}

func (k *kinds) count(m message.BitSwapMessage) {
	for _, e := range m.Wantlist() {
		switch {
		case e.Cancel:
			k.cancel++
		case e.WantType == pb.Message_Wantlist_Have:
			k.wantHave++
		default:
			k.wantBlock++
		}
	}
	k.have += len(m.Haves())
	k.dontHave += len(m.DontHaves())
	k.block += len(m.Blocks())
}

// missing names the kinds that never crossed the wire in one direction of
// fetching: of what was asked, and of what was answered.
func missing(asked, answered kinds) string {
	k := kinds{asked.wantHave, asked.wantBlock, asked.cancel, answered.have, answered.dontHave, answered.block}
	var names []string
	for name, n := range map[string]int{"want-have": k.wantHave, "want-block": k.wantBlock, "cancel": k.cancel,
		"have": k.have, "dont-have": k.dontHave, "block": k.block} {
		if n == 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// MessageReceived is called by boxo for every message of a peer.
func (w *wireCounts) MessageReceived(_ peer.ID, m message.BitSwapMessage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.received.count(m)
}

// MessageSent is called by boxo's server alone; [countedNetwork] sees what the
// client sends too.
func (w *wireCounts) MessageSent(peer.ID, message.BitSwapMessage) {}

func (w *wireCounts) send(m message.BitSwapMessage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent.count(m)
}

func (w *wireCounts) now() (sent, received kinds) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, w.received
}

// countedNetwork counts all that goes out.
type countedNetwork struct {
	bsnetwork.BitSwapNetwork
	counts *wireCounts
}

func (n countedNetwork) SendMessage(ctx context.Context, p peer.ID, m message.BitSwapMessage) error {
	n.counts.send(m)
	return n.BitSwapNetwork.SendMessage(ctx, p, m)
}

func (n countedNetwork) NewMessageSender(ctx context.Context, p peer.ID, opts *bsnetwork.MessageSenderOpts) (bsnetwork.MessageSender, error) {
	sender, err := n.BitSwapNetwork.NewMessageSender(ctx, p, opts)
	return countedSender{sender, n.counts}, err
}

type countedSender struct {
	bsnetwork.MessageSender
	counts *wireCounts
}

func (s countedSender) SendMsg(ctx context.Context, m message.BitSwapMessage) error {
	s.counts.send(m)
	return s.MessageSender.SendMsg(ctx, m)
}
