package uploader

import (
	"strings"
	"testing"
	"time"
)

// untilResolved answers tasks and lets time pass until a repair knows all that it wants to know.
func untilResolved(w *world) {
	w.Helper()
	for range 1000 {
		switch at, ok := w.m.Next(); {
		case len(w.m.doubts) == 0 && len(w.tasks) == 0 && w.m.active == 0:
			return
		case len(w.tasks) > 0:
			w.answerOne()
		case ok:
			w.pass(max(0, at-w.now))
		}
	}
	w.Fatalf("%d links are still doubted\n%s", len(w.m.doubts), w.dump())
}

// TestRepair: one provider has vanished and another has lost what it had; a repair finds both out at once and has
// others keep it. Links of who answers stay, and nobody else's files are touched.
func TestRepair(t *testing.T) {
	w := newWorld(t, 1, 7)
	f, other := testFile("f", Policy{Lifetime: 30 * 24 * time.Hour}, columns("g", 4)), testFile("o", Policy{}, columns("o", 2))
	w.step(candidatesEvent{w.found})
	w.step(fileEvent{f})
	w.step(fileEvent{other})
	w.settle()
	w.wantState(f, Uploaded)
	links := w.m.linksOf([]FileID{f.ID})
	gone, lost := links[0].Provider, links[1].Provider
	w.away[gone] = true
	w.fakes[lost].rotten = true
	began := w.now
	w.step(repairEvent{[]FileID{f.ID}})
	untilResolved(w)
	if took := w.now - began; took > time.Minute {
		t.Errorf("the repair took %v", took)
	}
	w.settle()
	w.wantState(f, Uploaded)
	held := make(map[string]bool)
	for _, l := range w.m.linksOf([]FileID{f.ID}) {
		if l.State != LinkSigned {
			continue
		}
		if l.Provider == gone || l.Provider == lost {
			t.Errorf("%s still counts", l.Provider)
		}
		held[l.Chunk.String()] = true
	}
	if len(held) != 4 {
		t.Errorf("%d of 4 chunks are held", len(held))
	}
	for _, l := range links[2:] {
		if l.State != LinkSigned || w.m.links[l.ID] != l {
			t.Errorf("a good link of %s is %s", l.Provider, l.State)
		}
	}
	for _, l := range w.m.linksOf([]FileID{other.ID}) {
		if l.State != LinkSigned && !strings.Contains(l.Reason, "proof") && !strings.HasPrefix(l.Reason, notNeeded) {
			t.Errorf("a link of another file is %s: %s", l.State, l.Reason)
		}
	}
}

// TestRepairProlongs: a file without auto renewal is kept for another lifetime only when it is about to end.
func TestRepairProlongs(t *testing.T) {
	w := newWorld(t, 2, 4)
	const life = 20 * 24 * time.Hour
	f := testFile("f", Policy{Lifetime: life}, columns("g", 2))
	w.step(candidatesEvent{w.found})
	w.step(fileEvent{f})
	w.settle()
	first := w.wantState(f, Uploaded).Expiry
	repaired := func() int64 {
		t.Helper()
		w.step(repairEvent{[]FileID{f.ID}})
		untilResolved(w)
		w.settle()
		return w.wantState(f, Uploaded).Expiry
	}
	if now := repaired(); now != first {
		t.Errorf("a repair right after the upload moves its end from %d to %d", first, now)
	}
	w.pass(life * 4 / 5)
	w.settle()
	if now, least := repaired(), w.wall.Add(life).Unix(); now < least {
		t.Errorf("a repair shortly before the end leaves it at %d, want %d at least", now, least)
	}
}
