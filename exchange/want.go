package exchange

import (
	"slices"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// intentID names one caller's interest in a block. The driver numbers them.
type intentID uint64

// wantState says how far a want has come. A restart forgets them all: callers ask again.
type wantState uint8

const (
	// wantQueued: it waits in its session for room at a peer. Nobody delivers it yet.
	wantQueued wantState = iota
	// wantSeeking: no usable peer is known to have it. Peers may have been asked whether they do,
	// providers may be searched for; else it waits for a peer to appear.
	wantSeeking
	// wantParked: as wantSeeking, but peers that may have it are due for a retry. Others overtake it
	// until then; the retry puts it back to the front.
	wantParked
	// wantAsked: at least one peer was asked for the block and has time left to deliver it.
	wantAsked
	// wantStoring: the block is here and on its way to the store. Nobody is asked any more.
	wantStoring
)

// String names the state as scripts write it.
func (s wantState) String() string {
	return [...]string{"queued", "seeking", "parked", "asked", "storing"}[s]
}

// intent is one caller's interest in a want.
type intent struct {
	timer // its deadline, if it has one
	id    intentID
	want  *want
}

// ring ends an intent whose deadline has come.
func (i *intent) ring(m *machine) { m.timeOut(i) }

// want is one block that somebody waits for. It lives while it has an intent or is being stored.
type want struct {
	Want
	session  *session
	state    wantState
	bulk     bool          // part of a download: readers go first
	begun    time.Duration // when it was first wanted
	asked    int           // how often a peer was asked for the block
	sought   bool          // it was in wantSeeking before
	soughtAt time.Duration // when it first was
	bill     *bill         // what is to be paid for it, in wantStoring
	intents  []intentID
	asks     []*ask // what stands on the want lists that peers keep of ours
	block    blocks.Block

	probes   []intentID // of intents that ask no more than whether somebody has it
	watchers []intentID // that are told when nobody is known to have it
	lacked   bool       // they were, once: those that come later are told at once while it is sought
	late     *late      // nil: nobody wants it rescued
	rescuing bool

	// tried holds the peers that don't have it, or did not answer, since the session last looked around.
	tried map[*peerState]struct{}

	list       *wantList // the list of its session that it is in
	prev, next *want
}

// askOf returns what was asked of p, or nil.
func (w *want) askOf(p *peerState) *ask {
	for _, a := range w.asks {
		if a.peer == p {
			return a
		}
	}
	return nil
}

// pending counts the asks of a kind that are unanswered and have time left.
func (w *want) pending(k EntryKind) int {
	n := 0
	for _, a := range w.asks {
		if a.kind == k && a.live() {
			n++
		}
	}
	return n
}

// othersAsked says whether somebody else than p has yet to say whether it has the block.
func (w *want) othersAsked(p *peerState) bool {
	return slices.ContainsFunc(w.asks, func(a *ask) bool { return a.peer != p && a.kind == WantHave && a.live() })
}

// deny notes that p is not to be asked until the session looks around again.
func (w *want) deny(p *peerState) {
	if w.tried == nil {
		w.tried = make(map[*peerState]struct{})
	}
	w.tried[p] = struct{}{}
}

// denied says whether p is not to be asked for now.
func (w *want) denied(p *peerState) bool {
	if w.tried == nil {
		return false
	}
	_, ok := w.tried[p]
	return ok
}

// waits says whether nobody can be asked for the block now.
func (w *want) waits() bool { return w.state == wantSeeking || w.state == wantParked }

// forget takes an intent away.
func (w *want) forget(id intentID) {
	for _, list := range []*[]intentID{&w.intents, &w.probes, &w.watchers} {
		if i := slices.Index(*list, id); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
		}
	}
}

// answer is what a peer said about a block.
type answer uint8

const (
	answerNone answer = iota
	answerHave
	answerDontHave
)

// ask is one entry of the want list that a peer keeps of ours. It lives until the block comes from
// that peer or a cancel is sent, so that a peer's list never grows past its limit.
type ask struct {
	timer
	want *want
	peer *peerState
	kind EntryKind // WantHave or WantBlock

	answer    answer
	expired   bool // its time is over; the peer may still deliver
	alone     bool // nothing else was asked for at the peer then, so its time tells the latency
	hedged    bool // somebody else was asked, or can't be
	rested    bool // its peer rested since, so it has more time
	bytes     int64
	offer     priceTag      // what the peer asks, or was promised, for the block
	wallet    *wallet       // of what is committed
	committed Amount        // what is promised for the block
	at        time.Duration // when it was sent
	expect    time.Duration // how long it was expected to take
	seq       uint64
}

// live says whether an answer is still waited for.
func (a *ask) live() bool { return a.answer == answerNone && !a.expired }

// wantList is a list of wants in order of arrival. A want is in one list at most.
type wantList struct {
	head, tail *want
	n          int
}

// push appends w, taking it out of the list it is in.
func (l *wantList) push(w *want) {
	w.leave()
	w.list, w.prev = l, l.tail
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
	l.n++
}

// pushFront puts w before all others, taking it out of the list it is in.
func (l *wantList) pushFront(w *want) {
	w.leave()
	w.list, w.next = l, l.head
	if l.head == nil {
		l.tail = w
	} else {
		l.head.prev = w
	}
	l.head = w
	l.n++
}

// all returns the wants of the list in order.
func (l *wantList) all() []*want {
	ws := make([]*want, 0, l.n)
	for w := l.head; w != nil; w = w.next {
		ws = append(ws, w)
	}
	return ws
}

// leave takes w out of its list, if it is in one.
func (w *want) leave() {
	l := w.list
	if l == nil {
		return
	}
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.list, w.prev, w.next = nil, nil, nil
	l.n--
}

// recentCIDs remembers the last CIDs that were resolved or cancelled, to tell late blocks from unasked ones.
type recentCIDs struct {
	ring []cid.Cid
	next int
	laps int             // how often the ring was filled
	set  map[cid.Cid]int // how often it stands in the ring
}

func newRecentCIDs(n int) recentCIDs {
	return recentCIDs{ring: make([]cid.Cid, n), set: make(map[cid.Cid]int, n)}
}

// add remembers c and forgets the oldest.
func (r *recentCIDs) add(c cid.Cid) {
	if old := r.ring[r.next]; old.Defined() {
		if r.set[old]--; r.set[old] == 0 {
			delete(r.set, old)
		}
	}
	r.ring[r.next] = c
	r.set[c]++
	if r.next = (r.next + 1) % len(r.ring); r.next == 0 {
		r.laps++
	}
}

// has says whether c was added lately.
func (r *recentCIDs) has(c cid.Cid) bool { return r.set[c] > 0 }
