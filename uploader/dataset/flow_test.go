package dataset

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// flow is a tree that is larger than the store, on its way.
type flow struct {
	*box
	r        *rand.Rand
	largest  int64 // bytes of a file
	told     ManifestID
	most     int64 // that waited at once
	restarts int
	passes   int
}

// bounded makes a box whose store has room for so much, of which half may wait.
func bounded(t *testing.T, capacity int64) *flow {
	db := openDB(t, "")
	t.Cleanup(func() { must(t, db.Close()) })
	b := newBox(t, db)
	b.store.capacity, b.cfg.MostPending = capacity, capacity/2
	b.open()
	return &flow{box: b, r: seeded(t)}
}

// check compares what waits with what may.
func (f *flow) check() {
	f.t.Helper()
	st := f.d.Stats()
	// What is moved from groups that are placed is none of what is new.
	must(f.t, f.d.scan(f.d.key(keyMoving), func(rest, _ []byte) error {
		return f.d.view(func(x *tx) error {
			h, err := x.head(GroupID(number(rest, 0)))
			st.QueuedBytes -= int64(h.liveBytes)
			return err
		})
	}))
	waits := st.Unplaced + f.d.stored(st.QueuedBytes)
	f.most = max(f.most, waits)
	if most := f.cfg.MostPending + f.sink.largest() + f.d.stored(f.largest); waits > most {
		f.t.Fatalf("%d bytes wait to be placed, %d may", waits, most)
	}
}

// largest is the largest group, in bytes.
func (s *fakeSink) largest() (most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		n := int64(0)
		for _, c := range g.Columns {
			n += c.Shards.Bytes()
		}
		most = max(most, n)
	}
	return most
}

// step works once, and places some of what there is. It says whether anything may still happen by itself.
func (f *flow) step() (goesOn bool) {
	f.t.Helper()
	ctx := context.Background()
	f.passes++
	next, err := f.d.Work(ctx, f.now)
	must(f.t, err)
	f.check()
	ids := f.sink.uploadSome(f.r.IntN(3))
	for _, id := range ids {
		must(f.t, f.d.Placed(ctx, id))
	}
	if next.After(f.now) {
		f.now = next
	}
	left := f.sink.unplaced()
	if m := f.sink.manifest.ID; m != f.told && left == 0 {
		f.told = m
		must(f.t, f.d.ManifestPlaced(ctx, m))
	}
	return len(ids) > 0 || left > 0 || !next.IsZero()
}

// unplaced is the number of groups that are not placed.
func (s *fakeSink) unplaced() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.groups) - len(s.placed)
}

// run goes on until all is synced, with restarts: one at the beginning, and others by chance.
func (f *flow) run(restart bool) State {
	f.t.Helper()
	ctx := context.Background()
	for range 600 {
		goesOn := f.step()
		s, err := f.d.State(ctx)
		must(f.t, err)
		if s.Synced {
			f.t.Logf("%d passes, %d restarts, %d bytes waited at most of %d, %d blocks found no room", f.passes, f.restarts, f.most,
				f.cfg.MostPending, f.store.refusals)
			return s
		}
		if !goesOn {
			// Everything is placed and told: that is worked off now.
			next, err := f.d.Work(ctx, f.now)
			must(f.t, err)
			if s, err = f.d.State(ctx); err == nil && !s.Synced && next.IsZero() && f.sink.unplaced() == 0 && f.sink.manifest.ID == s.Placed.ID {
				f.t.Fatalf("nothing is due, and not all is placed: %+v, %+v, %v", s, f.d.Stats(), f.d.Full())
			}
		}
		if restart && (f.restarts == 0 && f.passes > 2 || f.r.IntN(10) == 0) {
			f.restarts++
			before := f.d.tally()
			f.open()
			if now := f.d.tally(); now != before {
				f.t.Fatalf("after a restart there is %+v, before %+v", now, before)
			}
		}
	}
	s, err := f.d.State(ctx)
	f.t.Fatalf("it is never synced: %+v, %+v, %v, %v", s, f.d.Stats(), f.d.Full(), err)
	return State{}
}

// fill writes random files of so many bytes together.
func (f *flow) fill(bytes int64, most int) {
	for n, i := int64(0), 0; n < bytes; i++ {
		if i%100 == 0 {
			f.tree.mkdir(fmt.Sprint(i / 100))
		}
		size := 1 + f.r.IntN(most)
		f.largest = max(f.largest, int64(size))
		f.tree.write(fmt.Sprintf("%d/%d", i/100, i), f.tree.randomBytes(size))
		n += int64(size)
	}
}

func TestManyFilesLargerThanTheStore(t *testing.T) {
	for _, restart := range []bool{false, true} {
		f := bounded(t, 16<<20)
		f.fill(48<<20, 200<<10)
		f.d.Hurry()
		f.box.check(f.run(restart))
		if f.restarts == 0 && restart {
			t.Error("it was never restarted")
		}
	}
}

func TestAFileLargerThanTheStore(t *testing.T) {
	f := bounded(t, 16<<20)
	f.tree.write("large", nil)
	n := f.tree.find("large")
	n.size, f.largest = 80<<20, 80<<20
	f.tree.tell(Change{Kind: Closed, Path: "large", File: n.id, Version: n.stat().Version})
	f.fill(8<<20, 100<<10)
	s := f.run(true)
	file, err := f.d.File(context.Background(), n.id)
	if err != nil || file.Placed != file.Blocks || file.Version.Bytes != n.size {
		t.Errorf("the file is %+v, %v", file, err)
	}
	f.checkManifest(s)
	f.checkRecords()
}

// TestATinyBound has every group wait for the one before.
func TestATinyBound(t *testing.T) {
	f := bounded(t, 16<<20)
	f.cfg.MostPending = 1
	f.open()
	f.fill(12<<20, 1<<20)
	f.box.check(f.run(true))
}

// TestAFullStore has less room than may wait.
func TestAFullStore(t *testing.T) {
	f := bounded(t, 16<<20)
	f.cfg.MostPending = 64 << 20
	f.open()
	f.fill(48<<20, 200<<10)
	f.box.check(f.run(true))
	if f.store.refusals == 0 {
		t.Error("the store never was full")
	}
}

// TestNoRoomAtAll: files say why they wait, and go on when there is room.
func TestNoRoomAtAll(t *testing.T) {
	f := bounded(t, 16<<20)
	ctx := context.Background()
	f.tree.write("a", f.tree.randomBytes(100<<10))
	f.box.check(f.run(false))
	f.store.capacity = 1
	f.tree.write("b", f.tree.randomBytes(100<<10))
	f.tree.symlink("l", "a")
	f.tree.chmod("a", 0o600)
	for range 3 {
		next, err := f.d.Work(ctx, f.now)
		must(t, err)
		if !next.After(f.now) || next.After(f.now.Add(fullRetry)) {
			t.Fatalf("it goes on %v later", next.Sub(f.now))
		}
		f.now = next
	}
	file, err := f.d.File(ctx, f.tree.find("b").id)
	if err != nil || !errors.Is(file.Err, ErrFull) || !errors.Is(f.d.Full(), ErrFull) {
		t.Errorf("the file is %+v, %v, the store %v", file, err, f.d.Full())
	}
	if s, err := f.d.State(ctx); err != nil || s.Synced {
		t.Errorf("it is %+v, %v", s, err)
	}
	f.store.capacity = 16 << 20
	f.box.check(f.run(false))
	if err := f.d.Full(); err != nil {
		t.Errorf("there is room, and still: %v", err)
	}
}

// TestRegroupingWithinTheBound rewrites most of a tree: what groups are left of is moved to others, as far as these may
// wait.
func TestRegroupingWithinTheBound(t *testing.T) {
	f := bounded(t, 16<<20)
	f.fill(32<<20, 100<<10)
	f.run(false)
	f.store.refusals = 0
	for range 2 {
		walk(f.tree.root, "", func(p string, n *node) {
			if n.kind == Regular && f.r.IntN(3) > 0 {
				f.tree.write(p, f.tree.randomBytes(1+f.r.IntN(100<<10)))
			}
		})
		f.box.check(f.run(true))
	}
}

// TestDeletedWhileItWaits: what nobody has any more makes room for what waits, though nothing is placed.
func TestDeletedWhileItWaits(t *testing.T) {
	f := bounded(t, 16<<20)
	f.fill(32<<20, 100<<10)
	ctx := context.Background()
	for range 10 {
		next, err := f.d.Work(ctx, f.now)
		must(t, err)
		f.check()
		f.now = next.Add(defaultQuiet)
	}
	s, err := f.d.State(ctx)
	if err != nil || s.Busy == 0 || s.Unplaced == 0 || s.Latest.ID != 0 {
		t.Fatalf("it is %+v, %v", s, err)
	}
	var dirs []string
	for name := range f.tree.root.entries {
		dirs = append(dirs, name)
	}
	for _, name := range dirs {
		f.tree.remove(name)
	}
	f.tree.write("last", f.tree.randomBytes(1000))
	f.settle()
	file, err := f.d.File(ctx, f.tree.find("last").id)
	if err != nil || file.Closed || len(file.Groups) != 1 {
		t.Errorf("the file is %+v, %v", file, err)
	}
	f.box.check(f.run(false))
}
