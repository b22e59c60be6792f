package exchange

import (
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// machine decides what is asked of whom. It has no IO, clock, lock or channel: what it does is a
// function of the events and times it is given, in their order. One goroutine drives it:
//
//	m.Tick(now); m.Step(event); …; ready := m.Ready()
//
// and carries out what Ready lists. Every want ends in exactly one resolved entry, or in the
// forget event of its last intent.
type machine struct {
	limits Limits
	now    time.Duration // since the driver's start

	wants   map[cid.Cid]*want
	intents map[intentID]*intent

	sessions map[cid.Cid]*session
	order    []*session // all of them, so that none is met by chance
	turn     []*session // those with queued wants, in the order they are served
	idle     int        // sessions without wants

	peers     map[peer.ID]*peerState
	connected []*peerState // the best first, as of rankedAt
	known     []*peerState // not connected, longest so first
	rankedAt  time.Duration
	active    []*peerState

	searches    map[cid.Cid]*search
	searchOrder []*search // oldest first
	searchQueue []*search
	searching   int
	dialQueue   []*peerState
	dialing     int

	timers  timers
	bytes   int64 // asked for and not here, estimated
	storing int64 // here and not stored
	seq     uint64
	recent  recentCIDs
	mail    []*peerState // those with something in their outbox
	out     ready
	stats   Stats
	money   money
	waking  waking
}

// ready lists what the driver has to do, in any order, after it stepped the machine.
type ready struct {
	sends       []outgoing
	dials       []peer.AddrInfo // each is answered by a dialed event
	searches    []cid.Cid       // each is answered by providers events, the last with done
	stores      []Arrival       // each is answered by a stored event
	resolved    []resolution
	protects    []protection
	disconnects []peer.ID
	unasked     []peer.ID  // shut out for giving what nobody asked for
	payments    []payment  // each is answered by a paidEvent, perhaps together with others
	rescues     []Want     // each is answered by a rescuedEvent, unless it is taken back
	unrescued   []cid.Cid  // rescues that are taken back
	lacking     []intentID // whose blocks nobody is known to have
}

// outgoing is what a peer is to be told.
type outgoing struct {
	peer    peer.ID
	entries []Entry
}

// resolution ends intents.
type resolution struct {
	intents []intentID
	block   blocks.Block
	err     error // with a block: the store's, and the block is good all the same; without: why there is none
}

// protection says that a peer is in use from now on, or not any more.
type protection struct {
	peer peer.ID
	on   bool
}

// The events of the machine.
type (
	// wantEvent: somebody wants a block. Its deadline is a time as Tick tells it.
	wantEvent struct {
		intent   intentID
		want     Want
		bulk     bool
		rescue   bool          // the block may be had in another way
		missing  bool          // the driver is to be told when nobody is known to have the block
		probe    bool          // it is enough that somebody has the block
		deadline time.Duration // when it fails; 0 is never
	}
	// forgetEvent: somebody does not want it any more. Unknown intents are ignored.
	forgetEvent struct{ intent intentID }
	// storedEvent: the store has taken blocks, or refused them.
	storedEvent struct {
		keys []cid.Cid
		err  error
	}
	// connectedEvent, goneEvent, receivedEvent, sendFailedEvent, misbehavedEvent: see [Handler].
	connectedEvent struct {
		peer      peer.ID
		presences bool
	}
	goneEvent     struct{ peer peer.ID }
	receivedEvent struct {
		peer    peer.ID
		message Incoming
	}
	sendFailedEvent struct{ peer peer.ID }
	misbehavedEvent struct {
		peer peer.ID
		err  error
	}
	// dialedEvent: a dial has ended.
	dialedEvent struct {
		peer peer.ID
		err  error
	}
	// providersEvent: a search has found peers, or has ended.
	providersEvent struct {
		key   cid.Cid
		peers []peer.AddrInfo
		done  bool
	}
)

// recentKept is how many resolved and cancelled CIDs are remembered.
const recentKept = 8192

// newMachine makes a machine that knows nobody. The limits are complete and valid.
func newMachine(l Limits) *machine {
	m := &machine{
		limits:   l,
		wants:    make(map[cid.Cid]*want),
		intents:  make(map[intentID]*intent),
		money:    newMoney(),
		sessions: make(map[cid.Cid]*session),
		peers:    make(map[peer.ID]*peerState),
		searches: make(map[cid.Cid]*search),
		recent:   newRecentCIDs(recentKept),
	}
	m.waking.owner = &m.waking
	return m
}

// Tick tells the time and rings whatever waits for it. Time never runs backwards.
func (m *machine) Tick(now time.Duration) {
	m.now = max(m.now, now)
	for t := m.timers.due(m.now); t != nil; t = m.timers.due(m.now) {
		t.owner.ring(m)
	}
}

// Step takes one event in.
func (m *machine) Step(event any) {
	switch e := event.(type) {
	case wantEvent:
		m.want(e)
	case forgetEvent:
		m.forget(e.intent)
	case storedEvent:
		for _, c := range e.keys {
			m.stored(c, e.err)
		}
	case connectedEvent:
		m.peerConnected(e)
	case goneEvent:
		m.peerGone(e.peer)
	case receivedEvent:
		m.received(e)
	case sendFailedEvent:
		m.sendFailed(e.peer)
	case misbehavedEvent:
		m.ban(m.peer(e.peer), e.err)
	case dialedEvent:
		m.dialed(e)
	case rescuedEvent:
		m.rescued(e)
	case providersEvent:
		m.provided(e)
	default:
		m.stepMoney(event)
	}
}

// stepMoney takes in an event of money.
func (m *machine) stepMoney(event any) {
	switch e := event.(type) {
	case walletEvent:
		m.openWallet(e)
	case spendingEvent:
		m.setSpending(e)
	case dayEvent:
		m.newDay(e)
	case paidEvent:
		m.paid(e)
	}
}

// Ready gives queued wants to peers and returns all that is to be done. The caller owns the result.
func (m *machine) Ready() ready {
	m.dispatch()
	for _, p := range m.mail {
		if len(p.outbox) > 0 {
			m.out.sends = append(m.out.sends, outgoing{p.id, p.outbox})
			p.outbox = nil
		}
	}
	m.mail = m.mail[:0]
	out := m.out
	m.out = ready{}
	return out
}

// Next returns the time by which Tick has to be called, if any.
func (m *machine) Next() (time.Duration, bool) { return m.timers.next() }

// send puts an entry into a peer's outbox.
func (m *machine) send(p *peerState, e Entry) {
	if len(p.outbox) == 0 {
		m.mail = append(m.mail, p)
	}
	p.outbox = append(p.outbox, e)
}

// figures returns the counters and gauges.
func (m *machine) figures() Stats {
	s := m.stats
	s.Peers, s.Active, s.Sessions = len(m.connected), len(m.active), len(m.sessions)
	s.Wants, s.InFlight, s.Storing = len(m.wants), m.bytes, m.storing
	for _, o := range m.order {
		s.Queued += o.queued()
		s.Seeking += o.seeking.n
		s.Parked += o.parked.n
	}
	s.Owed, s.Committed, s.Today = m.money.owed, m.money.committed, m.money.today
	return s
}
