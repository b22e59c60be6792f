package exchange

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// money is what was and may be spent. What is committed was promised for blocks that are asked for; what
// is owed was promised for blocks that came, and is not known to be paid. Both count as spent.
type money struct {
	wallets   map[cid.Cid]*wallet
	order     []*wallet // those not used for longest first
	today     Amount    // paid or owed since the day began
	owed      Amount
	committed Amount
	stale     map[*ask]struct{} // committed for what is not waited for any more, but may still come
	reclaims  int               // how often something was reclaimed
	tight     bool              // what choose found lacks nothing but money that is committed elsewhere
	wake      time.Duration     // until when choose waits for a seller that rests; 0 if it does not
}

// wallet is the money of one dataset.
type wallet struct {
	Spending
	key       cid.Cid
	session   *session // nil when no session is open for it
	spent     Amount   // paid or owed
	committed Amount
	owed      Amount
}

// bill is what is to be paid for a block that is here, once it is stored.
type bill struct {
	peer   peer.ID
	wallet *wallet
	amount Amount
}

// payment is a due and who is to be paid.
type payment struct {
	peer peer.ID
	due  Due
}

// The events of money.
type (
	// walletEvent: a dataset is about to be used; so much was spent for it before. A wallet that is
	// known already stays as it is.
	walletEvent struct {
		dataset cid.Cid
		spent   Amount
	}
	// spendingEvent: so much may be spent for a dataset from now on. It follows an walletEvent.
	spendingEvent struct {
		dataset  cid.Cid
		spending Spending
	}
	// dayEvent: so much was paid since the day began.
	dayEvent struct{ paid Amount }
	// paidEvent: dues were paid, or could not be.
	paidEvent struct {
		peer peer.ID
		dues []Due
		err  error
	}
)

func newMoney() money {
	return money{wallets: make(map[cid.Cid]*wallet), stale: make(map[*ask]struct{})}
}

// openWallet begins a wallet, in place of the one that is of no use for longest if there are too many.
func (m *machine) openWallet(e walletEvent) {
	y := &m.money
	if y.wallets[e.dataset] != nil {
		return
	}
	if len(y.order) >= m.limits.Accounts {
		i := slices.IndexFunc(y.order, func(c *wallet) bool { return c.session == nil && c.committed == 0 && c.owed == 0 })
		if i < 0 {
			return // nothing is paid for a dataset too many
		}
		delete(y.wallets, y.order[i].key)
		y.order = slices.Delete(y.order, i, i+1)
	}
	c := &wallet{key: e.dataset, Spending: m.limits.Spending, spent: e.spent, session: m.sessions[e.dataset]}
	if c.session != nil {
		c.session.wallet = c
	}
	y.wallets[c.key] = c
	y.order = append(y.order, c)
}

// useWallet joins a new session with the wallet of its dataset, if there is one.
func (m *machine) useWallet(s *session) {
	y := &m.money
	c := y.wallets[s.key]
	if c == nil {
		return
	}
	s.wallet, c.session = c, s
	i := slices.Index(y.order, c)
	y.order = append(slices.Delete(y.order, i, i+1), c)
}

// setSpending changes what may be spent. What was too dear may not be any more.
func (m *machine) setSpending(e spendingEvent) {
	c := m.money.wallets[e.dataset]
	if c == nil {
		return
	}
	c.Spending = e.spending
	if c.session != nil {
		m.enqueueAll(c.session)
	}
}

// newDay takes in what was paid today. What is owed comes on top.
func (m *machine) newDay(e dayEvent) { m.money.today = e.paid.plus(m.money.owed) }

// commit promises the price of an offer for an ask.
func (m *machine) commit(a *ask, o priceTag) {
	a.offer = o
	if o.price == 0 {
		return
	}
	if a.offer.limit = a.want.session.wallet.MaxPricePerMiB; o.bytes == 0 {
		a.offer.perMiB = a.offer.limit // as nothing tells how long the block is
	}
	a.wallet, a.committed = a.want.session.wallet, o.price
	a.wallet.committed += o.price
	m.money.committed += o.price
}

// lower promises less, as the peer asks for less. The ask stays as it is.
func (m *machine) lower(a *ask, o priceTag) {
	o.perMiB, o.limit = a.offer.perMiB, a.offer.limit
	less := a.committed - o.price
	a.offer, a.committed = o, o.price
	a.wallet.committed -= less
	m.money.committed -= less
}

// uncommit takes the promise back.
func (m *machine) uncommit(a *ask) {
	delete(m.money.stale, a)
	if a.committed == 0 {
		return
	}
	a.wallet.committed -= a.committed
	m.money.committed -= a.committed
	a.wallet, a.committed = nil, 0
}

// charge turns what was promised for an ask into the bill of its want, as a block of n bytes came. It is
// at most what was agreed on, and less for a block that is shorter than it was said to be.
func (m *machine) charge(a *ask, n uint64) {
	if a.committed == 0 {
		return
	}
	o, c := a.offer, a.wallet
	due := o.price
	switch {
	case o.rate:
		due = o.perMiB.share(n, mib)
	case n < o.bytes:
		due = o.price.share(n, o.bytes)
	}
	m.uncommit(a)
	due = min(due, o.limit.share(n, mib), m.left(c)) // it may not be as long as it was said to be
	if due == 0 {
		return
	}
	c.committed += due
	m.money.committed += due
	a.want.bill = &bill{peer: a.peer.id, wallet: c, amount: due}
}

// left is what the budgets still allow to be promised.
func (m *machine) left(c *wallet) Amount {
	y := &m.money
	n := c.Budget - min(c.Budget, c.spent.plus(c.committed))
	if day := m.limits.DayBudget; day > 0 {
		n = min(n, day-min(day, y.today.plus(y.committed)))
	}
	return n
}

// settle makes a want's bill due: its block was verified and handed to the store. It is paid even if the
// store refused it, as whoever waits gets it all the same.
func (m *machine) settle(w *want) {
	b := w.bill
	if b == nil {
		return
	}
	w.bill = nil
	y, c := &m.money, b.wallet
	c.committed -= b.amount
	y.committed -= b.amount
	c.spent += b.amount
	c.owed += b.amount
	y.today += b.amount
	y.owed += b.amount
	if p := m.peers[b.peer]; p != nil {
		p.dues++
	}
	m.stats.Spent += b.amount
	m.stats.Bought++
	due := Due{Amount: b.amount, Dataset: c.key, CID: w.CID, Bytes: uint64(len(w.block.RawData()))}
	m.out.payments = append(m.out.payments, payment{b.peer, due})
}

// paid takes in how a payment went. A peer that can't be paid sells us nothing until it can.
func (m *machine) paid(e paidEvent) {
	p := m.peers[e.peer]
	if e.err != nil {
		m.stats.PaymentFailures++
		if p != nil {
			p.unpayable = true
		}
		return
	}
	m.stats.Payments++
	for _, d := range e.dues {
		m.money.owed -= d.Amount
		if c := m.money.wallets[d.Dataset]; c != nil {
			c.owed -= d.Amount
		}
	}
	if p != nil {
		was := m.trusted(p)
		p.unpayable, p.dues = false, max(0, p.dues-len(e.dues))
		if p.blocks == 0 { // else it says, or shows, when it gives again
			m.tryAgain(p)
		}
		if !was {
			m.revive(p)
		}
	}
}

// reclaim takes back what is asked for in vain, if money is committed for it. True says that some was.
func (m *machine) reclaim() bool {
	stale := slices.SortedFunc(maps.Keys(m.money.stale), func(a, b *ask) int { return cmp.Compare(a.seq, b.seq) })
	for _, a := range stale {
		m.cancel(a)
	}
	if len(stale) > 0 {
		m.money.reclaims++
	}
	return len(stale) > 0
}
