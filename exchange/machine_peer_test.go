package exchange

import (
	"strings"
	"sync"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// TestAPauseAfterACancelTellsNothing: a measurement that a cancel has cut off does not go on when the
// peer is next asked for something.
func TestAPauseAfterACancelTellsNothing(t *testing.T) {
	m, s, fast, _ := twoPeers(t)
	for i := range 3 {
		m.Step(wantEvent{intent: intentID(i), want: Want{CID: leaf(i, mib).Cid(), Dataset: s.key}, bulk: false})
	}
	m.Ready()
	if fast.blocks != 3 {
		t.Fatalf("%d blocks were asked for", fast.blocks)
	}
	m.Tick(m.now + 5*time.Millisecond)
	m.Step(receivedEvent{"fast", Incoming{Blocks: []blocks.Block{leaf(0, mib)}}})
	m.Step(forgetEvent{1})
	m.Step(forgetEvent{2})
	m.Ready()
	m.Tick(m.now + 2*time.Second)
	before := fast.rate
	m.Step(wantEvent{intent: 9, want: Want{CID: leaf(9, mib).Cid(), Dataset: s.key}, bulk: false})
	m.Ready()
	m.Tick(m.now + 5*time.Millisecond)
	m.Step(receivedEvent{"fast", Incoming{Blocks: []blocks.Block{leaf(9, mib)}}})
	if fast.rate < before/2 {
		t.Errorf("%.0f MiB/s, %.0f before the pause", fast.rate/mib, before/mib)
	}
	checkMachine(t, m)
}

// TestLateBlocksAreNoFault: of a peer that gives all it was ever asked for, long after others did, and
// after more blocks than are remembered. More than that is its fault.
func TestLateBlocksAreNoFault(t *testing.T) {
	limits := Limits{UnaskedBytes: 64 * kib}.withDefaults()
	m := newMachine(limits)
	m.recent = newRecentCIDs(4)
	m.Tick(time.Hour)
	m.Step(connectedEvent{"late", true})
	var late []blocks.Block
	for i := range 100 {
		late = append(late, leaf(i, 4*kib))
		m.Step(wantEvent{intent: intentID(i), want: Want{CID: late[i].Cid()}, bulk: false})
	}
	m.Ready()
	for i := range late {
		m.Step(forgetEvent{intentID(i)})
	}
	m.Ready()
	give := func(bs []blocks.Block) {
		for _, b := range bs {
			m.Step(receivedEvent{"late", Incoming{Blocks: []blocks.Block{b}}})
		}
	}
	give(late)
	if p := m.peers["late"]; m.stats.Bans != 0 || m.stats.Late != 100 || p.failures != 0 {
		t.Errorf("after late blocks: %+v, %d failures", m.stats, p.failures)
	}
	give(late)
	if m.stats.Bans != 1 {
		t.Errorf("after blocks that nobody asked for: %+v", m.stats)
	}
	checkMachine(t, m)
}

// TestAddressesOfProvidersAreBounded: of a provider that says to be everywhere.
func TestAddressesOfProvidersAreBounded(t *testing.T) {
	m := newMachine(Limits{}.withDefaults())
	b := leaf(1, 1)
	m.Step(wantEvent{intent: 1, want: Want{CID: b.Cid()}, bulk: false})
	m.Ready()
	addrs := []multiaddr.Multiaddr{multiaddr.StringCast("/dns4/" + strings.Repeat("a", 1000) + "/tcp/1")}
	for range 1000 {
		addrs = append(addrs, multiaddr.StringCast("/ip4/127.0.0.1/tcp/1"))
	}
	m.Step(providersEvent{key: b.Cid(), peers: []peer.AddrInfo{{ID: "p", Addrs: addrs}}})
	dials := m.Ready().dials
	if len(dials) != 1 || len(dials[0].Addrs) != maxAddrs || cap(m.searches[b.Cid()].found[0].Addrs) > 2*maxAddrs {
		t.Fatalf("dials %v", dials)
	}
	for _, a := range dials[0].Addrs {
		if len(a.Bytes()) > maxAddrBytes {
			t.Errorf("address of %d bytes is kept", len(a.Bytes()))
		}
	}
}

// TestABlockUnderAnotherCID: bytes that hash to what is wanted are taken, whatever codec and version of
// CID the peer calls them by.
func TestABlockUnderAnotherCID(t *testing.T) {
	m := newMachine(Limits{}.withDefaults())
	m.Step(connectedEvent{"p", true})
	v1 := newBlock(cid.DagProtobuf, []byte("node"))
	v0 := cid.NewCidV0(v1.Cid().Hash())
	m.Step(wantEvent{intent: 1, want: Want{CID: v0}, bulk: false})
	m.Ready()
	m.Step(receivedEvent{"p", Incoming{Blocks: []blocks.Block{v1}}})
	stores := m.Ready().stores
	if len(stores) != 1 || stores[0].Block.Cid() != v0 || m.stats.Unasked != 0 {
		t.Fatalf("stores %v, %+v", stores, m.stats)
	}
	m.Step(storedEvent{keys: []cid.Cid{v0}})
	if r := m.Ready(); len(r.resolved) != 1 || r.resolved[0].block.Cid() != v0 {
		t.Errorf("resolved %v", r.resolved)
	}
	checkMachine(t, m)
}

// TestBothCIDsOfABlock: a block that is wanted under two CIDs is fetched for both.
func TestBothCIDsOfABlock(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		v1 := newBlock(cid.DagProtobuf, []byte("node"))
		v0, err := blocks.NewBlockWithCid(v1.RawData(), cid.NewCidV0(v1.Cid().Hash()))
		if err != nil {
			t.Fatal(err)
		}
		s.net.add("A", v0, v1).connect()
		var both sync.WaitGroup
		for _, c := range []cid.Cid{v0.Cid(), v1.Cid()} {
			both.Go(func() { s.mustFetch(Want{CID: c}, time.Second) })
		}
		both.Wait()
	})
}

// TestReadersAreNotBehindDownloads: however much downloads want, a reader's want goes out at once.
func TestReadersAreNotBehindDownloads(t *testing.T) {
	for _, n := range []int{100, mib} {
		m, s, fast, slow := twoPeers(t)
		m.Step(goneEvent{"slow"})
		s.leafBytes = float64(n)
		for i := range 5000 {
			m.Step(wantEvent{intent: intentID(i), want: Want{CID: leaf(i, 1).Cid(), Dataset: s.key}, bulk: true})
		}
		m.Ready()
		if s.queued() == 0 || slow.blocks != 0 {
			t.Fatalf("%d wait, %d are asked for", s.queued(), fast.blocks)
		}
		other := leaf(9000, 1).Cid()
		m.Step(wantEvent{intent: 9000, want: Want{CID: other, Dataset: s.key}, bulk: false})
		m.Ready()
		if w := m.wants[other]; w.state != wantAsked {
			t.Errorf("blocks of %d bytes: the reader's want is %s behind %d", n, w.state, fast.blocks)
		}
		checkMachine(t, m)
	}
}

// TestAFailureWithoutAsksIsNoFault: a peer that ends a stream nobody uses may be asked at once.
func TestAFailureWithoutAsksIsNoFault(t *testing.T) {
	m, s, fast, _ := twoPeers(t)
	m.Step(sendFailedEvent{"fast"})
	if fast.failures != 0 || !fast.callable(m.now) {
		t.Errorf("%d failures", fast.failures)
	}
	m.Step(wantEvent{intent: 1, want: Want{CID: leaf(1, 1).Cid(), Dataset: s.key}, bulk: false})
	m.Ready()
	m.Step(sendFailedEvent{"fast"})
	if fast.failures != 1 || fast.callable(m.now) {
		t.Errorf("%d failures after a want was lost", fast.failures)
	}
	m.Ready()
	checkMachine(t, m)
}
