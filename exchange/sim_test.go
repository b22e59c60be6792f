package exchange

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// simStore is a store in memory.
type simStore struct {
	mu     sync.Mutex
	blocks map[cid.Cid]blocks.Block
	puts   map[cid.Cid]int
	err    error         // of every Put
	gate   chan struct{} // nil, or what every Put waits for
}

func newSimStore(has ...blocks.Block) *simStore {
	s := &simStore{blocks: make(map[cid.Cid]blocks.Block), puts: make(map[cid.Cid]int)}
	for _, b := range has {
		s.blocks[b.Cid()] = b
	}
	return s
}

func (s *simStore) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.blocks[c]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("get: %w", ErrNotFound)
}

func (s *simStore) SizeOf(ctx context.Context, c cid.Cid) (int, error) {
	b, err := s.Get(ctx, c)
	if err != nil {
		return 0, err
	}
	return len(b.RawData()), nil
}

func (s *simStore) Put(ctx context.Context, arrivals []Arrival) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	for _, a := range arrivals {
		s.blocks[a.Block.Cid()] = a.Block
		s.puts[a.Block.Cid()]++
	}
	return nil
}

// leaf makes a raw block of n bytes that no other number makes.
func leaf(number, n int) blocks.Block {
	data := make([]byte, max(n, 8))
	binary.BigEndian.PutUint64(data, uint64(number))
	return newBlock(cid.Raw, data)
}

// node makes an inner node: nothing but the CIDs of its children.
func node(children ...blocks.Block) blocks.Block {
	var data bytes.Buffer
	for _, c := range children {
		data.Write(c.Cid().Bytes())
	}
	return newBlock(cid.DagCBOR, data.Bytes())
}

func newBlock(codec uint64, data []byte) blocks.Block {
	c, err := cid.Prefix{Version: 1, Codec: codec, MhType: multihash.SHA2_256, MhLength: -1}.Sum(data)
	if err != nil {
		panic(err)
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		panic(err)
	}
	return b
}

// simLinks reads what node wrote.
func simLinks(w Want, b blocks.Block) (links []Want, err error) {
	for data := b.RawData(); len(data) > 0; {
		n, c, err := cid.CidFromBytes(data)
		if err != nil {
			return nil, err
		}
		links = append(links, Want{CID: c, Dataset: w.Dataset})
		data = data[n:]
	}
	return links, nil
}

// tree makes a DAG of leaves of n bytes each, below inner nodes of so many children.
func tree(leaves, n, fanout int) (root blocks.Block, all []blocks.Block) {
	var level []blocks.Block
	for i := range leaves {
		level = append(level, leaf(i, n))
	}
	all = append(all, level...)
	for len(level) > 1 {
		var up []blocks.Block
		for i := 0; i < len(level); i += fanout {
			up = append(up, node(level[i:min(i+fanout, len(level))]...))
		}
		all = append(all, up...)
		level = up
	}
	return level[0], all
}

// sim is an exchange in a simulated network, within a synctest bubble.
type sim struct {
	testing.TB
	*Exchange
	net   *simNet
	store *simStore
	purse *simPurse
	ctx   context.Context
}

// simulate runs f with a running exchange, and checks afterwards that nothing is left of it.
func simulate(t *testing.T, limits Limits, f func(s *sim)) {
	t.Helper()
	simulatePaid(t, limits, nil, f)
}

// simulatePaid does so with an exchange that can pay.
func simulatePaid(t *testing.T, limits Limits, purse *simPurse, f func(s *sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &sim{TB: t, net: newSimNet(), store: newSimStore(), purse: purse}
		ctx, stop := context.WithCancel(t.Context())
		s.ctx = ctx
		cfg := Config{Network: s.net, Providers: s.net, Store: s.store, Links: simLinks, Limits: limits}
		if purse != nil {
			purse.net = s.net
			cfg.Purse = purse
		}
		x, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.Exchange = x
		ended := make(chan error, 1)
		go func() { ended <- x.Run(ctx) }()
		synctest.Wait()
		f(s)
		s.settled()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.net.tasks.Wait()
	})
}

// settled checks that nothing is wanted or held any more.
func (s *sim) settled() {
	s.Helper()
	s.after(time.Minute)
	st := s.Stats()
	if st.Wants != 0 || st.InFlight != 0 || st.Storing != 0 || st.Sessions != 0 || st.Active != 0 || st.Downloads != 0 ||
		st.Queued+st.Seeking+st.Parked != 0 || st.Committed+st.Owed != 0 {
		s.Errorf("left when idle: %+v", st)
	}
	s.ask(func(m *machine) {
		if len(m.intents) != 0 || len(m.turn) != 0 || m.idle != 0 || m.searching != 0 || m.dialing != 0 {
			s.Errorf("left when idle: %d intents, %d in turn, %d idle, %d searches, %d dials", len(m.intents), len(m.turn), m.idle, m.searching, m.dialing)
		}
	})
	if n := len(s.slots); n != 0 {
		s.Errorf("left when idle: %d callers", n)
	}
	s.balanced()
	for _, p := range s.net.peers {
		if n := p.listLength(); n != 0 && p.connected && p.loses == 0 {
			s.Errorf("left when idle: %d entries on the list of %s", n, p.id)
		}
		if s.net.protected[p.id] {
			s.Errorf("left when idle: %s is protected", p.id)
		}
	}
}

// after lets virtual time pass.
func (s *sim) after(d time.Duration) {
	pass(s.ctx, d)
	synctest.Wait()
}

// fetch fetches a block within a time and says how long it took.
func (s *sim) fetch(w Want, within time.Duration) (time.Duration, error) {
	ctx, stop := context.WithTimeout(s.ctx, within)
	defer stop()
	start := time.Now()
	b, err := s.Fetch(ctx, w)
	if err == nil && !b.Cid().Equals(w.CID) {
		s.Fatalf("got %s for %s", b.Cid(), w.CID)
	}
	return time.Since(start), err
}

// mustFetch fetches a block within a time.
func (s *sim) mustFetch(w Want, within time.Duration) time.Duration {
	s.Helper()
	took, err := s.fetch(w, within)
	if err != nil {
		s.Fatal(err)
	}
	return took
}

// download fetches a DAG within a time and says how long it took.
func (s *sim) download(root blocks.Block, within time.Duration) time.Duration {
	s.Helper()
	took, err := s.tryDownload(root, within)
	if err != nil {
		s.Fatalf("after %v: %v; %+v", took, err, s.Stats())
	}
	return took
}

// tryDownload fetches a DAG within a time and says how long that took and how it ended.
func (s *sim) tryDownload(root blocks.Block, within time.Duration) (time.Duration, error) {
	s.Helper()
	ctx, stop := context.WithTimeout(s.ctx, within)
	defer stop()
	start := time.Now()
	d, err := s.Download(ctx, Want{CID: root.Cid()}, DownloadOptions{})
	if err != nil {
		s.Fatal(err)
	}
	err = d.Wait(ctx)
	return time.Since(start), err
}

// sentTwice returns how many blocks peers sent beyond the first of each.
func (s *sim) sentTwice() int {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	total := make(map[cid.Cid]int)
	extra := 0
	for _, p := range s.net.peers {
		for c, n := range p.sent {
			total[c] += n
		}
	}
	for _, n := range total {
		extra += n - 1
	}
	return extra
}

func TestFetchFromAConnectedPeer(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		b := leaf(1, 1000)
		s.net.add("A", b).connect()
		if took := s.mustFetch(Want{CID: b.Cid()}, time.Second); took > 50*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestManyReadersShareOneFetch(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		b := leaf(1, 1000)
		a, c := s.net.add("A", b), s.net.add("C", b)
		a.connect()
		c.connect()
		var readers sync.WaitGroup
		for range 100 {
			readers.Go(func() { s.mustFetch(Want{CID: b.Cid()}, time.Second) })
		}
		readers.Wait()
		if n := a.sent[b.Cid()] + c.sent[b.Cid()]; n != 1 {
			t.Errorf("sent %d times", n)
		}
		if n := s.store.puts[b.Cid()]; n != 1 {
			t.Errorf("stored %d times", n)
		}
	})
}

func TestProvidersAreSearchedAndDialed(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(50, 1000, 10)
		a := s.net.add("A", all...)
		a.refuses = 2
		s.net.providers[root.Cid()] = append(s.net.providers[root.Cid()], "A", "nobody")
		took := s.mustFetch(Want{CID: all[3].Cid(), Dataset: root.Cid()}, 5*time.Second)
		if took > 2*time.Second || s.net.dials["A"] != 3 {
			t.Errorf("took %v and %d dials", took, s.net.dials["A"])
		}
	})
}

func TestFetchEndsWithItsContext(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		b := leaf(1, 1000)
		a := s.net.add("A")
		a.connect()
		took, err := s.fetch(Want{CID: b.Cid()}, 10*time.Second)
		if !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) || took != 10*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		s.after(time.Second)
		if a.count(Cancel) == 0 || a.listLength() != 0 {
			t.Errorf("%d cancels, %d entries left", a.count(Cancel), a.listLength())
		}
		if n := len(s.net.searches); n < 2 || n > 4 {
			t.Errorf("%d searches in 10 s", n)
		}
	})
}
