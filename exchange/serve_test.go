package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// served is one peer of a server whose answers are kept, in order.
type served struct {
	*ledger
	mu      sync.Mutex
	replies []*reply
	hold    bool // answers stay in flight
}

func (p *served) send(m *reply) {
	p.mu.Lock()
	p.replies = append(p.replies, m)
	hold := p.hold
	p.mu.Unlock()
	if !hold {
		m.done(nil)
	}
}

// answers sums up what was sent so far.
func (p *served) answers() (bs []blocks.Block, haves, dontHaves []cid.Cid) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.replies {
		bs = append(bs, m.blocks...)
		for _, q := range m.presences {
			if q.Have {
				haves = append(haves, q.CID)
			} else {
				dontHaves = append(dontHaves, q.CID)
			}
		}
	}
	return bs, haves, dontHaves
}

func (p *served) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replies = nil
}

// inServer runs f with a server in a bubble, so that synctest.Wait returns when all is answered.
func inServer(t *testing.T, cfg ServeConfig, f func(t *testing.T, s *server, store *testStore, open func() *served)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := newTestStore()
		if cfg.Store == nil {
			cfg.Store = store
		}
		s := newServer(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { s.run(ctx) })
		n := 0
		f(t, s, store, func() *served {
			n++
			p := &served{}
			p.ledger = s.open(peer.ID(fmt.Sprint("peer", n)), p.send)
			return p
		})
		cancel()
		run.Wait()
	})
}

func TestServeAnswers(t *testing.T) {
	inServer(t, ServeConfig{}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		small, large, lost, silent := rawBlockOf(t, 1024), rawBlockOf(t, 1025), rawBlockOf(t, 1), rawBlockOf(t, 2)
		store.add(small, large)
		p := open()
		p.receive(append(wantAll(WantHave, small, large, lost), Entry{CID: silent.Cid(), Kind: WantHave}), false)
		synctest.Wait()
		bs, haves, dontHaves := p.answers()
		if len(bs) != 1 || bs[0].Cid() != small.Cid() {
			t.Errorf("want-have gave blocks %v, want the small one", bs)
		}
		if len(haves) != 1 || haves[0] != large.Cid() {
			t.Errorf("haves %v, want the large one", haves)
		}
		if len(dontHaves) != 1 || dontHaves[0] != lost.Cid() {
			t.Errorf("dont-haves %v, want the one asked for", dontHaves)
		}
		p.clear()
		p.receive(wantAll(WantBlock, large), false)
		synctest.Wait()
		if bs, _, _ := p.answers(); len(bs) != 1 || bs[0].Cid() != large.Cid() {
			t.Errorf("want-block gave %v", bs)
		}
		p.clear()
		// Both that wait are answered when their blocks come.
		store.add(lost, silent)
		s.notifyNewBlocks([]cid.Cid{lost.Cid(), silent.Cid(), large.Cid()})
		synctest.Wait()
		if bs, _, _ := p.answers(); len(bs) != 2 {
			t.Errorf("%d blocks came later, want 2", len(bs))
		}
		if len(s.waiting) != 0 || len(p.wants) != 0 || s.inFlight != 0 {
			t.Errorf("server keeps %d waiting, %d wants, %d bytes in flight", len(s.waiting), len(p.wants), s.inFlight)
		}
	})
}

func TestServeCancelFullAndClose(t *testing.T) {
	inServer(t, ServeConfig{}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		a, b, c := rawBlockOf(t, 1), rawBlockOf(t, 2), rawBlockOf(t, 3)
		p, q := open(), open()
		p.receive(wantAll(WantBlock, a, b), false)
		q.receive(wantAll(WantBlock, a), false)
		synctest.Wait()
		p.receive([]Entry{{CID: a.Cid(), Kind: Cancel}}, false)
		p.receive(wantAll(WantBlock, c), true) // and b no more
		synctest.Wait()
		q.close()
		p.clear()
		q.clear()
		store.add(a, b, c)
		s.notifyNewBlocks([]cid.Cid{a.Cid(), b.Cid(), c.Cid()})
		synctest.Wait()
		if bs, _, _ := p.answers(); len(bs) != 1 || bs[0].Cid() != c.Cid() {
			t.Errorf("got %v, want the last one alone", bs)
		}
		if bs, _, _ := q.answers(); len(bs) != 0 {
			t.Errorf("a closed ledger got %v", bs)
		}
		q.receive(wantAll(WantBlock, a), false)
		synctest.Wait()
		if len(q.wants) != 0 || len(s.waiting) != 0 {
			t.Error("a closed ledger keeps wants")
		}
	})
}

func TestServeListIsCapped(t *testing.T) {
	inServer(t, ServeConfig{MaxWants: 10}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		p := open()
		var es []Entry
		for i := range 25 {
			es = append(es, Entry{CID: testCID(i), Kind: WantBlock, SendDontHave: i%2 == 0})
		}
		p.receive(es, false) // all before a worker looks
		synctest.Wait()
		_, _, dontHaves := p.answers()
		if len(dontHaves) != 5+8 {
			t.Errorf("%d dont-haves, want 5 of the list and 8 of those refused", len(dontHaves))
		}
		if len(p.wants) != 10 || s.overflow.Load() != 15 {
			t.Errorf("%d wants kept, %d refused, want 10 and 15", len(p.wants), s.overflow.Load())
		}
		// Those that wait give way to new ones.
		fresh := rawBlockOf(t, 5)
		store.add(fresh)
		p.clear()
		p.receive(wantAll(WantBlock, fresh), false)
		synctest.Wait()
		if bs, _, _ := p.answers(); len(bs) != 1 {
			t.Error("a new want found no room among those that wait")
		}
		if len(p.wants) != 9 || len(s.waiting) != 9 {
			t.Errorf("%d wants, %d waiting, want 9 each", len(p.wants), len(s.waiting))
		}
	})
}

func TestServePriorityAndMessages(t *testing.T) {
	inServer(t, ServeConfig{Workers: 1}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		p := open()
		var es []Entry
		for i := range 300 {
			b := rawBlockOf(t, 10<<10)
			store.add(b)
			es = append(es, Entry{CID: b.Cid(), Kind: WantBlock, Priority: int32(i % 3)})
		}
		p.receive(es, false)
		synctest.Wait()
		rank := make(map[cid.Cid]int32)
		for _, e := range es {
			rank[e.CID] = e.Priority
		}
		bs, _, _ := p.answers()
		if len(bs) != 300 {
			t.Fatalf("%d blocks, want 300", len(bs))
		}
		for i := range bs[1:] {
			if rank[bs[i].Cid()] < rank[bs[i+1].Cid()] {
				t.Fatalf("block %d of priority %d came before one of %d", i, rank[bs[i].Cid()], rank[bs[i+1].Cid()])
			}
		}
		if n := len(p.replies); n > 4 {
			t.Errorf("%d messages for 3 MB, want at most 4", n)
		}
		for _, m := range p.replies {
			if n := m.blockBytes(); n > maxFrameBytes-maxBlockBytes/2 {
				t.Errorf("message of %d bytes", n)
			}
		}
	})
}

func TestServeIsFairAndBounded(t *testing.T) {
	inServer(t, ServeConfig{PeerBytes: 4 << 20, TotalBytes: 6 << 20}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		small, large := open(), open()
		small.hold, large.hold = true, true
		for range 600 {
			b := rawBlockOf(t, 10<<10)
			store.add(b)
			small.receive(wantAll(WantBlock, b), false)
		}
		for range 10 {
			b := rawBlockOf(t, 2<<20)
			store.add(b)
			large.receive(wantAll(WantBlock, b), false)
		}
		sum := map[*served]int{}
		for range 12 { // rounds: all in flight arrives at once
			synctest.Wait()
			s.mu.Lock()
			if s.inFlight > 6<<20+2<<20 || large.inFlight > 4<<20+1<<20 || small.inFlight > 4<<20+1<<20 {
				t.Errorf("%d bytes in flight, %d and %d of them a peer's", s.inFlight, large.inFlight, small.inFlight)
			}
			s.mu.Unlock()
			var done []*reply
			for _, p := range []*served{small, large} {
				p.mu.Lock()
				for _, m := range p.replies {
					sum[p] += m.blockBytes()
				}
				done = append(done, p.replies...)
				p.replies = nil
				p.mu.Unlock()
			}
			for _, m := range done {
				m.done(nil)
			}
			if sum[small] > 5<<20 {
				break // it has nearly all; from here on the other is alone
			}
		}
		if ratio := float64(sum[small]) / float64(sum[large]); ratio < 0.5 || ratio > 2 {
			t.Errorf("small blocks got %d bytes, large ones %d", sum[small], sum[large])
		}
	})
}

// TestServeBesideGreedyPeers: peers that want everything and take nothing do not keep blocks from one that reads.
func TestServeBesideGreedyPeers(t *testing.T) {
	inServer(t, ServeConfig{PeerBytes: 4 << 20, TotalBytes: 6 << 20}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		var all []blocks.Block
		for range 8 {
			all = append(all, rawBlockOf(t, 2<<20))
			store.add(all[len(all)-1])
		}
		for range 2 {
			greedy := open()
			greedy.hold = true
			greedy.receive(wantAll(WantBlock, all...), false)
		}
		synctest.Wait()
		honest := open()
		honest.receive(wantAll(WantBlock, all...), false)
		synctest.Wait()
		honest.mu.Lock()
		got := 0
		for _, m := range honest.replies {
			got += len(m.blocks)
		}
		honest.mu.Unlock()
		if got != len(all) {
			t.Errorf("the honest peer got %d of %d blocks", got, len(all))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.inFlight > 2*6<<20+2<<20 {
			t.Errorf("%d bytes in flight", s.inFlight)
		}
	})
}

func TestServeRateLimit(t *testing.T) {
	inServer(t, ServeConfig{BytesPerSecond: 1 << 20}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		p := open()
		p.hold = true
		p.receive(wantAll(WantBlock, addBlocks(t, store, 8, 1<<20)...), false)
		synctest.Wait()
		begin := time.Now()
		sent := 0
		for sent < 8<<20 {
			p.mu.Lock()
			m := p.replies[0]
			p.replies = p.replies[1:]
			p.mu.Unlock()
			if err := m.pace(m.blockBytes()); err != nil {
				t.Fatal(err)
			}
			sent += m.blockBytes()
			m.done(nil)
			synctest.Wait()
		}
		if d := time.Since(begin); d < 7*time.Second || d > 9*time.Second {
			t.Errorf("8 MiB took %v at 1 MiB/s", d)
		}
	})
	inServer(t, ServeConfig{PeerPerSecond: 1 << 20}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		p := open()
		p.close()
		if err := s.pace(p.ledger, 10<<20); !errors.Is(err, context.Canceled) {
			t.Errorf("pace of a closed ledger ended with %v", err)
		}
	})
}

func addBlocks(t *testing.T, store *testStore, n, bytes int) []blocks.Block {
	t.Helper()
	var bs []blocks.Block
	for range n {
		bs = append(bs, rawBlockOf(t, bytes))
	}
	store.add(bs...)
	return bs
}

func TestServeFailures(t *testing.T) {
	inServer(t, ServeConfig{}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		b := addBlocks(t, store, 1, 5000)[0]
		store.fail = errors.New("disk is broken")
		p := open()
		p.receive(wantAll(WantBlock, b), false)
		synctest.Wait()
		if bs, _, dontHaves := p.answers(); len(bs) != 0 || len(dontHaves) != 1 {
			t.Errorf("an unreadable block gave %v and %d dont-haves, want one", bs, len(dontHaves))
		}
		store.mu.Lock()
		store.fail = fmt.Errorf("odd: %w", ErrNotFound) // while SizeOf says it is there
		store.gets = 0
		store.mu.Unlock()
		p.receive([]Entry{{CID: b.Cid(), Kind: Cancel}}, false)
		p.receive(wantAll(WantBlock, b), false)
		synctest.Wait()
		if store.gets != 2 {
			t.Errorf("store that contradicts itself was asked %d times, want 2", store.gets)
		}
		// A message that was not delivered takes the peer's wants along: it asks again.
		p.hold = true
		store.mu.Lock()
		store.fail = nil
		store.mu.Unlock()
		p.clear()
		p.receive(wantAll(WantBlock, b), false)
		synctest.Wait()
		p.replies[0].done(errors.New("stream reset"))
		if len(p.wants) != 0 || s.inFlight != 0 || len(s.waiting) != 0 {
			t.Errorf("after a failed send %d wants and %d bytes in flight are left", len(p.wants), s.inFlight)
		}
	})
}

func TestServeIgnoresIdentity(t *testing.T) {
	inServer(t, ServeConfig{}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		p := open()
		c, err := cid.Cast([]byte{1, 0x55, 0, 3, 'a', 'b', 'c'})
		if err != nil {
			t.Fatal(err)
		}
		p.receive([]Entry{{CID: c, Kind: WantBlock, SendDontHave: true}}, false)
		synctest.Wait()
		if len(p.wants) != 0 || len(p.replies) != 0 {
			t.Error("an identity cid was taken for a block")
		}
	})
}
