package dataset

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

var errKilled = errors.New("killed")

// snapshot copies what is in the database.
func snapshot(t testing.TB, db *badger.DB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	must(t, db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			v, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			all[string(it.Item().Key())] = v
		}
		return nil
	}))
	return all
}

// restore makes a database hold a snapshot and nothing else.
func restore(t testing.TB, db *badger.DB, all map[string][]byte) {
	t.Helper()
	must(t, db.DropAll())
	w := db.NewWriteBatch()
	for k, v := range all {
		must(t, w.Set([]byte(k), v))
	}
	must(t, w.Flush())
}

// life is what happens to a dataset between two stops.
type life struct {
	b       *box
	r       *rand.Rand
	commits int // left until the stop
	power   bool
	synced  map[string][]byte
}

// begin has the dataset stop before one of its next commits, as kill -9 would have it. With a cut of the power what
// was not flushed is lost too.
func (l *life) begin() {
	l.commits = 1 + l.r.IntN(400)
	l.power = l.r.IntN(2) == 0
	l.b.d.beforeCommit = func() error {
		if l.commits--; l.commits <= 0 {
			return errKilled
		}
		return nil
	}
}

// end opens the dataset again, maybe being stopped again on the way.
func (l *life) end(t *testing.T) {
	t.Helper()
	if l.power {
		restore(t, l.b.cfg.DB, l.synced)
	}
	l.b.open()
	// What was closed is told again if its record differs, as the tree's owner does at its start, before the scan.
	walk(l.b.tree.root, "", func(p string, n *node) {
		if n.kind != Regular || n.untold {
			return
		}
		l.b.tree.note(p, n)
		v, known, err := l.b.d.Version(context.Background(), n.id)
		must(t, err)
		if !known || v != n.stat().Version {
			l.b.tree.tell(Change{Kind: Closed, Path: p, File: n.id, Version: n.stat().Version})
		}
	})
	must(t, l.b.d.Scan(context.Background()))
}

func TestKilledAnywhere(t *testing.T) {
	t.Run("unbounded", func(t *testing.T) { killAnywhere(t, lives, 0, 0) })
	t.Run("bounded", func(t *testing.T) { killAnywhere(t, boundedLives, 8<<20, 64<<20) })
}

// killAnywhere stops a dataset again and again whose store has room for capacity bytes, of which pending may wait.
func killAnywhere(t *testing.T, lives int, pending, capacity int64) {
	r := seeded(t)
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.cfg.MostPending, b.store.capacity = pending, capacity
	ctx := context.Background()
	l := &life{b: b, r: r, synced: snapshot(t, db)}
	b.cfg.Flush = func(context.Context) error {
		l.synced = snapshot(t, db)
		return nil
	}
	b.open()
	killed := 0
	ok := func(err error) bool {
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		if err != nil {
			killed++
		}
		return err == nil
	}
	for range lives {
		l.begin()
		alive := true
		b.tree.tell = func(c Change) { alive = alive && ok(b.d.Told(ctx, c)) }
		for i := 0; i < 12 && alive; i++ {
			for range r.IntN(6) {
				edit(r, b.tree)
			}
			if !alive {
				break
			}
			_, err := b.d.Work(ctx, b.now)
			if alive = ok(err); alive && r.IntN(2) == 0 {
				b.now = b.now.Add(defaultQuiet)
				_, err = b.d.Work(ctx, b.now)
				alive = ok(err)
			}
			if alive {
				alive = l.upload(t, ok)
			}
		}
		b.tree.tell = func(c Change) { must(t, b.d.Told(ctx, c)) }
		l.end(t)
		for id := range b.sink.placed { // what the uploader knows to be placed it tells at its start
			must(t, b.d.Placed(ctx, id))
		}
		if id := b.sink.final.ID; id != 0 {
			must(t, b.d.ManifestPlaced(ctx, id))
		}
		if r.IntN(3) == 0 {
			b.check(b.sync())
		}
	}
	b.check(b.sync())
	t.Logf("killed %d times", killed)
	if killed == 0 {
		t.Error("it was never killed")
	}
}

// upload places what there is and tells it.
func (l *life) upload(t *testing.T, ok func(error) bool) bool {
	t.Helper()
	b, ctx := l.b, context.Background()
	for _, id := range b.sink.upload() {
		if !ok(b.d.Placed(ctx, id)) {
			return false
		}
	}
	if id := b.sink.manifest.ID; id != 0 && len(b.sink.placed) == len(b.sink.groups) {
		b.sink.final = b.sink.manifest
		return ok(b.d.ManifestPlaced(ctx, id))
	}
	return true
}

func TestRecordsAreReadAsWritten(t *testing.T) {
	f := fileRecord{version: Version{1, -2, 3}, mode: 0o644, modTime: -5, root: 6, owner: 7, blocks: 8}
	got, err := decodeFile(f.encode())
	must(t, err)
	if got != f {
		t.Errorf("%+v became %+v", f, got)
	}
	c := Change{Kind: Renamed, Path: "a", To: "b/c", Version: Version{1, 2, 3}, number: 9}
	if got, err := decodeChange(c.encode()); err != nil || got != c {
		t.Errorf("%+v became %+v, %v", c, got, err)
	}
	for _, raw := range [][]byte{f.encode(), c.encode(), groupHead{blocks: 300}.encode(), blockRecord{refs: 400}.encode()} {
		for n := range raw {
			cut := bytes.Clone(raw[:n])
			if _, err := decodeFile(cut); err == nil && n < len(f.encode()) && bytes.Equal(raw, f.encode()) {
				t.Errorf("%d bytes of a file's record were read", n)
			}
		}
	}
	if _, err := decodeChange(nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("nothing was read as a change: %v", err)
	}
}
