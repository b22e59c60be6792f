package exchange

import (
	"errors"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// worldTill is what a world knows of money: it does not trust the machine with it.
type worldTill struct {
	highest   map[cid.Cid]Amount // budget ever allowed for a dataset
	spent     map[cid.Cid]Amount
	dearest   Amount            // price for each MiB ever allowed
	delivered map[delivered]int // blocks that were asked for, came first, and are not paid for
	unpaid    []payment
	paid      Amount // today
}

// delivered is a block and who gave it.
type delivered struct {
	peer peer.ID
	cid  cid.Cid
}

func newWorldTill() worldTill {
	return worldTill{highest: make(map[cid.Cid]Amount), spent: make(map[cid.Cid]Amount), delivered: make(map[delivered]int)}
}

// rate is what a peer wants for a byte: two of three want something, or all of them.
func (w *world) rate(p peer.ID) Amount {
	switch n := Amount(p[len(p)-1] % 3); {
	case p == "angel":
		return 0
	case w.greedy:
		return max(1, n)
	default:
		return n
	}
}

// charges says whether a peer wants money.
func (w *world) charges(p peer.ID) bool { return w.rate(p) > 0 }

// offers is what a peer says that has a block.
func (w *world) offers(p peer.ID, b blocks.Block) Presence {
	pr := Presence{CID: b.Cid(), Have: true}
	if w.charges(p) {
		n := uint64(len(b.RawData()))
		pr.Price = w.rate(p) * Amount(n)
		if pr.Bytes = n; w.random.IntN(5) == 0 {
			pr.Bytes = w.random.Uint64N(3) * n / 2 // unknown, or a lie
		}
	}
	return pr
}

// spends lets somebody change what may be paid, or a day begin.
func (w *world) spends() {
	if w.random.IntN(10) == 0 {
		w.till.paid = 0
		w.step(dayEvent{0})
		return
	}
	dataset := w.blocks[w.random.IntN(4)+1].Cid()
	s := Spending{
		MaxPricePerMiB: Amount(w.random.IntN(5)) * mib,
		Budget:         Amount(w.random.IntN(4000)),
		PerSecond:      Amount(w.random.IntN(3)) * 1000,
	}
	w.till.highest[dataset] = max(w.till.highest[dataset], s.Budget)
	w.till.dearest = max(w.till.dearest, s.MaxPricePerMiB)
	w.step(walletEvent{dataset, w.till.spent[dataset]})
	w.step(spendingEvent{dataset, s})
}

// delivers notes a block that a peer is about to give, by its entry on the list.
func (w *world) delivers(p peer.ID, b blocks.Block, e Entry) {
	if want := w.m.wants[b.Cid()]; e.Kind == WantBlock && want != nil && want.state != wantStoring {
		w.till.delivered[delivered{p, b.Cid()}]++
	}
}

// owes checks what is due: once for a block that was asked for and came first, for no more than allowed.
func (w *world) owes(payments []payment) {
	for _, p := range payments {
		key := delivered{p.peer, p.due.CID}
		n := uint64(len(w.held[p.due.CID].RawData()))
		switch {
		case w.till.delivered[key] == 0:
			w.Fatalf("%d due to %s for a block that it did not give", p.due.Amount, p.peer)
		case p.due.Amount == 0 || p.due.Amount > w.till.dearest.share(n, mib) || p.due.Bytes != n:
			w.Fatalf("%+v due to %s for %d bytes", p.due, p.peer, n)
		}
		w.till.spent[p.due.Dataset] += p.due.Amount
		if w.till.delivered[key]--; w.till.delivered[key] == 0 {
			delete(w.till.delivered, key)
		}
	}
	w.till.unpaid = append(w.till.unpaid, payments...)
}

// pays lets a payment succeed, or fail.
func (w *world) pays() {
	if len(w.till.unpaid) == 0 {
		return
	}
	if p := w.till.unpaid[0]; w.random.IntN(4) == 0 {
		w.step(paidEvent{p.peer, []Due{p.due}, errors.New("no channel")})
		return
	}
	p := take(w.random, &w.till.unpaid)
	w.till.paid += p.due.Amount
	w.step(paidEvent{p.peer, []Due{p.due}, nil})
	if w.random.IntN(2) == 0 {
		w.step(dayEvent{w.till.paid})
	}
}

// checkBudgets: no more is spent and promised than was ever allowed.
func (w *world) checkBudgets() {
	y := &w.m.money
	for key, c := range y.wallets {
		if c.spent != w.till.spent[key] || c.spent+c.committed > w.till.highest[key] {
			w.Fatalf("%d spent and %d promised of %d at most", c.spent, c.committed, w.till.highest[key])
		}
	}
	if y.today+y.committed > w.m.limits.DayBudget {
		w.Fatalf("%d spent today and %d promised of %d", y.today, y.committed, w.m.limits.DayBudget)
	}
	if w.m.now > 0 && y.owed > y.today {
		w.Fatalf("%d owed of %d spent today", y.owed, y.today)
	}
}
