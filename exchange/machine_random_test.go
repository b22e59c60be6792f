package exchange

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// tightLimits are small, so that random events meet them all the time.
var tightLimits = Limits{
	TotalBytes: 8000, PeerBytes: 4000, PeerBytesMin: 2000, ProbeBytes: 1500,
	PeerWants: 12, PeersPerBlock: 3, ActivePeers: 4, KnownPeers: 6, Sessions: 3, StoreBytes: 3000,
	DayBudget: 30_000, Accounts: 3, PeerDues: 6,
	Dials: 2, DialsPerSession: 1, Searches: 2, SearchProviders: 4, HedgeBytes: 2000, UnaskedBytes: 5000,
}

// world gives a machine random events and checks it after each.
type world struct {
	testing.TB
	random  *rand.Rand
	m       *machine
	lists   lists
	blocks  []blocks.Block
	held    map[cid.Cid]blocks.Block
	peers   []peer.ID
	next    intentID
	open    map[intentID]cid.Cid
	dials   []peer.ID
	search  []cid.Cid
	rescues map[cid.Cid]bool // under way
	probes  map[intentID]bool
	storing []cid.Cid
	active  map[peer.ID]bool
	until   map[intentID]time.Duration
	till    worldTill
	greedy  bool   // all peers want money
	waits   uint64 // how often a seller that rests was waited for
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{
		TB: t, random: rand.New(rand.NewPCG(seed, 1)), m: newMachine(tightLimits.withDefaults()), lists: make(lists),
		held: make(map[cid.Cid]blocks.Block), open: make(map[intentID]cid.Cid), active: make(map[peer.ID]bool),
		until: make(map[intentID]time.Duration), rescues: make(map[cid.Cid]bool), probes: make(map[intentID]bool), till: newWorldTill(), greedy: seed%2 == 1,
	}
	for i := range 40 {
		b := leaf(i, 10+i*i)
		w.blocks = append(w.blocks, b)
		w.held[b.Cid()] = b
	}
	for i := range 12 {
		w.peers = append(w.peers, peer.ID(fmt.Sprintf("peer-%d", i)))
	}
	return w
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// take takes a random element out.
func take[T any](r *rand.Rand, of *[]T) (v T) {
	i := r.IntN(len(*of))
	v = (*of)[i]
	*of = append((*of)[:i], (*of)[i+1:]...)
	return v
}

// step gives one event.
func (w *world) step(event any) {
	w.m.Step(event)
	w.after()
}

// pass lets time pass, ringing on the way.
func (w *world) pass(d time.Duration) {
	end := w.m.now + d
	for at, ok := w.m.Next(); ok && at <= end; at, ok = w.m.Next() {
		w.m.Tick(at)
		w.after()
	}
	w.m.Tick(end)
	w.after()
}

// after carries out what the machine decided, and checks it.
func (w *world) after() {
	w.Helper()
	r := w.m.Ready()
	w.lists.sent(r.sends)
	for _, d := range r.dials {
		w.dials = append(w.dials, d.ID)
	}
	w.search = append(w.search, r.searches...)
	for _, a := range r.stores {
		w.storing = append(w.storing, a.Block.Cid())
	}
	for _, res := range r.resolved {
		w.resolved(res)
	}
	w.owes(r.payments)
	w.rescued(r)
	for _, p := range r.protects {
		if w.active[p.peer] == p.on {
			w.Fatalf("%s was protected %v twice", p.peer, p.on)
		}
		w.active[p.peer] = p.on
	}
	if len(w.open) != len(w.m.intents) {
		w.Fatalf("%d intents are open, %d known", len(w.open), len(w.m.intents))
	}
	for id, at := range w.until {
		if i := w.m.intents[id]; i != nil && at <= w.m.now && i.want.state != wantStoring {
			w.Fatalf("intent %d is open after its deadline", id)
		}
	}
	if w.m.waking.pos > 0 {
		w.waits++
	}
	checkMachine(w, w.m)
	w.lists.check(w, w.m)
	w.checkBudgets()
}

// resolved checks how intents end.
func (w *world) resolved(res resolution) {
	for _, id := range res.intents {
		c, ok := w.open[id]
		var dear *TooDearError
		var broke *BudgetError
		switch {
		case !ok:
			w.Fatalf("intent %d ends twice", id)
		case res.block != nil && c.Equals(res.block.Cid()):
		case res.block == nil && errors.Is(res.err, errProbed) && w.probes[id]:
		case res.block == nil && errors.Is(res.err, ErrTimeout) && w.until[id] > 0 && w.until[id] <= w.m.now:
		case errors.As(res.err, &dear) && dear.CID.Equals(c) && dear.Price > 0 && dear.PerMiB > dear.Limit:
		case errors.As(res.err, &broke) && broke.CID.Equals(c) && broke.Price+broke.Spent > broke.Budget:
		default:
			w.Fatalf("intent %d for %s ends with %v, %v", id, c, res.block, res.err)
		}
		delete(w.open, id)
		delete(w.until, id)
	}
}

// happens lets a random event happen.
func (w *world) happens() {
	r := w.random
	p := pick(r, w.peers)
	switch n := r.IntN(100); {
	case n < 2:
		w.spends()
	case n < 4:
		w.pays()
	case n < 6 && len(w.rescues) > 0:
		w.rescueEnds()
	case n < 20:
		w.wants()
	case n < 24 && len(w.open) > 0:
		w.forgets()
	case n < 28:
		w.connects(p)
	case n < 31:
		delete(w.lists, p)
		w.step(goneEvent{p})
	case n < 32:
		delete(w.lists, p)
		w.step(sendFailedEvent{p})
	case n < 33 && r.IntN(4) == 0:
		w.step(misbehavedEvent{p, errMalformed})
	case n < 65:
		w.answers(p)
	case n < 80 && len(w.storing) > 0:
		w.stores()
	case n < 84 && len(w.dials) > 0:
		w.dialed()
	case n < 88 && len(w.search) > 0:
		w.finds()
	case n < 90:
		w.unasked(p)
	case n < 98:
		w.pass(time.Duration(r.IntN(300)) * time.Millisecond)
	default:
		w.pass(time.Duration(r.IntN(20)) * time.Second)
	}
}

func (w *world) wants() {
	w.next++
	b := pick(w.random, w.blocks)
	want := Want{CID: b.Cid()}
	if w.random.IntN(2) == 0 {
		want.Place.Bytes = uint64(len(b.RawData()))
	}
	if n := w.random.IntN(5); n > 0 {
		want.Dataset = w.blocks[n].Cid()
	}
	w.open[w.next] = want.CID
	e := wantEvent{intent: w.next, want: want, bulk: w.random.IntN(2) == 0, rescue: w.random.IntN(3) == 0,
		probe: w.random.IntN(8) == 0, missing: w.random.IntN(8) == 0}
	if e.probe {
		e.rescue, e.missing = false, false
		w.probes[e.intent] = true
	}
	if w.random.IntN(4) == 0 {
		e.deadline = w.m.now + time.Duration(w.random.IntN(5000)+1)*time.Millisecond
		w.until[w.next] = e.deadline
	}
	w.step(e)
}

// rescued takes in which rescues begin, and which are taken back: none twice.
func (w *world) rescued(r ready) {
	for _, c := range r.unrescued {
		if !w.rescues[c] {
			w.Fatalf("rescue of %s is taken back and was not under way", c)
		}
		delete(w.rescues, c)
	}
	for _, want := range r.rescues {
		if w.rescues[want.CID] {
			w.Fatalf("%s is rescued twice at a time", want.CID)
		}
		w.rescues[want.CID] = true
	}
	for c := range w.rescues {
		if w.m.wants[c] == nil || !w.m.wants[c].rescuing {
			w.Fatalf("rescue of %s goes on, which nobody wants", c)
		}
	}
	for _, id := range r.lacking {
		if w.probes[id] {
			w.Fatalf("probe %d is told", id)
		}
	}
}

// rescueEnds lets the rescue of the first such block succeed or fail.
func (w *world) rescueEnds() {
	for _, b := range w.blocks {
		if c := b.Cid(); w.rescues[c] {
			delete(w.rescues, c)
			if w.random.IntN(2) == 0 {
				w.step(rescuedEvent{c, nil, errDeadline})
			} else {
				w.step(rescuedEvent{c, b, nil})
			}
			return
		}
	}
}

// forgets ends the lowest of some random intents, as map order is not repeatable.
func (w *world) forgets() {
	from := intentID(w.random.Uint64N(uint64(w.next)) + 1)
	for id := from; id <= w.next; id++ {
		if _, ok := w.open[id]; ok {
			delete(w.open, id)
			delete(w.until, id)
			w.step(forgetEvent{id})
			return
		}
	}
}

func (w *world) connects(p peer.ID) {
	delete(w.lists, p)
	if s := w.m.peers[p]; s != nil && s.connected {
		w.step(goneEvent{p})
		delete(w.lists, p)
	}
	w.step(connectedEvent{p, w.random.IntN(4) > 0})
}

// answers lets a peer say something about one of the entries on its list.
func (w *world) answers(p peer.ID) {
	s := w.m.peers[p]
	if s == nil || !s.connected || len(s.asks) == 0 {
		return
	}
	for _, b := range w.blocks {
		e, ok := w.lists[p][b.Cid().KeyString()]
		if !ok || w.random.IntN(3) > 0 {
			continue
		}
		in := Incoming{}
		switch n := w.random.IntN(4); {
		case n == 0 && e.SendDontHave:
			in.Presences = []Presence{{CID: b.Cid(), Have: false}}
		case n == 1 && e.Kind == WantHave:
			in.Presences = []Presence{w.offers(p, b)}
		case n == 1 && w.charges(p) && w.random.IntN(4) == 0: // it wants money first
			in.Presences = []Presence{w.offers(p, b)}
		case n == 2 || e.Kind == WantBlock:
			w.delivers(p, b, e)
			in.Blocks = []blocks.Block{b}
			delete(w.lists[p], b.Cid().KeyString())
		}
		if w.charges(p) && w.random.IntN(3) == 0 {
			in.Account = &Account{PricePerMiB: w.rate(p) * mib, Suspended: w.random.IntN(10) == 0}
		}
		w.step(receivedEvent{p, in})
		return
	}
}

func (w *world) stores() {
	var err error
	if w.random.IntN(10) == 0 {
		err = errors.New("disk is full")
	}
	w.step(storedEvent{[]cid.Cid{take(w.random, &w.storing)}, err})
}

func (w *world) dialed() {
	p := take(w.random, &w.dials)
	if w.random.IntN(2) == 0 {
		w.step(dialedEvent{p, errors.New("refused")})
		return
	}
	if s := w.m.peers[p]; s != nil && !s.connected {
		w.connects(p)
	}
	w.step(dialedEvent{p, nil})
}

func (w *world) finds() {
	c := take(w.random, &w.search)
	for range w.random.IntN(4) {
		w.step(providersEvent{key: c, peers: []peer.AddrInfo{{ID: pick(w.random, w.peers)}}})
	}
	w.step(providersEvent{key: c, done: true})
}

// unasked lets a peer send what is not on its list, or say something about it.
func (w *world) unasked(p peer.ID) {
	b := pick(w.random, w.blocks)
	if s := w.m.peers[p]; s == nil || s.asks[b.Cid()] != nil {
		return
	}
	in := Incoming{Blocks: []blocks.Block{b}}
	if w.random.IntN(3) == 0 {
		in = Incoming{Presences: []Presence{{CID: b.Cid(), Have: w.random.IntN(2) == 0, Price: Amount(w.random.IntN(3) * 100)}}}
	}
	w.step(receivedEvent{p, in})
}

// heal lets a good peer appear, everything under way end, and time pass until nothing is wanted.
func (w *world) heal() {
	angel := peer.ID("angel")
	w.step(connectedEvent{angel, true})
	for range 5000 {
		for len(w.dials) > 0 {
			w.step(dialedEvent{take(w.random, &w.dials), errors.New("refused")})
		}
		for len(w.search) > 0 {
			w.step(providersEvent{key: take(w.random, &w.search), done: true})
		}
		for len(w.storing) > 0 {
			w.stores()
		}
		for _, b := range w.blocks {
			e, ok := w.lists[angel][b.Cid().KeyString()]
			switch {
			case ok && e.Kind == WantHave:
				w.step(receivedEvent{angel, Incoming{Presences: []Presence{{CID: b.Cid(), Have: true}}}})
			case ok:
				delete(w.lists[angel], b.Cid().KeyString())
				w.step(receivedEvent{angel, Incoming{Blocks: []blocks.Block{b}}})
			}
		}
		if w.pays(); len(w.m.wants) == 0 && len(w.till.unpaid) == 0 {
			return
		}
		w.pass(200 * time.Millisecond)
	}
	w.Fatalf("%d wants are left beside a peer that has everything", len(w.m.wants))
}

// randomEvents is one life of a machine. It returns the figures at its end, and how often a seller was waited for.
func randomEvents(t *testing.T, seed uint64, events int) (s Stats, waits uint64) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil || t.Failed() {
			t.Logf("seed %d", seed)
			if r != nil {
				panic(r)
			}
		}
	}()
	w := newWorld(t, seed)
	for range seed % 8 {
		w.spends()
	}
	for range events {
		w.happens()
	}
	w.heal()
	w.pass(3 * time.Minute)
	checkIdle(t, w.m)
	return w.m.figures(), w.waits
}

// TestRandomEvents lives many lives. A failure prints its seed.
func TestRandomEvents(t *testing.T) {
	var bought, refused, broke, expired, failed, waited uint64
	for seed := range uint64(randomSeeds) {
		s, waits := randomEvents(t, seed, 600)
		waited += waits
		bought, refused, broke = bought+s.Bought, refused+s.TooDear, broke+s.OverBudget
		expired, failed = expired+s.Expired, failed+s.PaymentFailures
		if t.Failed() {
			return
		}
	}
	t.Logf("seeds 0 to %d: %d blocks bought, %d too dear, %d over budget, %d callers in vain, %d payments failed, %d times waited",
		randomSeeds-1, bought, refused, broke, expired, failed, waited)
	if bought == 0 || refused == 0 || broke == 0 || expired == 0 || failed == 0 || waited == 0 {
		t.Error("some of it never happened")
	}
}

// TestRandomEventsThatFailed lives the lives again that something was found in.
func TestRandomEventsThatFailed(t *testing.T) {
	for _, seed := range []uint64{
		8733, // asked a peer for a block that came with the word that it gives something again
	} {
		randomEvents(t, seed, 600)
	}
}

// TestMachineRepeatsItself: the same events lead to the same decisions.
func TestMachineRepeatsItself(t *testing.T) {
	record := func() string {
		w := newWorld(t, 7)
		for range 2000 {
			w.happens()
		}
		return fmt.Sprint(w.m.figures(), w.m.seq, w.m.now, w.lists)
	}
	if a, b := record(), record(); a != b {
		t.Errorf("first %s\nthen %s", a, b)
	}
}
