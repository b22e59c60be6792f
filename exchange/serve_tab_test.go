package exchange

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/peer"
)

// testTill takes vouchers that are the sum paid so far, in digits.
type testTill struct {
	mu   sync.Mutex
	paid map[peer.ID]Amount
}

var errBadVoucher = errors.New("bad voucher")

// Accept implements Till.
func (t *testTill) Accept(_ context.Context, from peer.ID, voucher []byte) (Amount, error) {
	sum, err := strconv.ParseUint(string(voucher), 10, 64)
	if err != nil {
		return 0, errBadVoucher
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paid == nil {
		t.paid = make(map[peer.ID]Amount)
	}
	grew := max(t.paid[from], Amount(sum)) - t.paid[from]
	t.paid[from] += grew
	return grew, nil
}

// wantAt asks for blocks at a price per MiB.
func wantAt(price Amount, bs ...blocks.Block) []Entry {
	es := wantAll(WantBlock, bs...)
	for i := range es {
		es[i].PricePerMiB = price
	}
	return es
}

// accounts returns what a peer was told of its account, in order.
func (p *served) accounts() (all []Account) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.replies {
		if m.account != nil {
			all = append(all, *m.account)
		}
	}
	return all
}

func (p *served) prices() (all []Presence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.replies {
		all = append(all, m.presences...)
	}
	return all
}

func TestPriceIsRoundedUp(t *testing.T) {
	for _, c := range []struct {
		perMiB Amount
		bytes  uint64
		want   Amount
	}{
		{0, 1 << 20, 0}, {5, 0, 0}, {5, 1, 1}, {5, 1 << 20, 5}, {5, 1<<20 + 1, 6}, {1 << 20, 12345, 12345},
		{math.MaxUint64, 1 << 20, math.MaxUint64}, {math.MaxUint64, math.MaxUint64, math.MaxUint64}, {math.MaxUint64, 1<<20 - 1, math.MaxUint64 - 1<<44 + 1},
	} {
		if got := priceOf(c.perMiB, c.bytes); got != c.want {
			t.Errorf("%d bytes at %d a MiB cost %d, want %d", c.bytes, c.perMiB, got, c.want)
		}
	}
}

// TestServeForMoney goes through the life of a tab: offer, credit, suspension, payment.
func TestServeForMoney(t *testing.T) {
	cfg := ServeConfig{PricePerMiB: 1000, CreditBytes: 3 << 20, Workers: 1, Till: &testTill{}}
	inServer(t, cfg, func(t *testing.T, s *server, store *testStore, open func() *served) {
		var bs []blocks.Block
		for range 6 {
			bs = append(bs, rawBlockOf(t, 1<<20))
		}
		small := rawBlockOf(t, 10)
		store.add(append(bs, small)...)
		p := open()
		p.canPay(true)
		// Whoever has not agreed to the price is told it, and what is small is no exception.
		p.receive(append(wantAt(999, bs[0]), wantAll(WantHave, small)...), false)
		synctest.Wait()
		got, haves, _ := p.answers()
		if len(got) != 0 || len(haves) != 2 || len(p.wants) != 0 {
			t.Fatalf("a peer that was offered nothing got %d blocks, %d haves; %d wants are left", len(got), len(haves), len(p.wants))
		}
		for _, q := range p.prices() {
			if want := priceOf(1000, q.Bytes); q.Price != want || q.Price == 0 {
				t.Errorf("%d bytes are offered for %d, want %d", q.Bytes, q.Price, want)
			}
		}
		if as := p.accounts(); len(as) != 1 || as[0] != (Account{PricePerMiB: 1000, CreditBytes: 3 << 20}) {
			t.Errorf("the peer was told %+v", as)
		}
		p.clear()
		// On credit, and no further.
		p.receive(wantAt(1000, bs...), false)
		synctest.Wait()
		if got, _, _ := p.answers(); len(got) != 3 {
			t.Fatalf("on a credit of 3 MiB %d blocks of 1 MiB came", len(got))
		}
		if as := p.accounts(); len(as) != 1 || !as[0].Suspended || as[0].Owed != 3000 {
			t.Errorf("the peer was told %+v", as)
		}
		p.clear()
		// A bad payment changes nothing, presences are answered on.
		if err := p.paid([]byte("nonsense")); !errors.Is(err, errBadVoucher) {
			t.Errorf("a bad voucher: %v", err)
		}
		p.receive(wantAll(WantHave, small), false)
		synctest.Wait()
		if got, haves, _ := p.answers(); len(got) != 0 || len(haves) != 1 {
			t.Errorf("%d blocks, %d haves while nothing is paid", len(got), len(haves))
		}
		p.clear()
		// A payment brings as much as it pays for; the same again nothing.
		for range 2 {
			if err := p.paid([]byte("2000")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got, _, _ := p.answers(); len(got) != 2 {
			t.Errorf("for 2000 %d blocks of 1000 came", len(got))
		}
		if err := p.paid([]byte("6000")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, _, _ := p.answers(); len(got) != 3 || p.tab.owed != 0 || s.charged != 6000 || s.received != 6000 {
			t.Errorf("%d blocks, %d owed, %d charged, %d received", len(got), p.tab.owed, s.charged, s.received)
		}
		if as := p.accounts(); len(as) != 3 || as[0].Suspended || !as[1].Suspended || as[2].Suspended {
			t.Errorf("the peer was told %+v", as)
		}
	})
}

// TestDebtOutlivesTheConnection: who comes back owes what it did, and time forgives it slowly.
func TestDebtOutlivesTheConnection(t *testing.T) {
	inServer(t, ServeConfig{PricePerMiB: 100, CreditBytes: 2 << 20, Workers: 1}, func(t *testing.T, s *server, store *testStore, _ func() *served) {
		var bs []blocks.Block
		for range 8 {
			bs = append(bs, rawBlockOf(t, 1<<20))
		}
		store.add(bs...)
		connect := func() *served { // of a make that can't pay
			p := &served{}
			p.ledger = s.open("peer", p.send)
			p.receive(wantAll(WantBlock, bs...), false)
			synctest.Wait()
			return p
		}
		for i, want := range []int{2, 0, 1, 2} {
			p := connect()
			if got, _, _ := p.answers(); len(got) != want || len(p.accounts()) != 0 {
				t.Errorf("connection %d: %d blocks, want %d; told %v", i, len(got), want, p.accounts())
			}
			p.close()
			p.close() // twice does no harm
			time.Sleep([]time.Duration{0, debtLife / 2, debtLife * 9, 0}[i])
		}
		if s.inFlight != 0 || s.wants != 0 || len(s.tabs.byPeer) != 1 || s.tabs.byPeer["peer"].open != 0 {
			t.Errorf("left: %d bytes, %d wants, %d tabs", s.inFlight, s.wants, len(s.tabs.byPeer))
		}
	})
}

// TestWhatWasLostIsForgiven: blocks that were on their way to a peer that pays when its connection broke do not
// keep it from buying more, and that is worth no more to a cheat than another peer ID.
func TestWhatWasLostIsForgiven(t *testing.T) {
	cfg := ServeConfig{PricePerMiB: 100, CreditBytes: 2 << 20, Workers: 1, Till: &testTill{}}
	inServer(t, cfg, func(t *testing.T, s *server, store *testStore, _ func() *served) {
		var bs []blocks.Block
		for range 8 {
			bs = append(bs, rawBlockOf(t, 1<<20))
		}
		store.add(bs...)
		for i, c := range []struct {
			pays string        // the sum of all payments, once all of the credit was given
			got  int           // blocks, before and after the payment
			then time.Duration // until it comes back
		}{
			{"", 2, 0},              // all is lost
			{"", 2, 0},              // and forgiven, once
			{"100", 1, 0},           // not again
			{"500", 5, 0},           // but as much as was paid: here all
			{"500", 2, debtLife},    // nothing of it is left to be forgiven for
			{"500", 2, time.Second}, // time has passed
			{"500", 0, 0},
		} {
			p := &served{}
			p.ledger = s.open("peer", p.send)
			p.canPay(true)
			p.canPay(true) // told twice it is forgiven once
			p.receive(wantAt(100, bs...), false)
			synctest.Wait()
			if c.pays != "" {
				if err := p.paid([]byte(c.pays)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			if got, _, _ := p.answers(); len(got) != c.got {
				t.Errorf("connection %d: %d blocks, want %d; owed %d", i, len(got), c.got, p.tab.owed)
			}
			p.close()
			time.Sleep(c.then)
		}
	})
}

// TestTabsAreBounded: peers that come and go can't make us remember them all; those that stay are.
func TestTabsAreBounded(t *testing.T) {
	inServer(t, ServeConfig{PricePerMiB: 100, Accounts: 10}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		b := rawBlockOf(t, 1<<20)
		store.add(b)
		stays := open()
		stays.receive(wantAll(WantBlock, b), false)
		synctest.Wait()
		for i := range 100 {
			l := s.open(peer.ID(fmt.Sprint("other", i)), func(r *reply) { r.done(nil) })
			l.receive(wantAll(WantBlock, b), false)
			synctest.Wait()
			l.close()
		}
		if len(s.tabs.byPeer) != 10 || s.tabs.order.Len() != 10 || s.tabs.byPeer[stays.peer] == nil || stays.tab.owed != 100 {
			t.Errorf("%d tabs are kept, %d owed by who stays", len(s.tabs.byPeer), stays.tab.owed)
		}
	})
}

// TestFreeServingKeepsNoTabs: without a price everything is as it was.
func TestFreeServingKeepsNoTabs(t *testing.T) {
	inServer(t, ServeConfig{}, func(t *testing.T, s *server, store *testStore, open func() *served) {
		b := rawBlockOf(t, 1<<20)
		store.add(b)
		p := open()
		p.canPay(true)
		p.receive(wantAll(WantBlock, b), false)
		synctest.Wait()
		if got, _, _ := p.answers(); len(got) != 1 || p.tab != nil || len(s.tabs.byPeer) != 0 || len(p.accounts()) != 0 {
			t.Errorf("%d blocks, tab %v, told %v", len(got), p.tab, p.accounts())
		}
	})
}
