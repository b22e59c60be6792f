package exchange

import (
	"container/list"
	"context"
	"math"
	"math/bits"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// debtLife is the time in which a debt of the whole credit is forgotten. Blocks that were lost on the way are
// never paid, and must not add up until nothing is served any more. Who lives on it gets a credit in that time,
// which another peer ID would give at once.
const debtLife = 10 * time.Minute

// Till takes payments of peers. Its methods are safe for concurrent use.
type Till interface {
	// Accept takes a voucher of a peer and returns by how much it grew what the peer has paid: 0 for one that was
	// taken before. It is durable when Accept returns.
	Accept(ctx context.Context, from peer.ID, voucher []byte) (Amount, error)
}

// priceOf is what so many bytes cost, rounded up.
func priceOf(perMiB Amount, bytes uint64) Amount {
	hi, lo := bits.Mul64(uint64(perMiB), bytes)
	lo, carry := bits.Add64(lo, mib-1, 0)
	if hi += carry; hi >= mib {
		return math.MaxUint64
	}
	q, _ := bits.Div64(hi, lo, mib)
	return Amount(q)
}

// tab is the unpaid bill of a peer. It is kept over connections and lost with the process.
type tab struct {
	peer  peer.ID
	owed  int64 // in the ledger's smallest unit; below zero it has paid ahead
	since time.Time
	paid  int64         // since a debt was forgiven for a new connection
	fresh time.Time     // when that was done although less had been paid
	open  int           // ledgers that use it
	place *list.Element // in tabs.order
}

// tabs are the bills of all peers, the least recently used first to be forgotten. The server's lock guards them.
type tabs struct {
	most   int
	credit int64 // in the ledger's smallest unit; 0 is none to give, as nothing costs anything
	byPeer map[peer.ID]*tab
	order  list.List // of *tab, least recently used first
}

func newTabs(cfg *ServeConfig) tabs {
	return tabs{
		most:   cfg.Accounts,
		credit: clamp(priceOf(cfg.PricePerMiB, uint64(max(cfg.CreditBytes, 1)))),
		byPeer: make(map[peer.ID]*tab),
	}
}

// clamp makes an amount a signed one.
func clamp(a Amount) int64 { return int64(min(a, math.MaxInt64)) }

// open returns the tab of a peer that has connected, nil where nothing costs anything.
func (as *tabs) open(p peer.ID) *tab {
	if as.credit == 0 {
		return nil
	}
	a := as.byPeer[p]
	if a == nil {
		a = &tab{peer: p, since: time.Now()}
		as.byPeer[p] = a
		a.place = as.order.PushBack(a)
	}
	a.open++
	as.order.MoveToBack(a.place)
	as.trim()
	return a
}

// close gives a tab back whose connection is gone.
func (as *tabs) close(a *tab) {
	if a != nil {
		a.open--
		as.order.MoveToBack(a.place)
		as.trim()
	}
}

// trim forgets the tabs of peers that are not connected, beyond what is kept.
func (as *tabs) trim() {
	for e := as.order.Front(); e != nil && len(as.byPeer) > as.most; {
		a := e.Value.(*tab)
		e = e.Next()
		if a.open == 0 {
			as.order.Remove(a.place)
			delete(as.byPeer, a.peer)
		}
	}
}

// add changes what is owed.
func (a *tab) add(n int64) {
	switch sum := a.owed + n; {
	case n > 0 && sum < a.owed:
		a.owed = math.MaxInt64
	case n < 0 && sum > a.owed:
		a.owed = math.MinInt64
	default:
		a.owed = sum
	}
}

// forgive takes off what time has paid.
func (a *tab) forgive(credit int64, now time.Time) {
	passed := now.Sub(a.since)
	if a.owed <= 0 || passed >= debtLife {
		a.owed, a.since = min(a.owed, max(0, a.owed-credit)), now
		return
	}
	if n := int64(float64(credit) * (float64(passed) / float64(debtLife))); n > 0 {
		a.owed, a.since = max(0, a.owed-n), now
	}
}

// lost forgives a peer that pays what it owes when it comes back: what was on its way when the connection broke
// or the peer died has not arrived, so it will never be paid, and no payment would ever end the suspension. It is
// no more than was paid since, or all of it once in debtLife, which another peer ID would give at once.
func (a *tab) lost(now time.Time) {
	if a.owed <= 0 {
		return
	}
	if a.owed > a.paid {
		if now.Sub(a.fresh) < debtLife {
			a.owed, a.paid = a.owed-a.paid, 0
			return
		}
		a.fresh = now
	}
	a.owed, a.paid = 0, 0
}

// heldLocked says that no block goes to the peer now, as it owes too much, and that nothing else is queued.
func (l *ledger) heldLocked() bool {
	if l.tab == nil || len(l.queue) == 0 || !l.queue[0].block || l.tab.owed < l.s.tabs.credit {
		return false
	}
	l.tab.forgive(l.s.tabs.credit, time.Now())
	return l.tab.owed >= l.s.tabs.credit
}

// mustOffer says that a block which was asked for is offered at its price instead, as the peer has not agreed to it.
// Who can't pay gets what the credit gives.
func (l *ledger) mustOffer(w *demand) bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.tab != nil && l.pays && w.price < l.s.cfg.PricePerMiB
}

// offer says that a block is here, and what it costs.
func (l *ledger) offer(c cid.Cid, bytes int) Presence {
	p := Presence{CID: c, Have: true, Bytes: uint64(bytes)}
	if l.tab != nil {
		p.Price = priceOf(l.s.cfg.PricePerMiB, p.Bytes)
	}
	return p
}

// charge adds a block to what the peer owes.
func (l *ledger) charge(bytes int) {
	if l.tab == nil {
		return
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.tab.forgive(l.s.tabs.credit, time.Now())
	l.tab.add(clamp(priceOf(l.s.cfg.PricePerMiB, uint64(bytes))))
	l.s.charged += priceOf(l.s.cfg.PricePerMiB, uint64(bytes))
}

// news is what the peer is to be told about its account: what blocks cost, once, and that it gets none, each time
// when that begins.
func (l *ledger) news() *Account {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.tab == nil {
		return nil
	}
	held := l.heldLocked()
	news := !l.greeted || held != l.warned
	l.warned = held
	if !l.pays || !news {
		return nil
	}
	l.greeted = true
	return &Account{PricePerMiB: l.s.cfg.PricePerMiB, CreditBytes: uint64(l.s.cfg.CreditBytes),
		Owed: Amount(max(0, l.tab.owed)), Suspended: held}
}

// paid takes a voucher of the peer.
func (l *ledger) paid(voucher []byte) error {
	if l.s.cfg.Till == nil {
		return nil
	}
	grew, err := l.s.cfg.Till.Accept(l.ctx, l.peer, voucher)
	if err != nil || grew == 0 {
		return err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.received += grew
	if l.tab != nil {
		l.tab.add(-clamp(grew))
		l.tab.paid += min(clamp(grew), math.MaxInt64-l.tab.paid)
		l.readyLocked()
	}
	return nil
}

// canPay notes whether the peer speaks the protocol that carries payments. l may be nil.
func (l *ledger) canPay(yes bool) {
	if l == nil || !yes {
		return
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.tab != nil && !l.pays {
		l.tab.lost(time.Now())
	}
	l.pays = true
}
