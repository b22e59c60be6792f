package exchange

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// searchesKept is how many searches are remembered with what they found.
	searchesKept = 1024
	// searchesQueued is how many may wait for others to end; more are left to the next look around.
	searchesQueued = 64
	// dialsQueued is how many dials may wait.
	dialsQueued = 64
	// searchersKept is how many sessions hear of what one search finds.
	searchersKept = 16
)

// search is what was found about one CID. It is repeated after Limits.SearchEvery at the earliest.
type search struct {
	key      cid.Cid
	at       time.Duration // when it began
	running  bool
	queued   bool
	found    []peer.AddrInfo
	sessions []cid.Cid // keys of those that asked
}

// search looks for providers of c on behalf of a session, or repeats what was found lately.
func (m *machine) search(s *session, c cid.Cid) {
	f := m.searches[c]
	if f == nil {
		f = &search{key: c, at: -1}
		m.searches[c] = f
		m.searchOrder = append(m.searchOrder, f)
		m.forgetSearches()
	}
	if len(f.sessions) < searchersKept && !slices.Contains(f.sessions, s.key) {
		f.sessions = append(f.sessions, s.key)
		for _, info := range f.found {
			m.candidate(s, info)
		}
	}
	if f.running || f.queued || f.at >= 0 && m.now-f.at < m.limits.SearchEvery {
		return
	}
	if m.searching < m.limits.Searches {
		m.beginSearch(f)
	} else if len(m.searchQueue) < searchesQueued {
		f.queued = true
		m.searchQueue = append(m.searchQueue, f)
	}
}

// beginSearch lets the driver search.
func (m *machine) beginSearch(f *search) {
	f.running, f.queued, f.at, f.found = true, false, m.now, nil
	m.searching++
	m.stats.Searches++
	m.out.searches = append(m.out.searches, f.key)
}

// forgetSearches drops the oldest search that has ended, when there are too many.
func (m *machine) forgetSearches() {
	if len(m.searchOrder) <= searchesKept {
		return
	}
	i := slices.IndexFunc(m.searchOrder, func(f *search) bool { return !f.running && !f.queued })
	if i >= 0 {
		delete(m.searches, m.searchOrder[i].key)
		m.searchOrder = slices.Delete(m.searchOrder, i, i+1)
	}
}

// provided takes in what a search has found.
func (m *machine) provided(e providersEvent) {
	f := m.searches[e.key]
	if f == nil || !f.running {
		return
	}
	for _, info := range e.peers {
		if len(f.found) >= m.limits.SearchProviders {
			break
		}
		info.Addrs = keepAddrs(info.Addrs)
		f.found = append(f.found, info)
		for _, key := range f.sessions {
			if s := m.sessions[key]; s != nil {
				m.candidate(s, info)
			}
		}
	}
	if e.done {
		m.searchEnded(f)
	}
}

// searchEnded makes room for the next search.
func (m *machine) searchEnded(f *search) {
	askers := f.sessions
	f.running, f.sessions = false, nil
	m.searching--
	for _, key := range askers {
		if s := m.sessions[key]; s != nil {
			m.refuseAll(s)
		}
	}
	for len(m.searchQueue) > 0 && m.searching < m.limits.Searches {
		next := m.searchQueue[0]
		m.searchQueue = m.searchQueue[1:]
		if m.anyOpen(next.sessions) {
			m.beginSearch(next)
		} else {
			next.queued, next.sessions = false, nil
		}
	}
}

// anyOpen says whether one of the sessions still wants something.
func (m *machine) anyOpen(keys []cid.Cid) bool {
	return slices.ContainsFunc(keys, func(k cid.Cid) bool { return m.sessions[k] != nil && m.sessions[k].open > 0 })
}

// candidate makes a provider a member of a session: asked at once when connected, dialed otherwise.
func (m *machine) candidate(s *session, info peer.AddrInfo) {
	p := m.peer(info.ID)
	if p.banned(m.now) {
		return
	}
	if len(info.Addrs) > 0 {
		p.addrs = info.Addrs
	}
	mb := s.member(p)
	if mb == nil {
		mb = m.join(s, p)
	}
	mb.cold = 0
	if p.connected {
		m.reviveSession(s, p, mb, m.limits.PeerWants)
		return
	}
	m.dial(s, p)
}

// redialMembers dials the peers of a session that are away.
func (m *machine) redialMembers(s *session) {
	for _, mb := range s.members {
		if !mb.peer.connected {
			m.dial(s, mb.peer)
		}
	}
}

// redial dials a peer whose pause is over, if a session wants something that it may have.
func (m *machine) redial(p *peerState) {
	for _, mb := range p.members {
		if s := mb.session; s.open > 0 {
			m.dial(s, p)
			return
		}
	}
}

// dial connects to a peer, or queues that, within the limits.
func (m *machine) dial(s *session, p *peerState) {
	if p.connected || p.dialing || p.dialQueued || p.banned(m.now) || m.now < p.redial {
		return
	}
	if m.dialing < m.limits.Dials && s.dialing < m.limits.DialsPerSession {
		m.beginDial(s, p)
	} else if len(m.dialQueue) < dialsQueued {
		p.dialQueued, p.dialedFor = true, s
		m.dialQueue = append(m.dialQueue, p)
	}
}

// beginDial lets the driver dial.
func (m *machine) beginDial(s *session, p *peerState) {
	p.dialing, p.dialQueued, p.dialedFor = true, false, s
	s.dialing++
	m.dialing++
	m.stats.Dials++
	m.out.dials = append(m.out.dials, peer.AddrInfo{ID: p.id, Addrs: p.addrs})
}

// dialed takes in how a dial ended. A failed one is repeated after a pause, longer each time.
func (m *machine) dialed(e dialedEvent) {
	p := m.peers[e.peer]
	if p == nil || !p.dialing {
		return
	}
	s := p.dialedFor
	p.dialing, p.dialedFor = false, nil
	s.dialing--
	m.dialing--
	if e.err != nil {
		m.stats.DialFailures++
		p.dialFails++
		p.redial = m.now + pause(p.dialFails, &m.limits)
		m.armPeer(p)
	} else if !p.connected {
		p.redial = m.now + m.limits.RefreshMax // it may speak another protocol; no need to insist
	}
	m.nextDials()
	if e.err != nil {
		m.refuseAll(s)
	}
}

// nextDials begins queued dials that have room now. Those nobody needs any more are dropped.
func (m *machine) nextDials() {
	queue := m.dialQueue
	m.dialQueue = m.dialQueue[:0]
	for _, p := range queue {
		s := p.dialedFor
		switch {
		case s.open == 0 || p.connected || p.banned(m.now):
			p.dialQueued, p.dialedFor = false, nil
		case m.dialing < m.limits.Dials && s.dialing < m.limits.DialsPerSession:
			m.beginDial(s, p)
		default:
			m.dialQueue = append(m.dialQueue, p)
		}
	}
}

// unqueueDial gives up a dial that has not begun.
func (m *machine) unqueueDial(p *peerState) {
	if !p.dialQueued {
		return
	}
	p.dialQueued, p.dialedFor = false, nil
	m.dialQueue = slices.DeleteFunc(m.dialQueue, func(o *peerState) bool { return o == p })
}
