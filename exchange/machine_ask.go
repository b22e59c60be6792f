package exchange

import (
	"cmp"
	"slices"
	"time"
)

const (
	// topPriority is the priority of the first want of readers; each next one has one less, so that
	// peers serve in the order of asking.
	topPriority  = 1 << 30
	bulkPriority = 1 << 29
)

// priority is what the want list says about a want's place in the queue.
func (m *machine) priority(w *want) int32 {
	m.seq++
	top := uint64(topPriority)
	if w.bulk {
		top = bulkPriority
	}
	return int32(top - m.seq%(1<<28))
}

// count adds an ask to the sums it is part of, or takes it out.
func (m *machine) count(a *ask, by int) {
	p := a.peer
	if !a.live() {
		return
	}
	p.open += by
	if a.kind == WantBlock {
		p.blocks += by
		p.bytes += int64(by) * a.bytes
		m.bytes += int64(by) * a.bytes
	}
}

// put adds an entry to what stands on a peer's list, or takes up the one that does.
func (m *machine) put(w *want, p *peerState) *ask {
	m.engage(p)
	a := w.askOf(p)
	if a == nil {
		a = &ask{want: w, peer: p}
		a.timer.owner = a
		w.asks = append(w.asks, a)
		p.asks[w.CID] = a
	} else {
		m.count(a, -1)
		m.uncommit(a)
	}
	m.seq++
	a.seq, a.at, a.answer, a.expired, a.hedged, a.rested = m.seq, m.now, answerNone, false, false, false
	p.used = m.now
	return a
}

// ask asks p for the block itself. It ends in wantAsked.
func (m *machine) ask(w *want, p *peerState) {
	o, _ := m.quote(w, p)
	a := m.put(w, p)
	m.commit(a, o)
	if w.asked++; w.asked > 1 {
		m.stats.Retries++
	}
	a.kind, a.bytes = WantBlock, w.session.estimate(w)
	a.alone = p.blocks == 0
	if a.alone {
		p.progress = m.now
		p.sampling = false // what was measured before may have ended in a cancel: the pause since tells nothing
	}
	a.expect = p.completion(m.now, a.bytes)
	m.count(a, 1)
	m.timers.set(&a.timer, m.now+min(2*a.expect+m.limits.HedgeDelay, m.patience(a)))
	m.send(p, m.entry(a))
	w.leave()
	w.state = wantAsked
	for i := len(w.asks) - 1; i >= 0; i-- {
		if o := w.asks[i]; o.expired && o.kind == WantBlock {
			m.cancel(o)
		}
	}
}

// askHave asks p whether it has the block.
func (m *machine) askHave(w *want, p *peerState) {
	a := m.put(w, p)
	a.kind, a.bytes, a.offer = WantHave, 0, priceTag{}
	m.count(a, 1)
	m.timers.set(&a.timer, m.now+max(m.limits.HaveTimeout, 4*p.latency))
	m.send(p, m.entry(a))
}

// entry is what an ask is on the peer's want list.
func (m *machine) entry(a *ask) Entry {
	e := Entry{CID: a.want.CID, Kind: a.kind, Priority: m.priority(a.want), SendDontHave: a.peer.presences}
	if a.committed > 0 {
		e.PricePerMiB = a.offer.perMiB
	}
	return e
}

// drop forgets an ask without telling the peer: it was answered, or the peer is gone, or does not know
// our list any more.
func (m *machine) drop(a *ask) {
	m.count(a, -1)
	m.uncommit(a)
	m.timers.stop(&a.timer)
	delete(a.peer.asks, a.want.CID)
	if i := slices.Index(a.want.asks, a); i >= 0 {
		a.want.asks = slices.Delete(a.want.asks, i, i+1)
	}
}

// cancel takes an ask back.
func (m *machine) cancel(a *ask) {
	m.drop(a)
	a.peer.excuse(1, m.recent.laps, &m.limits)
	m.send(a.peer, Entry{CID: a.want.CID, Kind: Cancel})
}

// withdraw takes everything back that was asked for a want.
func (m *machine) withdraw(w *want) {
	for len(w.asks) > 0 {
		m.cancel(w.asks[len(w.asks)-1])
	}
}

// dropAll forgets what was asked of a peer, and returns the wants in the order they were asked.
func (m *machine) dropAll(p *peerState) []*want {
	asks := make([]*ask, 0, len(p.asks))
	for _, a := range p.asks {
		asks = append(asks, a)
	}
	p.excuse(len(asks), m.recent.laps, &m.limits)
	slices.SortFunc(asks, func(a, b *ask) int { return cmp.Compare(a.seq, b.seq) })
	wants := make([]*want, len(asks))
	for i, a := range asks {
		wants[i] = a.want
		m.drop(a)
	}
	return wants
}

// have takes a peer's word that it has a block. It may come after the question was taken back.
func (m *machine) have(p *peerState, pr Presence) {
	m.stats.Haves++
	p.learnPrice(pr)
	w := m.wants[pr.CID]
	if s := m.sessions[pr.CID]; w == nil && s != nil {
		m.join(s, p).cold = 0 // the root came before this word did; who has it is good for more
	}
	if w == nil {
		return
	}
	m.join(w.session, p).cold = 0
	if w.state == wantStoring {
		return
	}
	a := w.askOf(p)
	if a != nil && a.kind == WantBlock {
		m.counter(a, offerOf(pr))
		return
	}
	delete(w.tried, p)
	if a != nil {
		m.answered(a)
		m.count(a, -1)
		a.answer, a.expired, a.offer = answerHave, false, offerOf(pr)
		m.count(a, 1)
		m.timers.stop(&a.timer)
	}
	if w.waits() {
		m.enqueue(w)
	}
}

// counter takes in what a peer says to a want-block instead of giving the block: that it has it, for more than
// it was promised. The entry stands, and is sent again if the offer is taken. Who asks for more and more
// is passed by until the session looks around again. Who asks for less is promised less.
func (m *machine) counter(a *ask, o priceTag) {
	if o.price <= a.offer.price {
		if o.price > 0 && o.price < a.committed {
			m.lower(a, o)
		}
		return
	}
	w := a.want
	if a.offer.price > 0 {
		w.deny(a.peer)
	}
	m.answered(a)
	m.count(a, -1)
	m.uncommit(a)
	a.answer, a.expired, a.offer = answerHave, false, o
	m.count(a, 1)
	m.timers.stop(&a.timer)
	m.reconsider(w)
	if w.waits() {
		m.enqueue(w)
	}
}

// dontHave takes a peer's word that it does not have a block.
func (m *machine) dontHave(p *peerState, pr Presence) {
	m.stats.DontHaves++
	a := p.asks[pr.CID]
	if a == nil {
		return
	}
	w := a.want
	m.answered(a)
	if mb := w.session.member(p); mb != nil && a.kind == WantBlock {
		mb.cold++
	}
	m.count(a, -1)
	m.uncommit(a)
	a.answer, a.expired, a.offer = answerDontHave, false, priceTag{}
	m.count(a, 1)
	m.timers.stop(&a.timer)
	w.deny(p)
	if 2*len(p.asks) > m.limits.PeerWants { // else it stays: the peer tells when it gets the block
		m.cancel(a)
	}
	m.reconsider(w)
}

// answered measures how fast a peer says what it has.
func (m *machine) answered(a *ask) {
	if a.answer == answerNone {
		a.peer.answered(m.now - a.at)
	}
}

// reconsider gives a want another way once none of its asks can deliver.
func (m *machine) reconsider(w *want) {
	switch {
	case w.state == wantAsked && w.pending(WantBlock) == 0:
		m.enqueue(w)
	case w.waits() && w.pending(WantHave) == 0:
		m.enqueue(w)
	}
}

// ring hedges an ask that takes long, gives it up when it takes too long, and repeats it much later.
func (a *ask) ring(m *machine) {
	switch {
	case a.expired:
		m.resend(a)
	case a.kind == WantHave:
		m.expire(a)
	case m.storing > m.limits.StoreBytes/2:
		// Blocks wait for our own store, so this one may be here already: nobody is to blame.
		m.timers.set(&a.timer, m.now+m.limits.HaveTimeout)
	case m.leaves(a):
		m.timers.set(&a.timer, m.now+m.limits.HaveTimeout)
	case !a.hedged:
		m.hedge(a)
		if a.peer.asks[a.want.CID] == a { // else its peer made way for the other
			m.timers.set(&a.timer, max(m.now, a.at+m.patience(a)))
		}
	case a.rested && m.now < a.at+m.patience(a):
		a.rested = false
		m.timers.set(&a.timer, a.at+m.patience(a))
	case m.now-a.peer.progress < m.limits.TimeoutMin/2 && m.now-a.at < 3*m.patience(a):
		m.timers.set(&a.timer, m.now+m.patience(a)/2) // the peer delivers: the block is only behind others
	default:
		m.expire(a)
	}
}

// patience is how long an ask may take.
func (m *machine) patience(a *ask) time.Duration {
	return min(max(4*a.expect, m.limits.TimeoutMin), m.limits.TimeoutMax)
}

// hedge asks a second peer for a slow block while the extra bytes stay few; else it asks around, so
// that somebody is known when the time is over.
func (m *machine) hedge(a *ask) {
	a.hedged = true
	w := a.want
	if w.pending(WantBlock) > 1 {
		return
	}
	n := w.session.estimate(w)
	budget := m.limits.HedgeBytes + int64(m.stats.Bytes)*m.limits.HedgePercent/100
	p, some := m.choose(w)
	if !some {
		m.askAround(w)
	}
	if p == nil || int64(m.stats.HedgedBytes)+n > budget {
		return
	}
	if o, _ := m.quote(w, p); m.worth(w.session, o.price) > m.now-a.at {
		return // it may well take as long again: what that would save is not worth the money
	}
	m.stats.Hedges++
	m.stats.HedgedBytes += uint64(n)
	m.ask(w, p)
	w.askOf(p).hedged = true
}

// expire gives an ask up. The entry stays on the peer's list until somebody else is asked for the
// block, so a peer that is only slow may still deliver.
func (m *machine) expire(a *ask) {
	m.stats.Timeouts++
	p, w := a.peer, a.want
	m.count(a, -1)
	a.expired = true
	if a.committed > 0 {
		m.money.stale[a] = struct{}{}
	}
	m.count(a, 1)
	w.deny(p)
	if a.kind == WantBlock && m.now-p.progress >= m.limits.TimeoutMin/2 {
		if m.now >= p.backoff {
			p.slower()
		}
		p.failed(m.now, &m.limits)
		m.armPeer(p)
	}
	m.timers.set(&a.timer, a.at+max(m.limits.ResendEvery, m.now-a.at+time.Second))
	m.reconsider(w)
}

// resend repeats an entry that was never answered: some peers drop what is too much for them.
func (m *machine) resend(a *ask) {
	p := a.peer
	a.at = m.now
	m.timers.set(&a.timer, m.now+m.limits.ResendEvery)
	m.send(p, m.entry(a))
}
