package uploader

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestSharedColumns: columns of two groups lie with one provider and come to be in one stripe. With no more providers
// than a group has columns one of them gets a second link, and loses one as soon as a group of it is gone.
func TestSharedColumns(t *testing.T) {
	second := 0
	for seed := range uint64(30) {
		w := newWorld(t, seed+1, 6)
		f, h := testFile("f", Policy{Redundancy: 1}, columns("g", 6)), testFile("h", Policy{Redundancy: 1}, columns("h", 6))
		w.step(fileEvent{f})
		w.settle()
		w.step(fileEvent{h})
		w.settle()
		n := columns("n", 6)
		n[0], n[1] = columns("g", 6)[0], columns("h", 6)[0]
		j := testFile("j", Policy{Redundancy: 1}, n)
		w.step(fileEvent{j})
		w.settle()
		for _, x := range []checked{f, h, j} {
			w.wantState(x, Uploaded)
		}
		links := len(w.linksIn(LinkSigned))
		if links != 16 && links != 17 {
			t.Errorf("seed %d: 16 chunks have %d links", seed, links)
		}
		second += links - 16
		w.restart()
		w.settle()
		if now := len(w.linksIn(LinkSigned)); now != links || w.wantState(j, Uploaded).State != Uploaded {
			t.Errorf("seed %d: %d links after a restart, %d before", seed, now, links)
		}
		w.checkKept()
		w.step(removeEvent{f.ID})
		w.step(removeEvent{h.ID})
		w.settle()
		w.wantState(j, Uploaded)
		if now := len(w.linksIn(LinkSigned)); now != 6 {
			t.Errorf("seed %d: %d links of 6 chunks when the other groups are gone", seed, now)
		}
		w.checkKept()
	}
	if second == 0 {
		t.Error("no chunk needed a second link with any seed")
	}
}

// TestShift: a chunk that failed for cause everywhere but where another of its group lies takes its place, and the other
// goes elsewhere.
func TestShift(t *testing.T) {
	w := newWorld(t, 1, 4)
	f := testFile("f", Policy{Redundancy: 1}, columns("g", 3))
	w.step(fileEvent{f})
	w.settle()
	links := w.linksIn(LinkSigned)
	slices.SortFunc(links, func(a, b *link) int { return int(a.Order) - int(b.Order) })
	c, free := links[0].chunk, freeOf(w, links)
	for _, p := range []peer.ID{free, links[0].Provider} { // it lies to both
		if p == free {
			bad := *links[0]
			bad.Provider, bad.provider, bad.State, bad.Cause, bad.at = p, w.m.provider(p), LinkFailed, true, 0
			bad.ID = w.m.newID()
			w.m.insert(&bad)
			w.m.save(&bad)
			continue
		}
		w.m.failed(links[0], "proof is wrong", true)
	}
	w.settle()
	w.wantState(f, Uploaded)
	for _, l := range w.linksIn(LinkSigned) {
		if l.chunk == c && l.Provider != links[1].Provider && l.Provider != links[2].Provider {
			t.Errorf("the chunk is with %s", l.Provider)
		}
	}
	if n := len(w.linksIn(LinkSigned)); n != 3 {
		t.Errorf("%d links of 3 chunks", n)
	}
	w.checkKept()
}

// freeOf returns a provider that has none of the links.
func freeOf(w *world, links []*link) peer.ID {
	for _, p := range w.order {
		if !slices.ContainsFunc(links, func(l *link) bool { return l.Provider == p }) {
			return p
		}
	}
	w.Fatal("all providers have links")
	return ""
}

// TestChurn: files come, share columns with those that were there, and go, as stripes do that are made anew. There are
// as many providers as a group has columns, and all are uploaded each time.
func TestChurn(t *testing.T) {
	for seed := range uint64(churnSeeds) {
		random := rand.New(rand.NewPCG(seed, 3))
		w := newWorld(t, seed, 6)
		var files []checked
		var names [][]string
		for round := range 20 {
			g := columns(fmt.Sprintf("r%d", round), 6)
			for i := range 4 { // columns of data that earlier groups have too, at most one of each
				if len(names) > i && random.IntN(2) == 0 {
					from := names[len(names)-1-i]
					if at := random.IntN(4); !slices.Contains(g, from[at]) {
						g[i] = from[at]
					}
				}
			}
			f := testFile(fmt.Sprint("f", round), Policy{Redundancy: 1}, g)
			files, names = append(files, f), append(names, g)
			w.step(fileEvent{f})
			for range random.IntN(200) {
				if len(w.tasks) > 0 {
					w.answerOne()
				}
			}
			if len(files) > 3 && random.IntN(2) == 0 {
				i := random.IntN(len(files))
				w.step(removeEvent{files[i].ID})
				files, names = slices.Delete(files, i, i+1), slices.Delete(names, i, i+1)
			}
			if random.IntN(4) == 0 {
				w.restart()
			}
			if random.IntN(3) > 0 {
				continue
			}
			w.settle()
			for _, f := range files {
				if s := w.status(f); s.State != Uploaded {
					t.Fatalf("seed %d, round %d: file %s is %s\n%s", seed, round, f.Name, s, w.dump())
				}
			}
			w.checkKept()
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestShortage: a chunk of which the only provider is gone says how many providers are needed and known, and what the
// matter is with the others.
func TestShortage(t *testing.T) {
	for want, spoil := range map[string]func(w *world, p *fake){
		"2 do not answer": func(w *world, p *fake) { w.away[p.id] = true },
		"1 do not answer, 1 do not fit: clock-skew: its clock differs by 1h0m0s": func(_ *world, p *fake) { p.skew = time.Hour },
		"1 do not answer, 1 do not fit: 1 bytes are free, 327777 are needed":     func(_ *world, p *fake) { p.free = 1 },
	} {
		w := newWorld(t, 1, 4)
		f := testFile("f", Policy{Redundancy: 1}, columns("g", 3))
		w.step(fileEvent{f})
		w.settle()
		links := w.linksIn(LinkSigned)
		slices.SortFunc(links, func(a, b *link) int { return cmp.Compare(a.Chunk.KeyString(), b.Chunk.KeyString()) })
		free := w.fakes[freeOf(w, links)]
		spoil(w, free)
		w.away[links[0].Provider] = true
		for range 3 {
			w.pass(w.terms.limits.QuoteFor)
			w.settle()
		}
		w.step(repairEvent{[]FileID{f.ID}})
		untilResolved(w)
		w.pass(w.terms.limits.QuoteFor)
		w.settle()
		want = "uploading: needs 3 providers, 2 known, " + want + ", last failure: vanished: no answer to 3 requests: no answer in time"
		if s := w.wantState(f, Uploading); s.String() != want {
			t.Errorf("file is %q, want %q", s, want)
		}
	}
}

// TestLifetimesApart: another file wants a shared chunk for longer. What was uploaded stays so, while that is seen to.
func TestLifetimesApart(t *testing.T) {
	w := newWorld(t, 1, 4)
	f, g := testFile("f", Policy{}, []string{"a", "b", "c"}), testFile("g", Policy{Lifetime: 90 * 24 * time.Hour}, []string{"a", "d"})
	w.step(fileEvent{f})
	w.settle()
	first := w.wantState(f, Uploaded).Expiry
	w.onReady = func(_ *ready, w *world) { w.wantState(f, Uploaded) }
	w.step(fileEvent{g})
	w.settle()
	if s := w.wantState(g, Uploaded); s.Expiry <= first {
		t.Errorf("the file is kept until %d, the other until %d", s.Expiry, first)
	}
	w.step(removeEvent{g.ID})
	w.settle()
	w.checkKept()
}
