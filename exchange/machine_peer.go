package exchange

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// peer returns what is known of a peer, a new state if nothing is. Those not connected are bounded:
// the one that has been away longest is forgotten, banned ones last.
func (m *machine) peer(id peer.ID) *peerState {
	if p := m.peers[id]; p != nil {
		return p
	}
	p := &peerState{id: id, asks: make(map[cid.Cid]*ask)}
	p.timer.owner = p
	m.peers[id] = p
	m.known = append(m.known, p)
	if len(m.known) > m.limits.KnownPeers {
		m.forgetPeer()
	}
	return p
}

// forgetPeer forgets the peer that has been away longest, of those that nothing is under way for.
func (m *machine) forgetPeer() {
	victim := -1
	for i, p := range m.known[:len(m.known)-1] {
		if p.dialing {
			continue
		}
		if victim < 0 {
			victim = i
		}
		if !p.banned(m.now) {
			victim = i
			break
		}
	}
	if victim < 0 {
		return
	}
	p := m.known[victim]
	m.known = slices.Delete(m.known, victim, victim+1)
	for len(p.members) > 0 {
		m.leave(p.members[0])
	}
	m.timers.stop(&p.timer)
	m.unqueueDial(p)
	delete(m.peers, p.id)
}

// peerConnected takes a peer up. Whatever nobody had is asked of it at once.
func (m *machine) peerConnected(e connectedEvent) {
	p := m.peer(e.peer)
	if p.banned(m.now) {
		m.out.disconnects = append(m.out.disconnects, p.id)
		return
	}
	p.presences = e.presences
	if p.connected {
		return
	}
	if i := slices.Index(m.known, p); i >= 0 {
		m.known = slices.Delete(m.known, i, i+1)
	}
	p.connected = true
	m.connected = append(m.connected, p)
	p.listed = len(m.connected)
	p.failures, p.backoff, p.dialFails, p.redial = 0, 0, 0, 0
	m.unqueueDial(p)
	m.revive(p)
}

// revive lets a peer that can be asked (again) help wherever help is needed.
func (m *machine) revive(p *peerState) {
	if !p.callable(m.now) || !m.engageable(p) {
		return
	}
	left := m.limits.PeerWants
	for _, s := range m.order {
		mb := s.member(p)
		if left <= 0 {
			return
		}
		if s.seeking.n+s.parked.n == 0 {
			if w := or(s.first(), s.choosy.head); w != nil && mb == nil && m.askable(w, p) {
				m.askHave(w, p)
				left--
			}
			continue
		}
		left -= m.reviveSession(s, p, mb, left)
	}
}

// reviveSession asks a peer about a session's waiting wants, at most as many as said.
func (m *machine) reviveSession(s *session, p *peerState, mb *member, most int) int {
	var wants []*want
	collect := func(l *wantList) {
		for w := l.head; w != nil && len(wants) < most; w = w.next {
			if !w.denied(p) {
				wants = append(wants, w)
			}
		}
	}
	collect(&s.parked)
	slices.Reverse(wants) // each of these goes before the others
	collect(&s.seeking)
	for _, w := range wants {
		switch {
		case !w.waits(): // it moved when room was made for another
		case mb != nil || !p.presences:
			m.enqueue(w)
		case m.askable(w, p):
			m.askHave(w, p)
		}
	}
	return len(wants)
}

// peerGone gives what a peer was asked to others.
func (m *machine) peerGone(id peer.ID) {
	p := m.peers[id]
	if p == nil || !p.connected {
		return
	}
	m.disconnected(p)
	m.armPeer(p)
}

// disconnected takes a peer out of everything that needs a connection.
func (m *machine) disconnected(p *peerState) {
	m.tryAgain(p)
	wants := m.dropAll(p)
	p.outbox = nil
	if p.active {
		m.release(p)
	}
	p.connected = false
	i, last := p.listed-1, m.connected[len(m.connected)-1]
	m.connected[i], last.listed = last, p.listed
	m.connected = m.connected[:len(m.connected)-1]
	p.listed, p.sampling = 0, false
	m.known = append(m.known, p)
	if len(m.known) > m.limits.KnownPeers {
		m.forgetPeer()
	}
	for _, w := range wants {
		m.reconsider(w)
	}
	for _, mb := range p.members {
		if mb.session.open > 0 {
			p.redial = max(p.redial, m.now+m.limits.RetryDelay)
		}
	}
}

// sendFailed: what was sent may be lost, so it is asked elsewhere, or of the same peer a little later.
func (m *machine) sendFailed(id peer.ID) {
	p := m.peers[id]
	if p == nil || !p.connected {
		return
	}
	m.stats.SendFailures++
	if len(p.asks) == 0 {
		return // nothing is lost: a peer may end what is not used
	}
	m.tryAgain(p)
	wants := m.dropAll(p)
	p.outbox, p.sampling = nil, false
	p.failed(m.now, &m.limits)
	m.armPeer(p)
	for _, w := range wants {
		m.reconsider(w)
	}
}

// errUnasked is why a peer is shut out that gives what it was not asked for.
var errUnasked = errors.New("blocks that nobody asked for, or whose bytes are not theirs")

// maxReason is how many bytes are kept of why a peer is shut out.
const maxReason = 200

// ban shuts a peer out for a while, twice as long each time.
func (m *machine) ban(p *peerState, why error) {
	m.stats.Bans++
	p.banReason = why.Error()
	p.banReason = strings.ToValidUTF8(p.banReason[:min(len(p.banReason), maxReason)], "")
	p.bannedUntil = m.now + m.limits.Ban<<min(p.bans, 4)
	p.bans++
	p.unasked, p.unknown = 0, 0
	for len(p.members) > 0 {
		m.leave(p.members[0])
	}
	m.unqueueDial(p)
	m.out.disconnects = append(m.out.disconnects, p.id)
	if p.connected {
		m.disconnected(p)
	}
}

// engageable says whether a peer is in use, or another one can make way for it.
func (m *machine) engageable(p *peerState) bool {
	return p.active || len(m.active) < m.limits.ActivePeers || m.dispensable() != nil
}

// dispensable returns the peer in use that failed most, of those that no answer is waited for from, or
// nil. Of equals it is the one that was asked nothing for longest. Where an answer is waited for from all,
// it is the one that was silent for longest, if that is long: it must not keep others out.
func (m *machine) dispensable() *peerState {
	var found, silent *peerState
	for _, p := range m.active {
		if p.open == 0 && (found == nil || p.failures > found.failures || p.failures == found.failures && p.used < found.used) {
			found = p
		}
		if m.now-p.heard >= m.limits.IdlePeer && (silent == nil || p.heard < silent.heard) {
			silent = p
		}
	}
	if found == nil {
		return silent
	}
	return found
}

// engage takes a peer into use, in place of another if need be.
func (m *machine) engage(p *peerState) {
	if p.active {
		return
	}
	if len(m.active) >= m.limits.ActivePeers {
		if o := m.dispensable(); o != nil {
			m.release(o)
		}
	}
	p.active, p.used, p.heard = true, m.now, m.now
	m.active = append(m.active, p)
	m.out.protects = append(m.out.protects, protection{p.id, true})
	m.armPeer(p)
}

// release takes a peer out of use. What it never answered is taken back.
func (m *machine) release(p *peerState) {
	for _, w := range m.cancelAll(p) {
		m.reconsider(w)
	}
	p.active = false
	if i := slices.Index(m.active, p); i >= 0 {
		m.active = slices.Delete(m.active, i, i+1)
	}
	m.out.protects = append(m.out.protects, protection{p.id, false})
}

// cancelAll takes back whatever stands on a peer's list.
func (m *machine) cancelAll(p *peerState) []*want {
	wants := m.dropAll(p)
	for _, w := range wants {
		m.send(p, Entry{CID: w.CID, Kind: Cancel})
	}
	return wants
}

// armPeer sets a peer's timer to the end of the earliest of its pauses.
func (m *machine) armPeer(p *peerState) {
	at := time.Duration(-1)
	earlier := func(t time.Duration) {
		if t > m.now && (at < 0 || t < at) {
			at = t
		}
	}
	earlier(p.backoff)
	if p.active {
		earlier(max(p.used+m.limits.IdlePeer, m.now+1))
	}
	if !p.connected && len(p.members) > 0 {
		earlier(p.redial)
	}
	if at < 0 {
		m.timers.stop(&p.timer)
		return
	}
	m.timers.set(&p.timer, at)
}

// ring ends whichever pause of the peer is over.
func (p *peerState) ring(m *machine) {
	if p.active && len(p.asks) == 0 && m.now-p.used >= m.limits.IdlePeer {
		m.release(p)
	} else if p.active && len(p.asks) > 0 {
		p.used = m.now
	}
	switch {
	case p.connected && p.backoff != 0 && m.now >= p.backoff:
		p.backoff = 0
		m.revive(p)
	case !p.connected && m.now >= p.redial:
		m.redial(p)
	}
	m.armPeer(p)
}
