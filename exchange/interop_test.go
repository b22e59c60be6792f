package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	bspb "github.com/ipfs/boxo/bitswap/message/pb"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	unixfsio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	format "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// tally counts what another make of Bitswap sent or received, at its own end.
type tally struct {
	wantHave, wantBlock, cancel, have, dontHave, block atomic.Int64
}

func (c *tally) add(m bsmsg.BitSwapMessage) {
	for _, e := range m.Wantlist() {
		switch {
		case e.Cancel:
			c.cancel.Add(1)
		case e.WantType == bspb.Message_Wantlist_Have:
			c.wantHave.Add(1)
		default:
			c.wantBlock.Add(1)
		}
	}
	c.have.Add(int64(len(m.Haves())))
	c.dontHave.Add(int64(len(m.DontHaves())))
	c.block.Add(int64(len(m.Blocks())))
}

func (c *tally) String() string {
	return fmt.Sprintf("want-have %d, want-block %d, cancel %d, have %d, dont-have %d, block %d",
		c.wantHave.Load(), c.wantBlock.Load(), c.cancel.Load(), c.have.Load(), c.dontHave.Load(), c.block.Load())
}

// tallyNetwork counts what passes through boxo's network.
type tallyNetwork struct {
	bsnetwork.BitSwapNetwork
	sent, received *tally
}

// SendMessage counts and sends.
func (n *tallyNetwork) SendMessage(ctx context.Context, p peer.ID, m bsmsg.BitSwapMessage) error {
	err := n.BitSwapNetwork.SendMessage(ctx, p, m)
	if err == nil {
		n.sent.add(m)
	}
	return err
}

// NewMessageSender returns a sender that counts.
func (n *tallyNetwork) NewMessageSender(ctx context.Context, p peer.ID, o *bsnetwork.MessageSenderOpts) (bsnetwork.MessageSender, error) {
	s, err := n.BitSwapNetwork.NewMessageSender(ctx, p, o)
	return tallySender{s, n.sent}, err
}

// Start puts a counter before each receiver.
func (n *tallyNetwork) Start(rs ...bsnetwork.Receiver) {
	for i, r := range rs {
		rs[i] = tallyReceiver{r, n.received}
	}
	n.BitSwapNetwork.Start(rs...)
}

type tallySender struct {
	bsnetwork.MessageSender
	sent *tally
}

// SendMsg counts and sends.
func (s tallySender) SendMsg(ctx context.Context, m bsmsg.BitSwapMessage) error {
	s.sent.add(m) // before, as the message is reused
	return s.MessageSender.SendMsg(ctx, m)
}

type tallyReceiver struct {
	bsnetwork.Receiver
	received *tally
}

// ReceiveMessage counts and passes on.
func (r tallyReceiver) ReceiveMessage(ctx context.Context, p peer.ID, m bsmsg.BitSwapMessage) {
	r.received.add(m)
	r.Receiver.ReceiveMessage(ctx, p, m)
}

// boxoNode is a whole Bitswap node of the other make.
type boxoNode struct {
	net    *tallyNetwork
	swap   *bitswap.Bitswap
	blocks blockstore.Blockstore
	info   peer.AddrInfo
}

func newBoxoNode(t *testing.T, protocols ...protocol.ID) *boxoNode {
	t.Helper()
	return newBoxoTwin(t, &boxoNode{
		net:    &tallyNetwork{sent: new(tally), received: new(tally)},
		blocks: blockstore.NewBlockstore(dssync.MutexWrap(ds.NewMapDatastore())),
	}, protocols...)
}

// newBoxoTwin makes a node that shares the blocks and the counts of another.
func newBoxoTwin(t *testing.T, of *boxoNode, protocols ...protocol.ID) *boxoNode {
	t.Helper()
	h := newTestHost(t)
	var opts []bsnet.NetOpt
	if len(protocols) > 0 {
		opts = append(opts, bsnet.SupportedProtocols(protocols))
	}
	n := &boxoNode{
		net:    &tallyNetwork{bsnet.NewFromIpfsHost(h, opts...), of.net.sent, of.net.received},
		blocks: of.blocks,
		info:   peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()},
	}
	n.swap = bitswap.New(context.Background(), n.net, nil, n.blocks)
	t.Cleanup(func() {
		n.swap.Close()
		n.net.Stop()
	})
	return n
}

// dag reads and writes nodes where a blockstore is.
func dagOf(bs blockstore.Blockstore, swap *bitswap.Bitswap) format.DAGService {
	if swap == nil {
		return merkledag.NewDAGService(blockservice.New(bs, nil))
	}
	return merkledag.NewDAGService(blockservice.New(bs, swap))
}

// makeDAGs builds one of every kind: CIDv0 with dag-pb leaves, trickle, raw leaves, HAMT.
func makeDAGs(t *testing.T, dag format.DAGService) map[string]cid.Cid {
	t.Helper()
	file := func(p helpers.DagBuilderParams, layout func(*helpers.DagBuilderHelper) (format.Node, error)) cid.Cid {
		t.Helper()
		data := make([]byte, 3<<20)
		rnd := rand.NewChaCha8([32]byte{byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())})
		if _, err := io.ReadFull(rnd, data); err != nil {
			t.Fatal(err)
		}
		p.Dagserv, p.Maxlinks = dag, 10
		b, err := p.New(chunk.NewSizeSplitter(bytes.NewReader(data), 64<<10))
		if err != nil {
			t.Fatal(err)
		}
		n, err := layout(b)
		if err != nil {
			t.Fatal(err)
		}
		return n.Cid()
	}
	v1 := merkledag.V1CidPrefix()
	return map[string]cid.Cid{
		"v0":      file(helpers.DagBuilderParams{}, balanced.Layout),
		"trickle": file(helpers.DagBuilderParams{CidBuilder: v1}, trickle.Layout),
		"raw":     file(helpers.DagBuilderParams{CidBuilder: v1, RawLeaves: true}, balanced.Layout),
		"hamt":    makeHAMT(t, dag),
	}
}

func makeHAMT(t *testing.T, dag format.DAGService) cid.Cid {
	t.Helper()
	dir, err := unixfsio.NewHAMTDirectory(dag, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		n := merkledag.NewRawNode(fmt.Appendf(nil, "content %d", i))
		if err := errors.Join(dag.Add(t.Context(), n), dir.AddChild(t.Context(), fmt.Sprint("name", i), n)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := dir.GetNode()
	if err != nil {
		t.Fatal(err)
	}
	if err := dag.Add(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	return root.Cid()
}

// boxoLinks follows the links of dag-pb.
func boxoLinks(w Want, b blocks.Block) ([]Want, error) {
	if b.Cid().Type() != cid.DagProtobuf {
		return nil, nil
	}
	n, err := merkledag.DecodeProtobufBlock(b)
	if err != nil {
		return nil, err
	}
	var out []Want
	for _, l := range n.Links() {
		out = append(out, Want{CID: l.Cid, Dataset: w.Dataset})
	}
	return out, nil
}

// engineNode is a whole node of ours.
type engineNode struct {
	*Exchange
	net   *HostNetwork
	store *testStore
}

func newEngineNode(t *testing.T) *engineNode {
	t.Helper()
	n := &engineNode{store: newTestStore()}
	var err error
	n.net, err = NewHostNetwork(NetworkConfig{Host: newTestHost(t), Serve: ServeConfig{Store: n.store}})
	if err != nil {
		t.Fatal(err)
	}
	n.Exchange, err = New(Config{Network: n.net, Providers: newProvideLog(), Store: n.store, Links: boxoLinks})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = n.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		n.net.Wait()
		run.Wait()
	})
	return n
}

// copyAll gives our store all blocks of the other.
func (n *engineNode) copyAll(t *testing.T, bs blockstore.Blockstore) {
	t.Helper()
	keys, err := bs.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range keys { // these are raw: the store forgets the codec
		b, err := bs.Get(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []cid.Cid{k, cid.NewCidV0(k.Hash()), cid.NewCidV1(cid.DagProtobuf, k.Hash())} {
			same, err := blocks.NewBlockWithCid(b.RawData(), c)
			if err != nil {
				t.Fatal(err)
			}
			n.store.add(same)
		}
	}
}

// asksFor checks every count of a client and of the server that answers it.
func checkTallies(t *testing.T, asks, answers *tally, presences bool) {
	t.Helper()
	for name, count := range map[string]*atomic.Int64{
		"want-block": &asks.wantBlock, "cancel": &asks.cancel, "block": &answers.block,
		"want-have": &asks.wantHave, "have": &answers.have, "dont-have": &answers.dontHave,
	} {
		old := name == "want-have" || name == "have" || name == "dont-have"
		switch n := count.Load(); {
		case old && !presences && n > 0:
			t.Errorf("%d of %s over version 1.1", n, name)
		case (!old || presences) && n == 0:
			t.Errorf("no %s went over the wire", name)
		}
	}
}

// interopVersions are the protocols the other make is restricted to.
var interopVersions = map[string][]protocol.ID{"1.2": nil, "1.1": {bsnet.ProtocolBitswapOneOne}}

func TestInteropBoxoFetchesFromUs(t *testing.T) {
	for version, protocols := range interopVersions {
		t.Run(version, func(t *testing.T) {
			goroutinesBack(t)
			ours, theirs := newEngineNode(t), newBoxoNode(t, protocols...)
			source := blockstore.NewBlockstore(dssync.MutexWrap(ds.NewMapDatastore()))
			dags := makeDAGs(t, dagOf(source, nil))
			ours.copyAll(t, source)
			ctx, cancel := context.WithTimeout(t.Context(), hang)
			defer cancel()
			if err := ours.net.Dial(ctx, theirs.info); err != nil {
				t.Fatal(err)
			}
			for name, root := range dags {
				if err := merkledag.FetchGraph(ctx, root, dagOf(theirs.blocks, theirs.swap)); err != nil {
					t.Fatalf("fetch %s: %v", name, err)
				}
			}
			lost, late := rawBlockOf(t, 5000), rawBlockOf(t, 5000)
			giveUp, stop := context.WithCancel(ctx)
			var asks sync.WaitGroup
			session := theirs.swap.NewSession(ctx) // which wants to know who does not have it
			if _, err := session.GetBlock(ctx, dags["raw"]); err != nil {
				t.Fatal(err)
			}
			asks.Go(func() { _, _ = session.GetBlock(giveUp, lost.Cid()) })
			until(t, "the want", func() bool { return ours.net.Stats().Waiting > 0 })
			stop()
			asks.Wait()
			until(t, "the cancel", func() bool { return ours.net.Stats().Waiting == 0 })
			// What comes into the store later goes to whoever waits.
			asks.Go(func() {
				if _, err := theirs.swap.GetBlock(ctx, late.Cid()); err != nil {
					t.Errorf("get a late block: %v", err)
				}
			})
			until(t, "the want", func() bool { return ours.net.Stats().Waiting > 0 })
			ours.store.add(late)
			ours.net.NotifyNewBlocks(late.Cid())
			asks.Wait()
			t.Logf("boxo sent %s", theirs.net.sent)
			t.Logf("boxo received %s", theirs.net.received)
			checkTallies(t, theirs.net.sent, theirs.net.received, version == "1.2")
		})
	}
}

func TestInteropWeFetchFromBoxo(t *testing.T) {
	for version, protocols := range interopVersions {
		t.Run(version, func(t *testing.T) {
			goroutinesBack(t)
			ours, theirs := newEngineNode(t), newBoxoNode(t, protocols...)
			twin := newBoxoTwin(t, theirs, protocols...)
			dags := makeDAGs(t, dagOf(theirs.blocks, nil))
			ctx, cancel := context.WithTimeout(t.Context(), hang)
			defer cancel()
			if err := errors.Join(ours.net.Dial(ctx, theirs.info), ours.net.Dial(ctx, twin.info)); err != nil {
				t.Fatal(err)
			}
			until(t, "the peers", func() bool { return len(ours.Peers()) == 2 })
			// The first of all is asked for everywhere, and too large to come as the answer to that.
			first := rawBlockOf(t, 5000)
			if err := theirs.blocks.Put(ctx, first); err != nil {
				t.Fatal(err)
			}
			if _, err := ours.Fetch(ctx, Want{CID: first.Cid()}); err != nil {
				t.Fatal(err)
			}
			for name, root := range dags {
				d, err := ours.Download(ctx, Want{CID: root}, DownloadOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Wait(ctx); err != nil {
					t.Fatalf("download %s: %v", name, err)
				}
				sameDAG(t, ours.store, theirs.blocks, root)
			}
			lost := rawBlockOf(t, 5000)
			giveUp, stop := context.WithTimeout(ctx, 100*time.Millisecond)
			defer stop()
			if _, err := ours.Fetch(giveUp, Want{CID: lost.Cid()}); !errors.Is(err, ErrTimeout) {
				t.Errorf("fetch of what nobody has ended with %v", err)
			}
			until(t, "the cancel", func() bool { return theirs.net.received.cancel.Load() > 0 })
			// What comes into their store later comes to us.
			late := rawBlockOf(t, 5000)
			var asks sync.WaitGroup
			asks.Go(func() {
				if _, err := ours.Fetch(ctx, Want{CID: late.Cid()}); err != nil {
					t.Errorf("fetch a late block: %v", err)
				}
			})
			until(t, "the want", func() bool { return len(theirs.swap.WantlistForPeer(ours.net.host.ID())) > 0 })
			if err := errors.Join(theirs.blocks.Put(ctx, late), theirs.swap.NotifyNewBlocks(ctx, late), twin.swap.NotifyNewBlocks(ctx, late)); err != nil {
				t.Fatal(err)
			}
			asks.Wait()
			t.Logf("boxo received %s", theirs.net.received)
			t.Logf("boxo sent %s", theirs.net.sent)
			checkTallies(t, theirs.net.received, theirs.net.sent, version == "1.2")
		})
	}
}

// sameDAG checks that our store has every block below root.
func sameDAG(t *testing.T, store *testStore, theirs blockstore.Blockstore, root cid.Cid) {
	t.Helper()
	for todo := []cid.Cid{root}; len(todo) > 0; {
		c := todo[0]
		todo = todo[1:]
		got, err := store.Get(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		want, err := theirs.Get(t.Context(), c)
		if err != nil || !bytes.Equal(got.RawData(), want.RawData()) {
			t.Fatalf("block %s differs: %v", c, err)
		}
		links, err := boxoLinks(Want{}, got)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			todo = append(todo, l.CID)
		}
	}
}
