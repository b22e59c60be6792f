package exchange

import (
	"cmp"
	"slices"
	"time"
)

const (
	// serveAtOnce is how many wants of a session are given out before it is the next one's turn.
	serveAtOnce = 32
	// choosyAtOnce is how many wants that some peer lacks are looked at in one turn.
	choosyAtOnce = 64
	// slack is how much longer than the fastest peer another one may always take.
	slack = 50 * time.Millisecond
)

// dispatch gives queued wants to peers, session by session in turn, until none can be given.
func (m *machine) dispatch() {
	for blocked := 0; blocked < len(m.turn); {
		s := m.turn[0]
		m.turn = m.turn[1:]
		blocked++
		reclaims := m.money.reclaims
		if m.serve(s) > 0 || m.money.reclaims != reclaims { // what one could not use another may
			blocked = 0
		}
		if s.queued() > 0 {
			m.turn = append(m.turn, s)
			continue
		}
		s.inTurn = false
		blocked = max(0, blocked-1)
	}
}

// serve gives some of a session's wants to peers and returns how many.
func (m *machine) serve(s *session) int {
	n := 0
	for left := min(s.choosy.n, choosyAtOnce); left > 0; left-- {
		w := s.choosy.head
		if m.assign(w) {
			n++
		} else {
			s.choosy.push(w)
		}
	}
	for n < serveAtOnce {
		w := s.first()
		if w == nil || !m.assign(w) {
			break
		}
		n++
	}
	return n
}

// assign asks the best peer for a want, or seeks one. False says that it has to wait for room.
func (m *machine) assign(w *want) bool {
	if m.probe(w) {
		return true
	}
	p, some := m.choose(w)
	if p == nil && m.money.tight && m.reclaim() {
		p, some = m.choose(w)
	}
	switch {
	case p != nil:
		m.ask(w, p)
		m.explore(w)
	case some:
		m.wake()
		return false
	default:
		m.seek(w)
	}
	return true
}

// choose returns the peer that is expected to deliver a want first, among those of its session that
// may have it and have room. some says that there is one, if perhaps without room now.
func (m *machine) choose(w *want) (best *peerState, some bool) {
	s := w.session
	n := s.estimate(w)
	proven := s.hasProven(m.now)
	m.money.tight, m.money.wake = false, 0
	var bestCost, least time.Duration
	var price Amount
	for _, mb := range s.members {
		cost, ok := m.cost(w, mb, n)
		if !ok {
			continue
		}
		o, v := m.buys(w, mb.peer)
		if v >= tooDear {
			continue
		}
		cost += m.worth(s, o.price)
		if !some || cost < least {
			least = cost
		}
		some = true
		if v == tight {
			m.money.tight = true
		} else if m.room(w, mb.peer, n, proven) && (best == nil || cost < bestCost) {
			best, bestCost, price = mb.peer, cost, o.price
		}
	}
	if best != nil && price > 0 && w.othersAsked(best) && m.worth(s, price) > m.limits.HaveTimeout {
		return nil, true // somebody cheaper may be about to say that it has the block
	}
	if best != nil && price > 0 && m.saves(w, n, price, bestCost) {
		return nil, true // somebody cheaper is about to be paid
	}
	if best != nil && (best.proven() || price > 0) && bestCost > 3*least+slack {
		return nil, true // the faster one is worth waiting for
	}
	return best, some
}

// cost is the time by which a member is expected to have delivered, corrected by how often it failed
// and how often it lacked what it was asked for. ok is false if it is not to be asked.
func (m *machine) cost(w *want, mb *member, n int64) (cost time.Duration, ok bool) {
	p := mb.peer
	if !p.callable(m.now) || w.denied(p) || !m.engageable(p) {
		return 0, false
	}
	doubt := 1 + p.failures + mb.cold
	if a := w.askOf(p); a != nil {
		if a.kind == WantBlock && a.answer == answerNone {
			return 0, false // it was asked already
		}
		if a.answer == answerHave {
			doubt = 1 + p.failures
		}
	} else if mb.cold >= coldAfter || p.failures > m.limits.Retries {
		return 0, false // only for what it says to have
	}
	return (p.completion(m.now, n) + p.restedFor(m.now)) * time.Duration(doubt), true
}

// hasProven says whether a member that delivers may be asked.
func (s *session) hasProven(now time.Duration) bool {
	for _, mb := range s.members {
		if mb.peer.proven() && mb.peer.callable(now) {
			return true
		}
	}
	return false
}

// room says whether w, a block of n bytes, may be asked for at p. One always may. Downloads leave a
// quarter of everything to readers, whose wants so go out at once and are served first.
func (m *machine) room(w *want, p *peerState, n int64, besideProven bool) bool {
	entries, total, window := m.limits.PeerWants, m.limits.TotalBytes, p.window(&m.limits, besideProven)
	if w.bulk {
		entries, total, window = entries-entries/4, total-total/4, window-window/4
	}
	if len(p.asks) >= entries && w.askOf(p) == nil {
		return false
	}
	if m.bytes+m.storing+n > total && m.bytes+m.storing > 0 {
		return false
	}
	return p.blocks == 0 || p.bytes+n <= window
}

// ranking returns the connected peers, those that delivered most lately and failed least first.
func (m *machine) ranking() []*peerState {
	if m.rankedAt != 0 && m.now-m.rankedAt < m.limits.RefreshMin {
		return m.connected
	}
	m.rankedAt = m.now
	slices.SortStableFunc(m.connected, func(a, b *peerState) int {
		return cmp.Or(cmp.Compare(a.failures, b.failures), cmp.Compare(b.lastBlock, a.lastBlock))
	})
	for i, p := range m.connected {
		p.listed = i + 1
	}
	return m.connected
}

// askAround asks peers whether they have a block, as many at a time as the limits allow, and returns
// how many have yet to answer.
func (m *machine) askAround(w *want) int {
	n := w.pending(WantHave)
	for _, p := range m.ranking() {
		if n >= m.limits.PeersPerBlock {
			break
		}
		if p.presences && m.prospect(w, p) {
			m.askHave(w, p)
			n++
		}
	}
	return n
}

// explore asks around once in a while for a want that is being taken care of, to know more peers.
func (m *machine) explore(w *want) {
	s := w.session
	if again := s.forestall.due && m.now >= s.forestall.at; s.explored && !again && w.state == wantAsked {
		return
	}
	s.explored, s.forestall.due = true, false
	n := w.pending(WantHave)
	for _, p := range m.ranking() {
		if n >= m.limits.PeersPerBlock {
			break
		}
		if p.presences && (w.session.member(p) == nil || p.charges && p.perMiB == 0) && m.prospect(w, p) {
			m.askHave(w, p)
			n++
		}
	}
}

// askable says whether p can be asked whether it has a block, beside those who have yet to say so.
func (m *machine) askable(w *want, p *peerState) bool {
	return p.presences && w.pending(WantHave) < m.limits.PeersPerBlock && m.prospect(w, p)
}

// silentProspect returns a peer that never says have and can be asked for the block itself.
func (m *machine) silentProspect(w *want) *peerState {
	n := w.session.estimate(w)
	for _, p := range m.ranking() {
		if _, v := m.buys(w, p); v == affordable && !p.presences && m.prospect(w, p) && m.room(w, p, n, false) {
			return p
		}
	}
	return nil
}

// prospect says whether p can be asked about a want that it was not asked about.
func (m *machine) prospect(w *want, p *peerState) bool {
	if !p.callable(m.now) || w.denied(p) || !m.engageable(p) {
		return false
	}
	if a := w.askOf(p); a != nil {
		// Standing entries are asked again once the session has looked around, unless it is for the block.
		return a.answer == answerDontHave || a.expired && a.kind == WantHave
	}
	return len(p.asks) < m.limits.PeerWants
}
