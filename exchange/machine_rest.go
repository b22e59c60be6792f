package exchange

import "time"

// A seller whose credit is used up rests: it gives nothing until payments of ours have come. They take their time,
// here and there, as each is written to the disk, and buying elsewhere meanwhile may cost much more than that time is
// worth. So a seller that rests counts with its cost and the time it has rested, and is waited for while that is less
// than what can be had at once: when the wait has cost what it would save, whoever asks for more gets to sell.

// restPatience is the longest that a peer is waited for which rests, whatever it would save.
const restPatience = 10 * time.Second

// rest is the time in which a peer gives nothing until it is paid. It begins with the peer's word, and ends with
// another one or with a block.
type rest struct {
	on     bool
	since  time.Duration
	waited time.Duration // in earlier ones, since it last delivered
}

// rests notes that a peer gives nothing from now on. How fast it delivers is not measured meanwhile.
func (m *machine) rests(p *peerState) {
	if !p.rest.on {
		p.rest.on, p.rest.since, p.sampling = true, m.now, false
	}
}

// resumes notes that a peer gives blocks again. What it was asked for before is late by no fault of its, unless it
// has said so for too long.
func (m *machine) resumes(p *peerState) {
	if !p.rest.on {
		return
	}
	p.rest.on, p.rest.waited, p.sampling = false, p.restedFor(m.now), false
	if p.rest.waited >= restPatience {
		return
	}
	if p.blocks > 0 {
		p.progress = m.now
	}
	for _, a := range p.asks {
		a.at, a.rested = a.at+m.now-max(a.at, p.rest.since), true
	}
}

// tryAgain lets a peer be asked that rests: if it still gives nothing, it says so.
func (m *machine) tryAgain(p *peerState) {
	m.resumes(p)
	p.suspended = false
}

// sold notes that a peer gives a block that is wanted: for what it has held back before it is forgiven.
func (m *machine) sold(p *peerState) {
	m.resumes(p)
	p.rest.waited = 0
	if p.suspended {
		m.rests(p)
	}
}

// restedFor is how long a peer holds back, with what it did before that led to no block; 0 if it does not.
func (p *peerState) restedFor(now time.Duration) time.Duration {
	if !p.rest.on {
		return 0
	}
	return p.rest.waited + now - p.rest.since
}

// resting is how long nothing was got of a seller that delivered before because payments are on their way, ok false
// if it is not waited for: there is no such reason, or it has lasted too long.
func (m *machine) resting(p *peerState) (d time.Duration, ok bool) {
	switch {
	case p.unpayable || !p.proven() || !p.charges && p.dues == 0:
		return 0, false
	case p.rest.on:
		d = p.restedFor(m.now)
	case p.dues >= m.limits.PeerDues:
		d = m.now - p.lastBlock
	default:
		return 0, false
	}
	return d, d < restPatience
}

// saves says whether a member that rests is still expected to have cost less than an offer that can be taken now, of
// a price and a cost. It notes when that ends.
func (m *machine) saves(w *want, n int64, price Amount, cost time.Duration) bool {
	found := false
	for _, mb := range w.session.members {
		rests, ok := m.resting(mb.peer)
		if !ok {
			continue
		}
		c, ok := m.cost(w, mb, n)
		o, v := m.buys(w, mb.peer)
		if !ok || v != affordable && v != later || o.price >= price {
			continue
		}
		if !mb.peer.rest.on {
			c += rests
		}
		if c += m.worth(w.session, o.price); c < cost {
			end := m.now + max(slack, min(cost-c, restPatience-rests))
			if found = true; m.money.wake == 0 || end < m.money.wake {
				m.money.wake = end
			}
		}
	}
	return found
}

// waking is the timer of wants that wait for sellers that rest.
type waking struct{ timer }

// ring does nothing: all wants that wait for room are looked at anew with every time.
func (*waking) ring(*machine) {}

// wake has the wants looked at anew when what choose waited for is not worth it any more.
func (m *machine) wake() {
	t := &m.waking.timer
	if at := m.money.wake; at > 0 && (t.pos == 0 || t.at > at) {
		m.timers.set(t, at)
	}
}

// leaves says whether an ask is to be left alone whose time is over, as its peer rests: unless it can be had elsewhere
// for less than it has cost to wait.
func (m *machine) leaves(a *ask) bool {
	w, p := a.want, a.peer
	if _, ok := m.resting(p); !ok || !p.rest.on {
		return false
	}
	best, some := m.choose(w)
	if !some && !a.hedged {
		a.hedged = true
		m.askAround(w)
	}
	if best == nil {
		return true
	}
	o, _ := m.quote(w, best)
	other := best.completion(m.now, w.session.estimate(w)) + m.worth(w.session, o.price)
	return p.restedFor(m.now)+m.worth(w.session, a.offer.price) < other
}
