package exchange

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// simCredit is what a simulated peer gives before it is paid.
type simCredit struct {
	credit Amount        // 0 has no bounds
	settle time.Duration // that it takes a payment in
	deaf   bool          // it takes none in
	flaps  bool          // once it gives nothing it says the contrary all the time, too

	// guarded by net.mu
	owed    Amount
	greeted bool // it has said what it takes
	warned  bool // it has said that it gives nothing
	held    int  // how often it said so
}

// holds says that a peer gives nothing until it is paid.
func (p *simPeer) holds() bool { return p.credit > 0 && p.owed >= p.credit }

// tellAccount says what a peer with credit to give takes, once, and that it gives nothing while something is wanted,
// when that begins and ends.
func (p *simPeer) tellAccount(ctx context.Context) {
	if p.credit == 0 {
		return
	}
	p.net.mu.Lock()
	held := p.holds() && (p.warned || len(p.queue) > 0)
	news := held != p.warned || !p.greeted
	if held && !p.warned {
		p.held++
	}
	p.warned, p.greeted = held, true
	p.net.mu.Unlock()
	if news {
		p.say(ctx, held)
	}
	if news && held && p.flaps {
		p.net.tasks.Go(func() {
			for pass(ctx, 300*time.Millisecond) {
				p.say(ctx, false)
				p.say(ctx, true)
			}
		})
	}
}

func (p *simPeer) say(ctx context.Context, held bool) {
	p.net.handler.Received(ctx, p.id, Incoming{Account: &Account{PricePerMiB: p.price, Suspended: held}})
}

// paid lets a peer take a payment in.
func (n *simNet) paid(id peer.ID, dues []Due) {
	n.mu.Lock()
	p := n.peers[id]
	n.mu.Unlock()
	if p == nil || p.credit == 0 || p.deaf {
		return
	}
	n.tasks.Go(func() {
		if !pass(n.ctx, p.settle) {
			return
		}
		n.mu.Lock()
		for _, d := range dues {
			p.owed -= min(p.owed, d.Amount)
		}
		n.mu.Unlock()
		poke(p.more)
	})
}

// creditMarket is a cheap seller and a dear one, equally fast, and a file that both have.
func creditMarket(t *testing.T, purse *simPurse, perSecond Amount, are func(cheap, dear *simPeer), then func(s *sim, took time.Duration, cheap, dear *simPeer)) {
	t.Helper()
	simulatePaid(t, Limits{}, purse, func(s *sim) {
		root, all := tree(40, mib, 40)
		cheap, dear := s.net.add("cheap", all...), s.net.add("dear", all...)
		cheap.price, dear.price = 1000, 8000
		cheap.credit, dear.credit = 8*cheap.price, 8*dear.price
		cheap.rate, dear.rate = 16*mib, 16*mib
		are(cheap, dear)
		cheap.connect()
		dear.connect()
		s.spend(root, Spending{MaxPricePerMiB: 10_000, Budget: 1 << 40, PerSecond: perSecond})
		took := s.download(root, time.Hour)
		t.Logf("took %v: %d MiB of the cheap one, which held %d times, %d of the dear one; %+v", took, cheap.sentBytes>>20, cheap.held, dear.sentBytes>>20, s.Stats())
		then(s, took, cheap, dear)
	})
}

// TestLatePaymentsAreWaitedFor: who sells for less and gives nothing until our payments have come still serves
// all, whether they are late here or there.
func TestLatePaymentsAreWaitedFor(t *testing.T) {
	for _, c := range []struct {
		name         string
		slow, settle time.Duration
	}{
		{"in time", 0, 0},
		{"a second to pay", time.Second, 0},
		{"two seconds to pay", 2 * time.Second, 0},
		{"a second to take in", 0, time.Second},
		{"two seconds to take in", 0, 2 * time.Second},
		{"both", 1500 * time.Millisecond, 1500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			purse := newSimPurse()
			purse.slow = c.slow
			creditMarket(t, purse, 1000, func(cheap, _ *simPeer) { cheap.settle = c.settle }, func(s *sim, took time.Duration, cheap, dear *simPeer) {
				if c.slow+c.settle > 0 && cheap.held == 0 {
					t.Error("the credit was never used up")
				}
				if dear.sentBytes > 2*mib {
					t.Errorf("%d bytes of the dear one", dear.sentBytes)
				}
			})
		})
	}
}

// TestWhoTakesNoPaymentInStarvesNobody: who sells for less, and never again after the first blocks, is waited for as
// long as that could save anything.
func TestWhoTakesNoPaymentInStarvesNobody(t *testing.T) {
	for _, c := range []struct {
		name      string
		perSecond Amount
		wait      time.Duration // that is worth it: for what the difference is at most, as nothing says how long a block is
		are       func(cheap, dear *simPeer)
	}{
		{"time is worth something", 2000, 7 * time.Second, func(cheap, _ *simPeer) { cheap.deaf = true }},
		{"time is worth much", 1_000_000, 0, func(cheap, _ *simPeer) { cheap.deaf = true }},
		{"time is worth nothing", 0, restPatience, func(cheap, dear *simPeer) {
			cheap.price, cheap.credit, cheap.deaf = 10, 80, true
			dear.price, dear.credit = 80, 640
		}},
		{"payments are taken in once a minute", 2000, 7 * time.Second, func(cheap, _ *simPeer) { cheap.settle = time.Minute }},
		{"says all the time that it gives something", 2000, restPatience, func(cheap, _ *simPeer) { cheap.deaf, cheap.flaps = true, true }},
		{"no more than a block is given", 2000, 7 * time.Second, func(cheap, _ *simPeer) { cheap.credit, cheap.deaf = 1000, true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			creditMarket(t, newSimPurse(), c.perSecond, c.are, func(s *sim, took time.Duration, cheap, dear *simPeer) {
				if dear.sentBytes < 30*mib || took < c.wait || took > c.wait+3*time.Second {
					t.Errorf("took %v, %d bytes of the dear one", took, dear.sentBytes)
				}
			})
		})
	}
}
