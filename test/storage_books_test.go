package test

import (
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// dataBytes is more than any chunk of a manifest has in these tests, and less than any of data.
const dataBytes = 64 << 10

// booksBalance checks that a writer has paid for each of its links, and for none twice: by what it says, by what
// providers say that they have earned, and by the ledger when they have closed their channels.
func booksBalance(t *testing.T, s *swarm.Swarm, writer *swarm.Node, all []*swarm.Node) {
	t.Helper()
	self := writer.Identity().ID
	s.Eventually("all links to be paid", func() bool {
		for _, l := range linksOf(t, writer) {
			if l.State != "signed" && l.State != "failed" || l.State == "signed" && !l.Paid {
				return false
			}
		}
		return true
	})
	paid := make(map[string]uint64)
	s.Eventually("providers to have all vouchers", func() bool {
		clear(paid)
		for _, c := range writer.Channels() {
			if c.Direction != "paying" || c.Amount > c.Deposit {
				t.Fatalf("the writer's channel %+v", c)
			}
			paid[c.Peer] += c.Amount
		}
		for _, p := range all {
			var earned uint64
			for _, c := range p.Channels() {
				if c.Direction != "receiving" || c.Peer != self {
					t.Fatalf("the channel of %s: %+v", p.Name, c)
				}
				earned += c.Amount
			}
			if earned != paid[p.Identity().ID] {
				return false
			}
		}
		return true
	})

	links, of, cheapest := uint64(0), make(map[string]uint64), uint64(0)
	for _, l := range linksOf(t, writer) {
		if l.Price == 0 {
			t.Errorf("chunk %s is kept for nothing", l.Chunk)
		}
		if l.Paid {
			links, of[l.Provider] = links+l.Price, of[l.Provider]+l.Price
		}
		if l.Bytes >= dataBytes && (cheapest == 0 || l.Price < cheapest) {
			cheapest = l.Price
		}
	}
	sum := uint64(0)
	for p, n := range paid {
		sum += n
		if n < of[p] {
			t.Errorf("%s was paid %d for links of %d", p, n, of[p])
		}
	}
	// Links of manifests that others took the place of are not listed any more. They cost less than any chunk of data.
	t.Logf("paid %d, for links %d; the cheapest chunk of data costs %d", sum, links, cheapest)
	if sum < links || sum-links >= cheapest {
		t.Errorf("paid %d for links of %d, the cheapest of which costs %d", sum, links, cheapest)
	}

	for _, p := range all {
		p.Must("channels", "close", self)
	}
	balances, held := s.Balances()
	for _, p := range all {
		if id := p.Identity().ID; balances[id] != int64(paid[id]) {
			t.Errorf("%s has %d in the ledger, and was paid %d", p.Name, balances[id], paid[id])
		}
	}
	if balances[self] != -int64(sum) || held != 0 {
		t.Errorf("the writer has %d in the ledger and paid %d; %d are held", balances[self], sum, held)
	}
}
