package uploader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// world is a machine with a journal and providers, without IO and in a time of its own.
type world struct {
	testing.TB
	random  *rand.Rand
	terms   terms
	m       *machine
	journal *memory
	fakes   map[peer.ID]*fake
	order   []peer.ID
	away    map[peer.ID]bool
	found   []Candidate // what a search finds
	start   time.Time
	now     time.Duration
	wall    *time.Time // shared with the providers
	tasks   []task     // under way
	purse   map[seal.LinkID]uint64
	readies int
	noRead  bool                     // chunks can't be read
	answers func(t task) *doneEvent  // in place of what providers say, unless nil
	done    map[work]int             // tasks carried out
	onReady func(r *ready, w *world) // before the commit
}

var testStart = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func testTerms(t testing.TB) terms {
	_, self := keyOf(t, "writer")
	c := Config{Self: self, AuditInterval: time.Hour, VanishAfter: 10 * time.Minute, MaxPricePerGiBDay: 1 << 40}
	c.Limits.defaults()
	return c.terms()
}

func newWorld(t testing.TB, seed uint64, providers int) *world {
	wall := testStart
	w := &world{
		TB: t, random: rand.New(rand.NewPCG(seed, 1)), terms: testTerms(t), journal: newMemory(), start: wall, wall: &wall,
		fakes: make(map[peer.ID]*fake), away: make(map[peer.ID]bool), purse: make(map[seal.LinkID]uint64),
		done: make(map[work]int),
	}
	w.reload()
	for range providers {
		w.addProvider()
	}
	return w
}

// fork returns a world that goes on from this one's journal, as after a crash now.
func (w *world) fork() *world {
	wall := *w.wall
	n := &world{
		TB: w.TB, random: rand.New(rand.NewPCG(w.random.Uint64(), 2)), terms: w.terms, journal: w.journal.clone(),
		fakes: make(map[peer.ID]*fake), away: maps.Clone(w.away), order: slices.Clone(w.order), found: slices.Clone(w.found),
		start: w.start, now: w.now, wall: &wall, purse: maps.Clone(w.purse), done: make(map[work]int),
	}
	for id, f := range w.fakes {
		n.fakes[id] = f.clone()
		n.fakes[id].now = func() time.Time { return *n.wall }
	}
	n.reload()
	return n
}

func (w *world) addProvider() *fake {
	f := newFake(w, fmt.Sprintf("provider-%d", len(w.order)), w.terms.self, func() time.Time { return *w.wall })
	w.fakes[f.id] = f
	w.order = append(w.order, f.id)
	w.found = append(w.found, Candidate{ID: f.id})
	return f
}

// reload forgets the machine and begins again with what the journal has.
func (w *world) reload() {
	c, err := w.journal.load()
	if err != nil {
		w.Fatal(err)
	}
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], w.random.Uint64())
	w.m = newMachine(w.terms, seed)
	w.m.Tick(w.now, *w.wall)
	w.m.load(c)
	w.tasks = nil
}

// ready commits what the machine decided and takes its tasks.
func (w *world) ready() ready {
	r := w.m.Ready()
	w.readies++
	if w.onReady != nil {
		w.onReady(&r, w)
	}
	if err := w.journal.commit(&r); err != nil {
		w.Fatal(err)
	}
	w.tasks = append(w.tasks, r.tasks...)
	checkMachine(w, w.m)
	return r
}

func (w *world) step(event any) ready {
	w.m.Step(event)
	return w.ready()
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.now += d
	*w.wall = w.wall.Add(d)
	w.m.Tick(w.now, *w.wall)
	w.ready()
}

var errSilent = errors.New("no answer in time")

// do has a task carried out, and returns the answer.
func (w *world) do(t task) doneEvent {
	w.done[t.work]++
	if w.answers != nil {
		if e := w.answers(t); e != nil {
			e.task = t.id
			return *e
		}
	}
	e := doneEvent{task: t.id}
	k := t.link
	switch t.work {
	case workSearch:
		e.found = w.found
		return e
	case workSeal:
		if w.noRead {
			e.err = errLocal{errors.New("chunk can't be read")}
		}
		e.root = [32]byte(append(slices.Clone(k.Chunk.Hash()[2:18]), k.Provider[len(k.Provider)-16:]...))
		return e
	case workPay:
		e.voucher, e.err = w.pay(k)
		return e
	}
	f := w.fakes[t.provider.id]
	if f == nil || w.away[f.id] {
		e.err = errSilent
		return e
	}
	switch t.work {
	case workData:
		a := f.data(k.ID, t.missing)
		e.missing, e.err = a.Missing, a.Refused()
	case workAudit:
		e.err = f.audit(k.Chunk)
	default:
		w.ask(f, t, &e)
	}
	return e
}

// ask sends a request to a provider.
func (w *world) ask(f *fake, t task, e *doneEvent) {
	k := t.link
	var r seal.Request
	switch t.work {
	case workQuote:
		r = &seal.Quote{Now: t.now}
	case workStore:
		r = &seal.StoreRequest{Link: k.ID, Chunk: k.Chunk, Bytes: k.Bytes, Price: k.Price, Expiry: k.expiry(), Now: t.now}
	case workChannel:
		r = &seal.OpenChannel{}
	case workMap:
		r = &seal.Segments{Link: k.ID, Root: k.Root}
	case workSign:
		r = &seal.SignatureRequest{Link: k.ID}
	case workRenew:
		r = &seal.Renew{Link: k.ID, Chunk: k.Chunk, Expiry: k.expiry(), Price: k.Price, Now: t.now}
	case workVoucher:
		r = &seal.Voucher{Link: k.ID, Voucher: k.Voucher}
	case workRelease:
		r = &seal.Release{Chunk: k.Chunk}
	}
	a := f.answer(r)
	e.err = a.Refused()
	switch a := a.(type) {
	case *seal.QuoteAnswer:
		e.quote = *a
	case *seal.SegmentsAnswer:
		e.missing = a.Missing
	case *seal.SignatureAnswer:
		e.pledge = a.Pledge
	}
}

// pay pays a link once, whoever asks how often.
func (w *world) pay(k record) ([]byte, error) {
	if f := w.fakes[k.Provider]; f.links[k.ID] == nil || f.links[k.ID].pledge == nil {
		w.Errorf("link %s is paid without a pledge", k.ID)
	}
	if err := w.journal.paid(nil, k.ID, []byte("voucher")); err != nil {
		return nil, errLocal{err}
	}
	if was, ok := w.purse[k.ID]; ok && was != k.Price {
		w.Errorf("link %s is paid %d and %d", k.ID, was, k.Price)
	}
	w.purse[k.ID] = k.Price
	return []byte("voucher"), nil
}

// answerOne carries out a random task.
func (w *world) answerOne() {
	i := w.random.IntN(len(w.tasks))
	t := w.tasks[i]
	w.tasks = slices.Delete(w.tasks, i, i+1)
	w.step(w.do(t))
}

// settle carries out tasks and lets time pass until nothing is left to do but what is due much later.
func (w *world) settle() {
	w.Helper()
	w.ready()
	end := w.now + 3*time.Hour
	for range 20_000 {
		if len(w.tasks) > 0 {
			w.answerOne()
			continue
		}
		at, ok := w.m.Next()
		idle := w.m.active+len(w.m.lacking)+len(w.m.stuck)+len(w.releasing()) == 0 && !w.paused()
		if !ok || at > end || at > w.now+15*time.Minute || idle {
			return
		}
		w.pass(max(0, at-w.now))
	}
	at, _ := w.m.Next()
	w.Fatalf("the machine does not come to rest: now %v, next %v, %d tasks, %d open, %d lacking, %d stuck\n%s",
		w.now, at, len(w.tasks), w.m.active, len(w.m.lacking), len(w.m.stuck), w.dump())
}

func (w *world) releasing() (all []*link) {
	for _, l := range w.m.links {
		if l.Release || l.State == LinkSigned && !l.settled() {
			all = append(all, l)
		}
	}
	return all
}

// paused says whether a chunk waits after a failure on this side.
func (w *world) paused() bool {
	for _, c := range w.m.chunks {
		if c.again.on() {
			return true
		}
	}
	return false
}

// testFile makes a file of groups of so many columns of parity each. Names are shared by equal chunks.
func testFile(name string, policy Policy, groups ...[]string) checked {
	f := checked{File: File{ID: FileID(cidOf(name).Hash()[2:18]), Name: name, Policy: policy}}
	if f.Policy.Lifetime == 0 {
		f.Policy.Lifetime = someLifetime
	}
	for _, names := range groups {
		var g Group
		c := checkedGroup{}
		for _, n := range names {
			g.Columns = append(g.Columns, Column{Chunk: cidOf(n), Descriptor: []byte(n)})
			c.bytes = append(c.bytes, 5*seal.SegmentBytes+int64(n[len(n)-1]))
		}
		g.Parity = len(names) / 2
		c.id = g.ID()
		f.Groups, f.groups = append(f.Groups, g), append(f.groups, c)
	}
	return f
}

func columns(name string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%c", name, 'a'+i))
	}
	return names
}

func (w *world) status(f checked) FileStatus {
	w.Helper()
	k := w.m.files[f.ID]
	if k == nil {
		w.Fatalf("file %s is lost", f.Name)
	}
	w.m.round++
	return w.m.status(k)
}

func (w *world) wantState(f checked, want State) FileStatus {
	w.Helper()
	s := w.status(f)
	if s.State != want {
		w.Fatalf("file %s is %s, want %s\n%s", f.Name, s, want, w.dump())
	}
	return s
}

func (w *world) dump() (s string) {
	for _, l := range w.m.linksOf(nil) {
		s += fmt.Sprintf("%s chunk %s at %s: %s flight %d retry %v queued %v waits %v reason %q release %v\n", l.ID, l.Chunk.String()[50:],
			l.provider.id.ShortString(), l.State, l.flight, l.retry.on(), l.queued, l.waits, l.Reason, l.Release)
	}
	return s
}

// checkKept says whether providers keep just what the machine believes, after everything has settled.
func (w *world) checkKept() {
	w.Helper()
	believed := make(map[peer.ID]map[cid.Cid]int)
	for _, l := range w.m.links {
		if l.State == LinkSigned {
			if believed[l.Provider] == nil {
				believed[l.Provider] = make(map[cid.Cid]int)
			}
			believed[l.Provider][l.Chunk]++
			if l.Price > 0 && (w.purse[l.ID] != l.Price || !l.Paid) {
				w.Errorf("link %s has price %d, paid is %d", l.ID, l.Price, w.purse[l.ID])
			}
		}
	}
	for id, f := range w.fakes {
		if w.away[id] {
			continue
		}
		for c, n := range f.kept() {
			if believed[id][c] != n {
				w.Errorf("%s keeps %d of chunk %s, the writer knows of %d\n%s", id, n, c, believed[id][c], w.dump())
			}
		}
		for c, n := range believed[id] {
			if f.kept()[c] != n {
				w.Errorf("%s keeps %d of chunk %s, the writer believes in %d", id, f.kept()[c], c, n)
			}
		}
	}
}
