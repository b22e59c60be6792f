package exchange

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

const (
	// searchPatience is the longest that a search is waited for while everybody who has a block is too dear.
	searchPatience = 10 * time.Second
	// dialPatience is after how many failed dials a peer is not waited for then.
	dialPatience = 3
)

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
	if rate := a.peer.perMiB; rate > e.Limit {
		e.PerMiB = min(e.PerMiB, rate) // small blocks' prices are rounded up
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
