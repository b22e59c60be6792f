package exchange

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// hang is when a test gives up.
const hang = 20 * time.Second

// until waits for a condition, or fails.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// goroutinesBack fails unless the number of goroutines comes back to what it was, once everything
// that the test has started since is closed.
func goroutinesBack(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(hang)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
				return
			}
			runtime.Gosched()
		}
	})
}

// testStore is a store in memory.
type testStore struct {
	mu     sync.Mutex
	blocks map[cid.Cid]blocks.Block
	gets   int
	fail   error // of every Get
}

func newTestStore(bs ...blocks.Block) *testStore {
	s := &testStore{blocks: make(map[cid.Cid]blocks.Block)}
	s.add(bs...)
	return s
}

func (s *testStore) add(bs ...blocks.Block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range bs {
		s.blocks[b.Cid()] = b
	}
}

// Get implements Store.
func (s *testStore) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	if s.fail != nil {
		return nil, s.fail
	}
	if b, ok := s.blocks[c]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("get %s: %w", c, ErrNotFound)
}

// SizeOf implements Store.
func (s *testStore) SizeOf(_ context.Context, c cid.Cid) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.blocks[c]; ok {
		return len(b.RawData()), nil
	}
	return 0, fmt.Errorf("size of %s: %w", c, ErrNotFound)
}

// Put implements Store.
func (s *testStore) Put(_ context.Context, as []Arrival) error {
	for _, a := range as {
		s.add(a.Block)
	}
	return nil
}

// recorder is a handler that keeps what it is told.
type recorder struct {
	mu        sync.Mutex
	peers     map[peer.ID]bool // connected, with whether it has presences
	gone      map[peer.ID]int
	blocks    map[cid.Cid]blocks.Block
	presences map[cid.Cid]bool
	errs      map[peer.ID][]error // failed sends
	bad       map[peer.ID][]error // misbehaviour
	messages  int
	gate      chan struct{} // nil, or what Received waits for
}

func newRecorder() *recorder {
	return &recorder{
		peers: make(map[peer.ID]bool), gone: make(map[peer.ID]int),
		blocks: make(map[cid.Cid]blocks.Block), presences: make(map[cid.Cid]bool),
		errs: make(map[peer.ID][]error), bad: make(map[peer.ID][]error),
	}
}

func (r *recorder) do(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *recorder) has(f func() bool) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return f()
	}
}

// PeerConnected implements Handler.
func (r *recorder) PeerConnected(_ context.Context, p peer.ID, presences bool) {
	r.do(func() { r.peers[p] = presences })
}

// PeerGone implements Handler.
func (r *recorder) PeerGone(_ context.Context, p peer.ID) {
	r.do(func() { delete(r.peers, p); r.gone[p]++ })
}

// Received implements Handler.
func (r *recorder) Received(ctx context.Context, _ peer.ID, m Incoming) {
	if r.gate != nil {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return
		}
	}
	r.do(func() {
		r.messages++
		for _, b := range m.Blocks {
			r.blocks[b.Cid()] = b
		}
		for _, p := range m.Presences {
			r.presences[p.CID] = p.Have
		}
	})
}

// SendFailed implements Handler.
func (r *recorder) SendFailed(_ context.Context, p peer.ID, err error) {
	r.do(func() { r.errs[p] = append(r.errs[p], err) })
}

// PeerMisbehaved implements Handler.
func (r *recorder) PeerMisbehaved(_ context.Context, p peer.ID, err error) {
	r.do(func() { r.bad[p] = append(r.bad[p], err) })
}

// testNode is a host with our network and server on it.
type testNode struct {
	host   host.Host
	net    *HostNetwork
	server *server
	store  *testStore
	told   *recorder
	stop   func() // returns when all is done
}

func newTestHost(t testing.TB) host.Host {
	t.Helper()
	h, err := NewHost(HostConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// startNode runs a network and a server on a host until the test ends.
func startNode(t testing.TB, h host.Host, nc NetworkConfig, sc ServeConfig) *testNode {
	t.Helper()
	return startNodeWith(t, h, nc, sc, newRecorder())
}

func startNodeWith(t testing.TB, h host.Host, nc NetworkConfig, sc ServeConfig, told *recorder) *testNode {
	t.Helper()
	n := &testNode{host: h, store: newTestStore(), told: told}
	if sc.Store == nil {
		sc.Store = n.store
	}
	nc.Host, nc.Serve = h, sc
	var err error
	if n.net, err = NewHostNetwork(nc); err != nil {
		t.Fatal(err)
	}
	n.server = n.net.server
	ctx, cancel := context.WithCancel(context.Background())
	if err := n.net.Start(ctx, n.told); err != nil {
		cancel()
		t.Fatal(err)
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		n.net.Wait()
	})
	t.Cleanup(n.stop)
	return n
}

func newTestNode(t testing.TB) *testNode {
	t.Helper()
	return startNode(t, newTestHost(t), NetworkConfig{}, ServeConfig{})
}

func (n *testNode) id() peer.ID { return n.host.ID() }

func (n *testNode) info() peer.AddrInfo { return peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()} }

// dial connects two nodes and waits until both know.
func (n *testNode) dial(t testing.TB, other *testNode) {
	t.Helper()
	if err := n.net.Dial(t.Context(), other.info()); err != nil {
		t.Fatal(err)
	}
	n.knows(t, other.id())
	other.knows(t, n.id())
}

func (n *testNode) knows(t testing.TB, p peer.ID) {
	t.Helper()
	until(t, "a peer to be reported", n.told.has(func() bool { _, ok := n.told.peers[p]; return ok }))
}

// gets waits until the node was sent all of the blocks.
func (n *testNode) gets(t testing.TB, bs ...blocks.Block) {
	t.Helper()
	until(t, fmt.Sprintf("%d blocks", len(bs)), n.told.has(func() bool {
		for _, b := range bs {
			if n.told.blocks[b.Cid()] == nil {
				return false
			}
		}
		return true
	}))
}

func wantAll(kind EntryKind, bs ...blocks.Block) []Entry {
	var out []Entry
	for _, b := range bs {
		out = append(out, Entry{CID: b.Cid(), Kind: kind, Priority: 1, SendDontHave: true})
	}
	return out
}

func TestNetworkFetch(t *testing.T) {
	goroutinesBack(t)
	for name, protocols := range map[string][]protocol.ID{
		"holdfast": nil, "bitswap 1.2": {ProtocolBitswap12}, "bitswap 1.1": {ProtocolBitswap11},
	} {
		t.Run(name, func(t *testing.T) {
			a := startNode(t, newTestHost(t), NetworkConfig{}, ServeConfig{})
			b := startNode(t, newTestHost(t), NetworkConfig{Protocols: protocols}, ServeConfig{})
			large, small, lost := rawBlockOf(t, 1<<20), rawBlockOf(t, 100), rawBlockOf(t, 10)
			a.store.add(large, small)
			b.dial(t, a)
			b.net.Send(a.id(), wantAll(WantBlock, large, small, lost))
			b.gets(t, large, small)
			old := name == "bitswap 1.1"
			if presences := a.told.peers[b.id()]; presences == old {
				t.Errorf("peer of %s has presences: %v", name, presences)
			}
			b.net.Send(a.id(), wantAll(WantHave, lost))
			late := rawBlockOf(t, 5000)
			b.net.Send(a.id(), wantAll(WantBlock, late))
			if !old {
				until(t, "dont-have", b.told.has(func() bool {
					have, said := b.told.presences[late.Cid()]
					return said && !have
				}))
			}
			a.store.add(late)
			a.net.NotifyNewBlocks(late.Cid())
			if old { // nothing says when the want has come; asking again does no harm
				b.net.Send(a.id(), wantAll(WantBlock, late))
			}
			b.gets(t, late)
			if n := b.net.counts.received.dontHaves.Load() + b.net.counts.received.haves.Load(); old && n > 0 {
				t.Errorf("%d presences came over version 1.1", n)
			}
		})
	}
}

func TestNetworkKnowsPeersFromBefore(t *testing.T) {
	goroutinesBack(t)
	a, h := newTestNode(t), newTestHost(t)
	if err := h.Connect(t.Context(), a.info()); err != nil {
		t.Fatal(err)
	}
	b := startNode(t, h, NetworkConfig{}, ServeConfig{})
	b.knows(t, a.id())
	a.knows(t, b.id())
	block := rawBlockOf(t, 10)
	a.store.add(block)
	b.net.Send(a.id(), wantAll(WantBlock, block))
	b.gets(t, block)
}

func TestNetworkReportsGoing(t *testing.T) {
	goroutinesBack(t)
	a, b := newTestNode(t), newTestNode(t)
	a.dial(t, b)
	a.net.Disconnect(b.id())
	for _, pair := range [][2]*testNode{{a, b}, {b, a}} {
		until(t, "a peer to be gone", pair[0].told.has(func() bool { return pair[0].told.gone[pair[1].id()] == 1 }))
	}
	a.dial(t, b)
	block := rawBlockOf(t, 10)
	a.store.add(block)
	b.net.Send(a.id(), wantAll(WantBlock, block))
	b.gets(t, block)
}

func TestNetworkCoalesces(t *testing.T) {
	c, d := rawBlockOf(t, 1).Cid(), rawBlockOf(t, 2).Cid()
	q := newWantQueue(true)
	q.add([]Entry{{CID: c, Kind: WantHave}, {CID: d, Kind: WantBlock, Priority: 1}})
	q.add([]Entry{{CID: c, Kind: WantBlock, Priority: 5}, {CID: d, Kind: WantHave, Priority: 7, SendDontHave: true}})
	got, err := q.take(10)
	want := []Entry{{CID: c, Kind: WantBlock, Priority: 5}, {CID: d, Kind: WantBlock, Priority: 7, SendDontHave: true}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("took %v, %v\nwant %v", got, err, want)
	}
	q.add([]Entry{{CID: c, Kind: WantBlock}})
	q.add([]Entry{{CID: c, Kind: Cancel}})
	if got, _ := q.take(10); len(got) != 1 || got[0].Kind != Cancel {
		t.Errorf("want and cancel became %v", got)
	}
	for i := range maxQueuedEntries + 5 {
		q.add([]Entry{{CID: testCID(i), Kind: WantBlock}})
	}
	if got, err := q.take(2 * maxQueuedEntries); err == nil || len(got) != maxQueuedEntries {
		t.Errorf("took %d entries of an overfull queue, error %v", len(got), err)
	}
	old := newWantQueue(false)
	old.add([]Entry{{CID: c, Kind: WantHave}, {CID: d, Kind: WantBlock, SendDontHave: true}})
	if got, _ := old.take(10); len(got) != 1 || got[0].CID != d || got[0].SendDontHave {
		t.Errorf("version 1.1 is told %v", got)
	}
}

// testCID returns the i-th of many CIDs.
func testCID(i int) cid.Cid {
	c, err := testPrefixes["raw"].Sum(fmt.Appendf(nil, "block %d", i))
	if err != nil {
		panic(err)
	}
	return c
}

func TestNetworkPeerThatStopsSpeakingIsGone(t *testing.T) {
	goroutinesBack(t)
	a, b := newTestNode(t), newTestNode(t)
	a.dial(t, b)
	a.stop() // its host stays connected
	until(t, "the peer to be gone", b.told.has(func() bool { return b.told.gone[a.id()] == 1 }))
	if !b.net.connected(a.id()) {
		t.Error("the connection was closed for it")
	}
	b.net.Send(a.id(), wantAll(WantBlock, rawBlockOf(t, 1)))
}
