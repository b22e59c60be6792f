package uploader

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// machine decides which chunk goes where, and what is next for each link. It has no IO, clock, lock or
// channel: what it does is a function of the seed, events and times it is given, in their order. One
// goroutine drives it:
//
//	m.Tick(now, wall); m.Step(event); …; ready := m.Ready()
//
// commits the records that Ready lists, and then carries out its tasks. Every task is answered by one
// doneEvent.
type machine struct {
	cfg    terms
	random *rand.Rand
	now    time.Duration // since the driver's start, never backwards
	wall   time.Time     // what the clock on the wall says

	files     map[FileID]*file
	groups    map[GroupID]*group
	chunks    map[cid.Cid]*chunk
	links     map[seal.LinkID]*link
	providers map[peer.ID]*provider
	known     []*provider // all of them, so that none is met by chance

	flights  map[uint64]*flight // tasks that are not answered
	nextTask uint64
	order    uint64 // of the last link
	round    uint64 // of Ready
	version  uint64 // of links, and of all else that plans follow from
	timers   timers

	dirty   []*chunk      // to be looked at
	lacking []*chunk      // need more links than they have
	stuck   []*chunk      // the same, and nobody could be asked
	stir    bool          // somebody may be there for the stuck ones
	crowded bool          // some are stuck because somebody has too much to do
	sealing []*link       // want to be sealed
	doubts  map[*link]int // that a repair waits for, and how often their providers were silent in a row before
	mail    []*provider
	shown   []*file // whose state may have changed

	active int   // open links
	sealed int64 // bytes in memory, or being sealed
	search searching
	out    ready
}

// terms are what the machine is bound by.
type terms struct {
	self     peer.ID
	maxPrice uint64 // for a GiB and day
	deposit  uint64
	audit    time.Duration
	vanish   time.Duration
	networks Networks
	regions  []string
	limits   Limits
}

// searching is how the search for candidates goes.
type searching struct {
	running bool
	pause   time.Duration // to the next one
	timer   timer
	quotes  timer // when those who have not answered are not waited for any more
}

// ready lists what the driver has to do: first to commit records, in this order, then the rest.
type ready struct {
	groups []groupRecord
	chunks []chunkRecord
	links  []record
	files  []fileRecord

	goneFiles  []FileID
	goneLinks  []seal.LinkID
	goneGroups []GroupID
	goneChunks []cid.Cid

	tasks   []task
	drops   []seal.LinkID // whose sealed bytes are not needed any more
	forgets []seal.LinkID // whose payments will not be asked for again
	changed []FileStatus  // files whose state is another now
}

// durable says whether there is anything to commit.
func (r *ready) durable() bool {
	return len(r.groups)+len(r.chunks)+len(r.links)+len(r.files)+len(r.goneFiles)+len(r.goneLinks)+len(r.goneGroups)+len(r.goneChunks) > 0
}

type fileRecord struct {
	ID        FileID
	Name      string
	Groups    []GroupID
	Policy    Policy
	Expiry    int64 // Unix seconds
	Cancelled bool
}

type groupRecord struct {
	ID     GroupID
	Chunks []cid.Cid
	Copies int
	Parity int
	Code   code
}

type chunkRecord struct {
	ID         cid.Cid
	Bytes      int64
	Descriptor []byte // where the chunk is new
}

// The events of the machine.
type (
	// fileEvent: a file is to be kept as it says, whatever was kept under its ID before.
	fileEvent struct{ file checked }
	// removeEvent: a file is not to be kept any more. Unknown files are ignored.
	removeEvent struct{ id FileID }
	// cancelEvent: a file stays listed, and nothing is done for it.
	cancelEvent struct{ id FileID }
	// retryEvent: a file is wanted now: nobody's backoff counts.
	retryEvent struct{ id FileID }
	// candidatesEvent: providers were heard of.
	candidatesEvent struct{ found []Candidate }
	// goneEvent: the connection to a peer is gone.
	goneEvent struct{ peer peer.ID }
	// auditEvent: all that is pledged is to be audited now.
	auditEvent struct{}
	// repairEvent: files are to be kept as they should be, now.
	repairEvent struct{ files []FileID }
)

// newMachine makes a machine that keeps nothing. The terms are complete.
func newMachine(cfg terms, seed [32]byte) *machine {
	return &machine{
		cfg: cfg, random: rand.New(rand.NewChaCha8(seed)),
		files: make(map[FileID]*file), groups: make(map[GroupID]*group), chunks: make(map[cid.Cid]*chunk),
		links: make(map[seal.LinkID]*link), providers: make(map[peer.ID]*provider), flights: make(map[uint64]*flight),
		doubts: make(map[*link]int),
	}
}

// Tick tells the time since the start, and that on the wall, and rings whatever waits for it.
func (m *machine) Tick(now time.Duration, wall time.Time) {
	m.now, m.wall = max(m.now, now), wall
	m.version++
	for t := m.timers.due(m.now); t != nil; t = m.timers.due(m.now) {
		t.ring()
	}
}

// Next returns the time by which Tick has to be called, if any.
func (m *machine) Next() (time.Duration, bool) { return m.timers.next() }

// Step takes one event in.
func (m *machine) Step(event any) {
	m.version++
	switch e := event.(type) {
	case fileEvent:
		m.keep(e.file)
	case removeEvent:
		m.remove(e.id)
	case cancelEvent:
		m.cancel(e.id)
	case retryEvent:
		m.retry(e.id)
	case candidatesEvent:
		m.heard(e.found)
	case goneEvent:
		m.gone(e.peer)
	case auditEvent:
		m.auditAll()
	case repairEvent:
		m.repair(e.files)
	case doneEvent:
		m.done(e)
	}
}

// Ready looks at whatever has changed and returns all that is to be done. The caller owns the result.
func (m *machine) Ready() ready {
	m.round++
	m.resolve()
	for again := true; again; again = len(m.dirty) > 0 { // placing one may make others dirty, as may looking at one
		for i := 0; i < len(m.dirty); i++ {
			m.dirty[i].dirty = false
			m.reconsider(m.dirty[i])
		}
		m.dirty = m.dirty[:0]
		m.place()
	}
	m.seek()
	m.dispatch()
	m.show()
	return m.take()
}

// take returns what has come together, as it is now: what went and came back is not gone.
func (m *machine) take() ready {
	out := m.out
	m.out = ready{}
	for i := range out.links {
		l := m.links[out.links[i].ID]
		l.listed = false
		out.links[i] = l.record
	}
	out.goneFiles = slices.DeleteFunc(out.goneFiles, func(id FileID) bool { return m.files[id] != nil })
	out.goneGroups = slices.DeleteFunc(out.goneGroups, func(id GroupID) bool { return m.groups[id] != nil })
	out.goneChunks = slices.DeleteFunc(out.goneChunks, func(id cid.Cid) bool { return m.chunks[id] != nil })
	return out
}
