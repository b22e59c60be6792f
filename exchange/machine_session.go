package exchange

import (
	"cmp"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

const (
	// coldAfter is after how many misses in a row a member is asked only for what it said to have.
	coldAfter = 8
	// sessionMembers is how many peers a session knows.
	sessionMembers = 32
	// guessBytes is a block's expected length before the first block of its session is here.
	guessBytes = 256 * kib
	// freshTime is for how long a delivery recommends a peer to new sessions.
	freshTime = 10 * time.Second
)

// session is what is known of a dataset: the peers that hold it, how long its blocks are, and the
// wants that wait. It begins with its first want and is forgotten a while after its last.
type session struct {
	timer // its next look around, or its end
	key   cid.Cid
	own   bool // the key is the only block's own CID: nothing to remember afterwards
	pos   int  // position in machine.order

	open      int      // wants
	urgent    wantList // queued: of readers
	bulk      wantList // queued: of downloads
	choosy    wantList // queued: those that some peer did not have
	seeking   wantList
	parked    wantList
	inTurn    bool // it is in machine.turn
	members   []*member
	wallet    *wallet // nil: nothing may be paid
	leafBytes float64 // average length of a raw block; 0 unknown
	nodeBytes float64 // of others, which link them
	explored  bool    // others than members were asked since the session began
	forestall forestall
	pause     time.Duration
	dialing   int
	lastUse   time.Duration
}

// member is a peer that is good for a session: it delivered, said have, or is known as a provider.
type member struct {
	peer    *peerState
	session *session
	cold    int // misses in a row
}

// queued counts the wants that wait for room at a peer.
func (s *session) queued() int { return s.urgent.n + s.bulk.n + s.choosy.n }

// waiting returns the wants that nobody can be asked for now, those first that a retry is due for.
func (s *session) waiting() []*want { return append(s.parked.all(), s.seeking.all()...) }

// first returns the want that waits longest, readers before downloads, or nil.
func (s *session) first() *want {
	switch {
	case s.urgent.head != nil:
		return s.urgent.head
	case s.bulk.head != nil:
		return s.bulk.head
	}
	return nil
}

// member returns p's membership, or nil.
func (s *session) member(p *peerState) *member {
	for _, mb := range s.members {
		if mb.peer == p {
			return mb
		}
	}
	return nil
}

// average is the average length of such blocks as a want is for.
func (s *session) average(w *want) *float64 {
	if w.CID.Defined() && w.CID.Type() != cid.Raw {
		return &s.nodeBytes
	}
	return &s.leafBytes
}

// estimate is the expected length of a block that is not here.
func (s *session) estimate(w *want) int64 {
	n := int64(*s.average(w))
	left := int64(min(w.Place.Bytes, mib))
	if left == 0 && w.Place.FileBytes > w.Place.Offset {
		left = int64(min(w.Place.FileBytes-w.Place.Offset, mib))
	}
	switch {
	case n == 0 && left > 0:
		n = left
	case n == 0:
		n = guessBytes
	case left > 0:
		n = min(n, left)
	}
	return max(n, 1)
}

// arrived folds a block's length into the average.
func (s *session) arrived(w *want, n int) {
	average := s.average(w)
	if *average == 0 {
		*average = float64(n)
	}
	*average += (float64(n) - *average) / 16
}

// openSession returns the session that a want belongs to, a new one if need be. A new session trusts
// the peers that delivered to others lately, but not for long.
func (m *machine) openSession(w Want) *session {
	key, own := w.Dataset, false
	if !key.Defined() {
		key, own = w.CID, true
	}
	if s := m.sessions[key]; s != nil {
		return s
	}
	s := &session{key: key, own: own, pos: len(m.order), pause: m.limits.RefreshMin}
	s.timer.owner = s
	m.sessions[key] = s
	m.order = append(m.order, s)
	m.useWallet(s)
	m.idle++
	for i, p := range m.ranking() {
		if len(s.members) == 3 || i == m.limits.PeersPerBlock {
			break
		}
		if p.proven() && m.now-p.lastBlock <= freshTime {
			m.join(s, p).cold = coldAfter - 2
		}
	}
	return s
}

// closeSession forgets a session without wants.
func (m *machine) closeSession(s *session) {
	m.idle--
	m.timers.stop(&s.timer)
	for len(s.members) > 0 {
		m.leave(s.members[0])
	}
	if s.wallet != nil {
		s.wallet.session = nil
	}
	last := m.order[len(m.order)-1]
	m.order[s.pos], last.pos = last, s.pos
	m.order = m.order[:len(m.order)-1]
	delete(m.sessions, s.key)
	if i := slices.Index(m.turn, s); i >= 0 {
		m.turn = slices.Delete(m.turn, i, i+1)
	}
}

// used notes that a session got or lost a want.
func (m *machine) used(s *session, by int) {
	if s.open == 0 {
		m.idle--
	}
	s.open += by
	s.lastUse = m.now
	switch {
	case s.open > 0 && s.open == by:
		s.pause = m.limits.RefreshMin
		m.timers.set(&s.timer, m.now+s.pause)
	case s.open == 0:
		m.idle++
		m.restSession(s)
	}
}

// restSession keeps what a session without wants has learned for a while, if it can be of use.
func (m *machine) restSession(s *session) {
	if s.own {
		m.closeSession(s)
		return
	}
	m.timers.set(&s.timer, m.now+m.limits.IdlePeer)
	if m.idle <= m.limits.Sessions {
		return
	}
	var idle []*session
	for _, s := range m.order {
		if s.open == 0 {
			idle = append(idle, s)
		}
	}
	slices.SortStableFunc(idle, func(a, b *session) int { return cmp.Compare(a.lastUse, b.lastUse) })
	for _, s := range idle[:(len(idle)+1)/2] {
		m.closeSession(s)
	}
}

// join makes p a member. A full session loses the member that is of least use.
func (m *machine) join(s *session, p *peerState) *member {
	if mb := s.member(p); mb != nil {
		return mb
	}
	if len(s.members) == sessionMembers {
		worst := s.members[0]
		for _, mb := range s.members[1:] {
			if mb.rank() > worst.rank() {
				worst = mb
			}
		}
		m.leave(worst)
	}
	mb := &member{peer: p, session: s}
	s.members = append(s.members, mb)
	p.members = append(p.members, mb)
	return mb
}

// rank is higher for members that are of less use.
func (mb *member) rank() int {
	n := mb.cold + mb.peer.failures
	if !mb.peer.connected {
		n += 1000
	}
	if !mb.peer.proven() {
		n += 4
	}
	return n
}

// leave ends a membership.
func (m *machine) leave(mb *member) {
	s, p := mb.session, mb.peer
	if i := slices.Index(s.members, mb); i >= 0 {
		s.members = slices.Delete(s.members, i, i+1)
	}
	if i := slices.Index(p.members, mb); i >= 0 {
		p.members = slices.Delete(p.members, i, i+1)
	}
}

// ring looks around for a session that has open wants, and ends one that has none.
func (s *session) ring(m *machine) {
	if s.open == 0 {
		m.closeSession(s)
		return
	}
	for _, mb := range s.members {
		if p := mb.peer; p.suspended && p.blocks+p.dues == 0 {
			m.tryAgain(p) // nothing makes it say when it gives again
		}
	}
	m.pardon(s)
	if s.seeking.n+s.parked.n > 0 {
		m.seekAgain(s)
	} else if w := or(s.first(), s.choosy.head); w != nil {
		m.explore(w)
	}
	m.redialMembers(s)
	s.pause = min(2*s.pause, m.limits.RefreshMax)
	m.timers.set(&s.timer, m.now+s.pause)
}

// enqueueAll lets the wants that nobody could be asked for have another turn.
func (m *machine) enqueueAll(s *session) {
	for w := s.parked.tail; w != nil; w = s.parked.tail { // each goes before the others
		m.enqueue(w)
	}
	for w := s.seeking.head; w != nil; w = s.seeking.head {
		m.enqueue(w)
	}
}

// pardon lets queued wants be asked of those peers again that did not have them, or did not answer.
func (m *machine) pardon(s *session) {
	for n := min(s.choosy.n, m.limits.PeerWants); n > 0; n-- {
		w := s.choosy.head
		w.tried = nil
		m.enqueue(w)
	}
}

// seekAgain gives every peer another chance at the wants that nobody has, and searches for more.
func (m *machine) seekAgain(s *session) {
	m.search(s, s.key)
	for n := min(s.seeking.n+s.parked.n, m.limits.PeerWants); n > 0; n-- {
		w := or(s.seeking.head, s.parked.head)
		if w == nil {
			return // what searches found lately has helped already
		}
		w.tried = nil
		if n <= 4 {
			m.search(s, w.CID)
		}
		m.enqueue(w)
	}
}
