package exchange

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// tariffBytes is the length of a block whose price tells well enough what a peer takes for each byte:
	// prices are rounded up, which makes small blocks look dear.
	tariffBytes = 16 * kib
	// searchPatience is the longest that a search is waited for while everybody who has a block is too dear.
	searchPatience = 10 * time.Second
	// dialPatience is after how many failed dials a peer is not waited for then.
	dialPatience = 3
	// worthless is what a unit of money is counted as while time is worth nothing, and worthlessMost the most.
	worthless     = time.Hour
	worthlessMost = 1000 * time.Hour
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

// priceTag is what a block costs.
type priceTag struct {
	price  Amount // of the block, or of the longest that it may be
	bytes  uint64 // the length that the price is for; 0 is unknown
	perMiB Amount
	rate   bool   // the price for each MiB is what the peer takes; else it was derived from that of the block
	limit  Amount // what was allowed for each MiB when it was taken
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

// takeAccount takes a peer's word on what it takes, and on whether it gives us anything now.
func (m *machine) takeAccount(p *peerState, a *Account) {
	was := m.trusted(p)
	p.charges, p.perMiB, p.suspended = a.PricePerMiB > 0, a.PricePerMiB, a.Suspended
	if !was && m.trusted(p) {
		m.revive(p)
	}
}

// learnPrice remembers what a peer takes, from a word of it that it has a block.
func (p *peerState) learnPrice(pr Presence) {
	o := offerOf(pr)
	switch {
	case o.price == 0 && (o.bytes >= tariffBytes || p.perMiB == 0):
		p.charges, p.perMiB = false, 0
	case o.price > 0:
		p.charges = true
		if o.bytes >= tariffBytes && o.price != p.perMiB.share(o.bytes, mib) {
			p.perMiB = o.perMiB
		}
	}
}

// offerOf is what a presence offers. A length that no block has is taken for the greatest.
func offerOf(pr Presence) priceTag {
	bytes := min(pr.Bytes, maxBlockBytes)
	return priceTag{price: pr.Price, bytes: bytes, perMiB: pr.Price.share(mib, or(bytes, maxBlockBytes))}
}

// mostBytes is the greatest length that a want's block may have.
func (w *want) mostBytes() uint64 { return min(or(w.Place.Bytes, maxBlockBytes), maxBlockBytes) }

// quote returns what p takes for a want's block, or, by what it takes for others, at most for the longest
// that the block may be. known is false when it charges and did not say how much.
func (m *machine) quote(w *want, p *peerState) (o priceTag, known bool) {
	if a := w.askOf(p); a != nil && a.answer == answerHave {
		return a.offer, true
	}
	if !p.charges {
		return priceTag{}, true
	}
	if p.perMiB == 0 {
		return priceTag{}, false
	}
	most := w.mostBytes()
	return priceTag{price: p.perMiB.share(most, mib), bytes: most, perMiB: p.perMiB, rate: true}, true
}

// verdict is what the limits say to an offer.
type verdict uint8

const (
	affordable verdict = iota
	tight              // it will be affordable if what is committed elsewhere is not spent
	tooDear
	overBudget
	notNow // the price is not known, or the peer can't be paid
)

// verdict says whether an offer for a want may be taken.
func (m *machine) verdict(w *want, o priceTag) verdict {
	if o.price == 0 {
		return affordable
	}
	c := w.session.wallet
	if c == nil || o.price > c.MaxPricePerMiB.share(or(o.bytes, w.mostBytes()), mib) {
		return tooDear
	}
	day := or(m.limits.DayBudget, ^Amount(0))
	switch {
	case c.spent.plus(o.price) > c.Budget || m.money.today.plus(o.price) > day:
		return overBudget
	case c.spent.plus(c.committed).plus(o.price) > c.Budget || m.money.today.plus(m.money.committed).plus(o.price) > day:
		return tight
	}
	return affordable
}

// buys returns what p takes for a want's block, and whether it may be asked for the block for that.
func (m *machine) buys(w *want, p *peerState) (priceTag, verdict) {
	o, known := m.quote(w, p)
	if !known || o.price > 0 && !m.trusted(p) {
		return o, notNow
	}
	v := m.verdict(w, o)
	if o.rate && v != affordable {
		return o, notNow // it may be, once it says what it takes for this block
	}
	return o, v
}

// trusted says whether a peer gives blocks for money, takes our payments, and waits for few of them.
func (m *machine) trusted(p *peerState) bool {
	return !p.unpayable && !p.suspended && p.dues < m.limits.PeerDues
}

// worth is how much longer something may take that costs so much less.
func (m *machine) worth(s *session, price Amount) time.Duration {
	if price == 0 {
		return 0
	}
	if s.wallet == nil || s.wallet.PerSecond == 0 {
		return min(worthless*time.Duration(min(price, 1000)), worthlessMost)
	}
	seconds := float64(price) / float64(s.wallet.PerSecond)
	return min(time.Duration(min(seconds, worthlessMost.Seconds())*float64(time.Second)), worthlessMost)
}

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
		p.unpayable, p.suspended, p.dues = false, false, max(0, p.dues-len(e.dues))
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

// refuse ends a want that costs more than it may at everybody who has it, once nobody else is to be
// found. True says that it did.
func (m *machine) refuse(w *want) bool {
	a := m.cheapest(w)
	if a == nil || m.looking(w) {
		return false
	}
	var err error
	if m.verdict(w, a.offer) == tooDear {
		m.stats.TooDear++
		err = m.tooDearError(w, a)
	} else {
		m.stats.OverBudget++
		err = m.budgetError(w, a)
	}
	m.fail(w, err)
	return true
}

// cheapest returns the ask with the best offer for a want if all that is known are offers too dear, else nil.
func (m *machine) cheapest(w *want) (best *ask) {
	for _, a := range w.asks {
		switch {
		case a.live() || a.kind == WantBlock && a.expired:
			return nil // it may be free, or come
		case a.answer != answerHave:
		case m.verdict(w, a.offer) < tooDear:
			return nil // it can be had, if not at once
		case best == nil || a.offer.price < best.offer.price:
			best = a
		}
	}
	return best
}

// looking says whether somebody may yet be found who has a want's block.
func (m *machine) looking(w *want) bool {
	if m.now-w.soughtAt >= searchPatience {
		return false
	}
	for _, c := range []cid.Cid{w.CID, w.session.key} {
		if f := m.searches[c]; f != nil && (f.running || f.queued) {
			return true
		}
	}
	return w.session.dialing > 0 || slices.ContainsFunc(w.session.members, func(mb *member) bool { return mb.peer.awaited(m.now) })
}

// awaited says whether a peer that is away is to be dialed soon.
func (p *peerState) awaited(now time.Duration) bool {
	return p.dialQueued || !p.connected && now < p.redial && p.dialFails < dialPatience
}

// refuseAll ends those of a session's wants that are too dear.
func (m *machine) refuseAll(s *session) {
	for _, w := range s.waiting() {
		if len(w.asks) > 0 {
			m.refuse(w)
		}
	}
}

func (m *machine) tooDearError(w *want, a *ask) error {
	e := &TooDearError{CID: w.CID, Peer: a.peer.id, Price: a.offer.price, Bytes: a.offer.bytes}
	e.PerMiB = e.Price.share(mib, or(e.Bytes, w.mostBytes()))
	if c := w.session.wallet; c != nil {
		e.Limit = c.MaxPricePerMiB
	}
	return e
}

func (m *machine) budgetError(w *want, a *ask) error {
	c := w.session.wallet
	e := &BudgetError{CID: w.CID, Dataset: c.key, Peer: a.peer.id, Price: a.offer.price, Spent: c.spent, Budget: c.Budget}
	if c.spent.plus(e.Price) <= c.Budget {
		e.Spent, e.Budget, e.Day = m.money.today, m.limits.DayBudget, true
	}
	return e
}
