package uploader

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// TestRandomEvents lives random lives with providers that do all that is wrong, and restarts. When all
// is well again, all files are uploaded and providers keep just what the machine believes.
func TestRandomEvents(t *testing.T) {
	seeds := []uint64{8767, 442, 1368, 5041} // found something once
	for seed := range uint64(randomSeeds) {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		life(t, seed, 120, nil)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestStopAtEveryReady lives short random lives and restarts a copy of each at every single Ready: before
// it is committed, after that, or after its tasks were carried out and no answer came. All end well.
func TestStopAtEveryReady(t *testing.T) {
	stops := 0
	for seed := range uint64(stopSeeds) {
		life(t, seed, 10, func(r *ready, w *world) {
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
			stops++
			n := w.fork()
			if stops%3 > 0 {
				if err := n.journal.commit(r); err != nil {
					t.Fatal(err)
				}
				n.reload()
				if len(n.m.files) != len(w.m.files) {
					t.Fatalf("seed %d: %d files after a stop, %d before", seed, len(n.m.files), len(w.m.files))
				}
			}
			if stops%3 > 1 {
				for _, task := range r.tasks {
					n.do(task)
				}
			}
			n.mend(0)
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d stops in %d lives", stops, stopSeeds)
}

// life gives a machine random events.
func life(t *testing.T, seed uint64, events int, onReady func(*ready, *world)) {
	w := newWorld(t, seed, 5)
	w.terms.limits.Active = 6
	w.terms.limits.SealedBytes = 3 * seal.MaxChunkBytes
	w.reload()
	if seed%2 == 1 {
		for _, f := range w.fakes {
			f.price = 1 << 30
		}
	}
	w.onReady = onReady
	for range events {
		w.event()
	}
	if seed%25 > 0 { // of some lives all of the upload is stopped at
		w.onReady = nil
	}
	w.mend(3)
}

// randomFile is one of few, with chunks that others may share.
func (w *world) randomFile() checked {
	policy := Policy{Redundancy: w.random.IntN(3), AutoRenew: w.random.IntN(3) == 0}
	if w.random.IntN(4) == 0 {
		policy.Lifetime = 90 * 24 * time.Hour
	}
	var groups [][]string
	for range 1 + w.random.IntN(2) {
		g := columns(fmt.Sprintf("g%d", w.random.IntN(4)), 1+w.random.IntN(3))
		if w.random.IntN(8) == 0 {
			g[0] = "g0-a"
		}
		groups = append(groups, g)
	}
	return testFile(fmt.Sprintf("f%d", w.random.IntN(4)), policy, groups...)
}

// event lets something happen.
func (w *world) event() {
	p := w.fakes[w.order[w.random.IntN(len(w.order))]]
	id := testFile(fmt.Sprintf("f%d", w.random.IntN(4)), Policy{}).ID
	switch w.random.IntN(24) {
	case 0, 1, 2:
		w.step(fileEvent{w.randomFile()})
	case 3:
		w.step(removeEvent{id})
	case 4:
		w.step([]any{cancelEvent{id}, retryEvent{id}, auditEvent{}, goneEvent{p.id}, repairEvent{[]FileID{id}}}[w.random.IntN(5)])
	case 5:
		w.pass(time.Duration(w.random.IntN(90)) * time.Second)
	case 6:
		w.pass(time.Duration(w.random.IntN(20)) * 24 * time.Hour)
	case 7:
		w.restart()
	case 8:
		w.spoil(p)
	case 9:
		w.step(candidatesEvent{w.found})
	default:
		for range 1 + w.random.IntN(4) {
			if len(w.tasks) > 0 {
				w.answerSomehow()
			}
		}
	}
}

// answerSomehow carries out a task, or not, or has it fail.
func (w *world) answerSomehow() {
	i := w.random.IntN(len(w.tasks))
	t := w.tasks[i]
	w.tasks = slices.Delete(w.tasks, i, i+1)
	switch w.random.IntN(20) {
	case 0: // it never arrives
		w.step(doneEvent{task: t.id, err: errSilent})
	case 1: // its answer never arrives
		w.do(t)
		w.step(doneEvent{task: t.id, err: errSilent})
	case 2:
		codes := []seal.RefusalCode{seal.RefusedBusy, seal.RefusedFailed, seal.RefusedLimit, seal.RefusedNoChannel}
		if t.work != workSeal && t.work != workPay && t.work != workSearch {
			w.step(doneEvent{task: t.id, err: seal.Refuse(codes[w.random.IntN(len(codes))], "at random")})
			return
		}
		w.step(doneEvent{task: t.id, err: errLocal{errors.New("disk error")}})
	default:
		w.step(w.do(t))
	}
}

// spoil makes something wrong with a provider, or right again.
func (w *world) spoil(p *fake) {
	switch w.random.IntN(8) {
	case 0:
		w.away[p.id] = !w.away[p.id]
	case 1:
		p.refuse = []seal.RefusalCode{0, seal.RefusedFull, seal.RefusedLimit, seal.RefusedPrice}[w.random.IntN(4)]
	case 2:
		p.forgery = !p.forgery
	case 3:
		p.rotten = !p.rotten
	case 4:
		p.fillsUp = !p.fillsUp
	case 5:
		p.skew = time.Hour - p.skew
	case 6:
		for id, l := range p.links {
			if l.pledge == nil && !l.over {
				p.drop(id) // reservations lapse
			}
		}
	case 7:
		p.liar = !p.liar
	}
}

// restart forgets all but the journal. Tasks under way are carried out or not.
func (w *world) restart() {
	for _, t := range w.tasks {
		if w.random.IntN(2) == 0 {
			w.do(t)
		}
	}
	w.reload()
	w.ready()
}

// mend makes all well again, adds providers, and checks how it ends.
func (w *world) mend(more int) {
	w.Helper()
	clear(w.away)
	for _, f := range w.fakes {
		f.refuse, f.forgery, f.rotten, f.fillsUp, f.skew, f.liar = 0, false, false, false, 0, false
	}
	for len(w.order) < 5+more {
		w.addProvider()
	}
	w.settle()
	w.step(auditEvent{}) // finds out who has lost what
	w.settle()
	for id, f := range w.m.files {
		if w.m.wanted(f) {
			w.step(retryEvent{id})
		}
	}
	w.settle()
	w.m.round++
	for _, f := range w.m.files {
		s := w.m.status(f)
		if w.m.wanted(f) && s.State != Uploaded && w.enough(f) {
			w.Fatalf("file %s is %s in the end\n%s", f.name, s, w.dump())
		}
	}
	w.checkKept()
}

// enough says whether there are providers for all of a file that did not fail for cause.
func (w *world) enough(f *file) bool {
	for _, g := range f.groups {
		need := w.m.wants(g).copies * len(g.chunks)
		may := mostPairs(w.m, g, func(c *chunk) (all []peer.ID) {
			for _, p := range w.order {
				if !slices.ContainsFunc(c.links, func(l *link) bool { return l.Provider == p && l.Cause }) {
					all = append(all, p)
				}
			}
			return all
		})
		if may < need {
			return false
		}
	}
	return true
}
