package exchange

import (
	"testing"
	"testing/synctest"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// TestServePresencesAreBounded: a peer that asks what is here, again and again, and never reads.
func TestServePresencesAreBounded(t *testing.T) {
	inServer(t, ServeConfig{}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		var bs []blocks.Block
		for range 256 {
			bs = append(bs, rawBlockOf(t, 2000))
		}
		store.add(bs...)
		p := open()
		p.hold = true
		for range 1000 {
			p.receive(wantAll(WantHave, bs...), false)
			synctest.Wait()
		}
		_, haves, _ := p.answers()
		if n := len(haves) * presenceBytes; n == 0 || n > s.cfg.PeerBytes || s.inFlight != n {
			t.Errorf("%d bytes of presences are queued, %d counted", n, s.inFlight)
		}
		p.hold = false
		for _, m := range p.replies {
			m.done(nil)
		}
		synctest.Wait()
		if s.inFlight != 0 || s.wants != 0 {
			t.Errorf("%d bytes, %d wants are left", s.inFlight, s.wants)
		}
	})
}

// TestServeWantsOfAllPeers: many peers' want lists are bounded together, and none is shut out.
func TestServeWantsOfAllPeers(t *testing.T) {
	inServer(t, ServeConfig{TotalWants: 2000}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		var peers []*served
		for i := range 4 {
			p := open()
			peers = append(peers, p)
			for j := range 1500 {
				p.receive([]Entry{{CID: testCID(i*2000 + j), Kind: WantBlock}}, false)
			}
			synctest.Wait()
		}
		if s.wants > 2000+4*leastWants || len(peers[3].wants) < leastWants {
			t.Errorf("%d wants are kept, %d of the last peer", s.wants, len(peers[3].wants))
		}
		for _, p := range peers {
			p.close()
		}
		if s.wants != 0 || len(s.waiting) != 0 {
			t.Errorf("%d wants are left, %d waiting", s.wants, len(s.waiting))
		}
	})
}

// TestServeTellsWhoWaitsUnderAnotherCID: the store finds a block under any CID of its multihash.
func TestServeTellsWhoWaitsUnderAnotherCID(t *testing.T) {
	inServer(t, ServeConfig{}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		v1 := newBlock(cid.DagProtobuf, []byte("node"))
		v0, err := blocks.NewBlockWithCid(v1.RawData(), cid.NewCidV0(v1.Cid().Hash()))
		if err != nil {
			t.Fatal(err)
		}
		p := open()
		p.receive(wantAll(WantBlock, v0), false)
		synctest.Wait()
		store.mu.Lock()
		store.blocks[v0.Cid()], store.blocks[v1.Cid()] = v1, v1
		store.mu.Unlock()
		s.notifyNewBlocks([]cid.Cid{v1.Cid()})
		synctest.Wait()
		if bs, _, _ := p.answers(); len(bs) != 1 || !bs[0].Cid().Equals(v0.Cid()) {
			t.Errorf("answered with %v", bs)
		}
	})
}
