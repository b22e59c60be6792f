package dataset

import (
	"context"
	"testing"
)

// movedWhileOpened imports a file which move changes the name of at the moment at which it is opened by the one that was
// known before. The tree begins with what make has made.
func movedWhileOpened(t *testing.T, file string, make, move func(f *fakeTree)) *box {
	t.Helper()
	db := openDB(t, "")
	t.Cleanup(func() { must(t, db.Close()) })
	b := newBox(t, db)
	make(b.tree)
	b.check(b.sync())
	b.tree.opening = func(FileID) {
		b.tree.opening = nil
		move(b.tree)
	}
	b.tree.write(file, []byte("one"))
	return b
}

// moves are ways for a file to get another name while it is imported.
var moves = []struct {
	name, file string
	make, move func(f *fakeTree)
}{
	{"renamed", "tmp", nil, func(f *fakeTree) { f.rename("tmp", "f", false) }},
	{"renamed twice", "tmp", nil, func(f *fakeTree) { f.rename("tmp", "f", false); f.rename("f", "g", false) }},
	{"renamed over another", "tmp", func(f *fakeTree) { f.write("f", []byte("old")) }, func(f *fakeTree) { f.rename("tmp", "f", false) }},
	{"its directory renamed", "d/tmp", func(f *fakeTree) { f.mkdir("d") }, func(f *fakeTree) { f.rename("d", "e", false) }},
	{"its directory's renamed", "c/d/tmp", func(f *fakeTree) { f.mkdir("c"); f.mkdir("c/d") }, func(f *fakeTree) { f.rename("c", "e", false) }},
	{"swapped", "tmp", func(f *fakeTree) { f.write("f", []byte("old")) }, func(f *fakeTree) { f.rename("tmp", "f", true) }},
	{"its directory swapped", "d/tmp", func(f *fakeTree) { f.mkdir("d"); f.mkdir("e") }, func(f *fakeTree) { f.rename("d", "e", true) }},
	{"linked and removed", "tmp", nil, func(f *fakeTree) { f.add("f", f.find("tmp")); f.remove("tmp") }},
	{"linked, and its first name another's", "tmp", func(f *fakeTree) { f.write("old", []byte("old")) }, func(f *fakeTree) {
		f.add("f", f.find("tmp"))
		f.rename("old", "tmp", false)
	}},
	{"renamed to a temporary name and back", "tmp", nil, func(f *fakeTree) { f.rename("tmp", "f~", false); f.rename("f~", "f", false) }},
	{"removed", "tmp", nil, func(f *fakeTree) { f.remove("tmp") }},
}

// TestMovedWhileItIsImported: whatever name a file gets, it is in the next state that is synced.
func TestMovedWhileItIsImported(t *testing.T) {
	for _, m := range moves {
		t.Run(m.name, func(t *testing.T) {
			b := movedWhileOpened(t, m.file, func(f *fakeTree) {
				if m.make != nil {
					m.make(f)
				}
			}, m.move)
			b.check(b.sync())
		})
	}
}

// TestMovedWhileItIsImportedAndNobodySaysSo loses what is told of the move, as a kill right after it does: nothing counts
// as synced then before the tree is scanned.
func TestMovedWhileItIsImportedAndNobodySaysSo(t *testing.T) {
	for _, m := range moves {
		t.Run(m.name, func(t *testing.T) {
			var tell func(Change)
			b := movedWhileOpened(t, m.file, func(f *fakeTree) {
				if m.make != nil {
					m.make(f)
				}
			}, func(f *fakeTree) {
				tell, f.tell = f.tell, func(Change) {}
				m.move(f)
			})
			ctx := context.Background()
			_, err := b.d.Work(ctx, b.now)
			must(t, err)
			if s, err := b.d.State(ctx); err != nil || s.Synced {
				t.Errorf("it is %+v, %v", s, err)
			}
			b.tree.tell = tell
			b.open()
			must(t, b.d.Scan(ctx))
			b.check(b.sync())
		})
	}
}

// TestANameIsLostForGood: a file that is nowhere, and of which nobody tells, is not waited for.
func TestANameIsLostForGood(t *testing.T) {
	b := movedWhileOpened(t, "tmp", func(*fakeTree) {}, func(f *fakeTree) {
		tell := f.tell
		f.tell = func(Change) {}
		f.remove("tmp")
		f.tell = tell
	})
	b.check(b.sync())
}

// TestMetadataOfAFileThatMoves is changed right before it moves.
func TestMetadataOfAFileThatMoves(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.tree.mkdir("d")
	b.tree.write("d/f", []byte("one"))
	b.check(b.sync())
	b.tree.known = nil // the owner has only what it was told
	b.tree.opening = func(FileID) {
		b.tree.opening = nil
		b.tree.rename("d", "e", false)
	}
	b.tree.chmod("d/f", 0o600)
	b.check(b.sync())
}

// TestAnEntryWithoutARecord is what an earlier release may have left: a scan has the file imported.
func TestAnEntryWithoutARecord(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	ctx := context.Background()
	n := b.tree.lockedMake(Regular)
	n.busy = true
	b.tree.add("f", n)
	_, err := b.d.Work(ctx, b.now)
	must(t, err)
	must(t, b.d.commit(func(x *tx) error { return x.del(b.d.fileKey(keyClosed, n.id)) }))
	n.busy = false
	b.tree.note("f", n)
	must(t, b.d.Scan(ctx))
	b.check(b.sync())
}
