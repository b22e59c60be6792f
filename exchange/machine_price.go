package exchange

import (
	"time"
)

const (
	// tariffBytes is the length of a block whose price tells well enough what a peer takes for each byte:
	// prices are rounded up, which makes small blocks look dear.
	tariffBytes = 16 * kib
	// worthless is what a unit of money is counted as while time is worth nothing, and worthlessMost the most.
	worthless     = time.Hour
	worthlessMost = 1000 * time.Hour
)

// priceTag is what a block costs.
type priceTag struct {
	price  Amount // of the block, or of the longest that it may be
	bytes  uint64 // the length that the price is for; 0 is unknown
	perMiB Amount
	rate   bool   // the price for each MiB is what the peer takes; else it was derived from that of the block
	limit  Amount // what was allowed for each MiB when it was taken
}

// takeAccount takes a peer's word on what it takes, and on whether it gives us anything now.
func (p *peerState) takeAccount(a *Account) {
	p.charges, p.perMiB, p.suspended = a.PricePerMiB > 0, a.PricePerMiB, a.Suspended
	p.charged = p.charged || p.charges
}

// learnPrice remembers what a peer takes, from a word of it that it has a block.
func (p *peerState) learnPrice(pr Presence) {
	o := offerOf(pr)
	switch {
	case o.price == 0 && (o.bytes >= tariffBytes || p.perMiB == 0):
		p.charges, p.perMiB = false, 0
	case o.price > 0:
		p.charges, p.charged = true, true
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
	later  // it is affordable, once payments that are on their way have come
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
	if !p.charged {
		return priceTag{}, affordable
	}
	o, known := m.quote(w, p)
	if !known {
		return o, notNow
	}
	v := m.verdict(w, o)
	if o.price > 0 && !m.trusted(p) {
		if _, rests := m.resting(p); rests && v == affordable {
			return o, later
		}
		return o, notNow
	}
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
