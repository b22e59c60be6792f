package dataset

import (
	"context"
	"testing"
)

// lose has a group not be placed any more.
func (b *box) lose(ids ...GroupID) {
	b.t.Helper()
	for _, id := range ids {
		must(b.t, b.d.Unplaced(context.Background(), id))
		b.sink.mu.Lock()
		delete(b.sink.placed, id)
		b.sink.lost[id] = true
		b.sink.mu.Unlock()
	}
	b.settle()
}

func (b *box) file(p string) File {
	b.t.Helper()
	f, err := b.d.File(context.Background(), b.tree.find(p).id)
	must(b.t, err)
	return f
}

func (b *box) state() State {
	b.t.Helper()
	s, err := b.d.State(context.Background())
	must(b.t, err)
	return s
}

// TestAGroupIsPlacedNoMore: its files are not placed, nothing counts as synced, and it is again when it is told again.
func TestAGroupIsPlacedNoMore(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	ctx := context.Background()
	b.tree.write("lost", b.tree.randomBytes(300<<10))
	b.sync()
	b.tree.write("kept", b.tree.randomBytes(300<<10))
	b.check(b.sync())
	lost := b.file("lost").Groups[0]
	before := b.d.Stats()
	b.lose(lost)
	for range 2 {
		if f := b.file("lost"); f.Placed == f.Blocks {
			t.Errorf("the file is %+v", f)
		}
		if f := b.file("kept"); f.Placed != f.Blocks {
			t.Errorf("the other file is %+v", f)
		}
		if s := b.state(); s.Synced || !s.Given || s.Lost != 1 || s.Unplaced != 0 {
			t.Errorf("it is %+v", s)
		}
		if now := b.d.Stats(); now != before {
			t.Errorf("%+v became %+v", before, now)
		}
		b.open() // it stays so
		b.settle()
	}
	var ids []GroupID
	must(t, b.d.LostGroups(ctx, func(id GroupID) bool {
		ids = append(ids, id)
		return true
	}))
	if len(ids) != 1 || ids[0] != lost {
		t.Errorf("lost are %v, not %v", ids, lost)
	}
	must(t, b.d.Placed(ctx, lost))
	b.sink.placed[lost] = true
	delete(b.sink.lost, lost)
	b.settle()
	b.check(b.sync())
	if f := b.file("lost"); f.Placed != f.Blocks {
		t.Errorf("the file is %+v", f)
	}
}

// TestNewFilesBesideALostGroup get to providers, and their manifest too.
func TestNewFilesBesideALostGroup(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	ctx := context.Background()
	b.tree.write("lost", b.tree.randomBytes(300<<10))
	b.sync()
	b.lose(b.file("lost").Groups...)
	b.tree.write("new", b.tree.randomBytes(300<<10))
	b.settle()
	must(t, b.d.ManifestPlaced(ctx, b.sink.manifest.ID)) // too early: a group that it names never was placed
	b.settle()
	if s := b.state(); s.Given || s.Placed.ID == s.Latest.ID {
		t.Errorf("it is %+v", s)
	}
	for _, id := range b.sink.upload() {
		must(t, b.d.Placed(ctx, id))
	}
	must(t, b.d.ManifestPlaced(ctx, b.sink.manifest.ID))
	b.settle()
	if s := b.state(); !s.Given || s.Synced || s.Lost != 1 {
		t.Errorf("it is %+v", s)
	}
	// Whoever writes the lost one again has it placed anew, even with the same content.
	n := b.tree.find("lost")
	b.tree.write("lost", n.data)
	s := b.sync()
	b.check(s)
	if f := b.file("lost"); f.Placed != f.Blocks {
		t.Errorf("the file is %+v", f)
	}
}

// TestWhatIsToldOfAGroupAgain takes no room in the journal, whatever is there already.
func TestWhatIsToldOfAGroupAgain(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	ctx := context.Background()
	b.tree.write("f", b.tree.randomBytes(300<<10))
	b.sync()
	id := b.file("f").Groups[0]
	entries := func() (n int) {
		must(t, b.d.scan(b.d.key(keyJournal), func([]byte, []byte) error {
			n++
			return nil
		}))
		return n
	}
	for _, step := range []struct {
		placed, reopen bool
		want           int
	}{{true, false, 0}, {false, false, 1}, {false, false, 1}, {false, true, 1}, {true, true, 2}, {true, true, 2}, {false, false, 3}} {
		tell := b.d.Unplaced
		if step.placed {
			tell = b.d.Placed
		}
		must(t, tell(ctx, id))
		if got := entries(); got != step.want {
			t.Errorf("%+v: the journal has %d entries", step, got)
		}
		if step.reopen {
			b.open()
		}
	}
	b.settle()
	if s := b.state(); s.Lost != 1 || entries() != 0 {
		t.Errorf("it is %+v, %d entries", s, entries())
	}
}
