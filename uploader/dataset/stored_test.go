package dataset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

// randomBytes has no block twice.
func (f *fakeTree) randomBytes(n int) []byte {
	data := make([]byte, n)
	f.tick++
	for i := 0; i < n; i += 512 {
		copy(data[i:], fmt.Sprintf("%d-%d", f.tick, i))
	}
	return data
}

// TestHalfRewrittenAgainAndAgain keeps what is stored within twice what is live, as live data and its share of parity,
// at each synced state; and within three times on the way, as the new is placed before the old is released.
func TestHalfRewrittenAgainAndAgain(t *testing.T) {
	r := seeded(t)
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	const files = 400
	name := func(i int) string { return fmt.Sprintf("d%d/f%d", i%10, i) }
	size := func() int {
		if r.IntN(20) == 0 {
			return r.IntN(2 << 20)
		}
		return r.IntN(64 << 10)
	}
	for i := range 10 {
		b.tree.mkdir(fmt.Sprintf("d%d", i))
	}
	for i := range files {
		b.tree.write(name(i), b.tree.randomBytes(size()))
	}
	b.sync()
	worst := 0.0
	for round := range rewrites {
		from := r.IntN(files)
		for i := range files {
			random := round%2 == 0 && r.IntN(2) == 0
			block := round%2 == 1 && (i+files-from)%files < files/2
			switch {
			case !random && !block:
			case round%5 == 4 && b.tree.find(name(i)) != nil:
				b.tree.remove(name(i))
			default:
				b.tree.write(name(i), b.tree.randomBytes(size()))
			}
		}
		s := b.sync()
		live := float64(b.d.Stats().LiveBytes) * 6 / 4
		stored := float64(b.sink.stored())
		if got := b.d.Stats().StoredBytes; got != int64(stored) {
			t.Fatalf("%d bytes are counted as stored, the sink has %.0f", got, stored)
		}
		worst = max(worst, stored/live)
		if round%5 == 4 {
			b.check(s)
		}
	}
	t.Logf("at most %.2f times what is live", worst)
	if worst > 2 {
		t.Errorf("%.2f times what is live is stored", worst)
	}
}

// TestManySmallChanges does not leave a group for each.
func TestManySmallChanges(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	for i := range smallChanges {
		b.tree.write(fmt.Sprint(i), b.tree.randomBytes(3000))
		b.sync()
	}
	b.check(b.sync())
	st := b.d.Stats()
	live := st.LiveBytes * 6 / 4
	t.Logf("%d groups, %.2f times what is live", st.Groups, float64(st.StoredBytes)/float64(live))
	if st.Groups > 2*smallClasses*smallMost {
		t.Errorf("%d changes left %d groups", smallChanges, st.Groups)
	}
	if st.StoredBytes > 2*live {
		t.Errorf("%d bytes are stored of %d live", st.StoredBytes, live)
	}
}

// TestASmallChangePlacesOnlyWhatIsNew: groups stay what they are.
func TestASmallChangePlacesOnlyWhatIsNew(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	for i := range 200 {
		b.tree.write(fmt.Sprint(i), b.tree.randomBytes(50000))
	}
	b.sync()
	before := map[GroupID]bool{}
	for id := range b.sink.groups {
		before[id] = true
	}
	b.tree.write("100", b.tree.randomBytes(50000))
	b.check(b.sync())
	var fresh int64
	for id, g := range b.sink.groups {
		if before[id] {
			continue
		}
		for _, c := range g.Columns {
			fresh += c.Shards.Bytes()
		}
	}
	if fresh == 0 || fresh > 400<<10 {
		t.Errorf("%d bytes were placed for a file of 50,000", fresh)
	}
	// What comes back is where it was.
	data := b.tree.find("7").data
	told := b.sink.told
	b.tree.remove("7")
	b.tree.write("7 again", data)
	b.sync()
	b.check(b.sync())
	if n := b.sink.told - told; n > 4 {
		t.Errorf("%d groups were told of for content that was there", n)
	}
}

// TestVerySmallFiles fill groups with blocks, not with bytes: those are not put together again and again.
func TestVerySmallFiles(t *testing.T) {
	var pieces []uint64
	for n := range uint64(70) {
		if _, small := (groupHead{bytes: 1 << 20, stripesKeys: n}).smallClass(); small {
			pieces = append(pieces, n)
		}
	}
	if len(pieces) == 0 || pieces[len(pieces)-1] > 20 {
		t.Errorf("groups of so many pieces are small: %v", pieces)
	}
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	for i := range 3000 {
		b.tree.write(fmt.Sprint(i), fmt.Append(nil, i))
	}
	b.sync()
	told := b.sink.told
	for range 3 {
		b.sync()
	}
	b.check(b.sync())
	if b.sink.told != told {
		t.Errorf("%d groups were made of what is the same", b.sink.told-told)
	}
}

func TestDeletedBeforeItIsPlaced(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.tree.write("a", b.tree.randomBytes(100000))
	b.settle()
	if len(b.sink.groups) == 0 {
		t.Fatal("there is no group")
	}
	unplaced := b.sink.manifest
	b.tree.remove("a")
	b.settle()
	b.settle()
	for _, g := range b.sink.groups {
		for _, c := range g.Columns {
			if c.Shards.Bytes() > 50000 {
				t.Error("what nobody has any more is still to be uploaded")
			}
		}
	}
	if b.sink.manifest == unplaced {
		t.Error("the manifest of what is gone was not superseded")
	}
	b.check(b.sync())
}

func TestChangesWhileImporting(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	reads := 0
	b.tree.read = func(n *node) {
		if reads++; reads == 1 {
			b.tree.mu.Lock()
			n.data, n.mtime, n.ctime = []byte("later"), n.mtime+1, n.ctime+1
			b.tree.mu.Unlock()
		}
	}
	b.tree.write("a", []byte("early"))
	b.check(b.sync())
	if reads < 2 {
		t.Errorf("read %d times", reads)
	}
	b.tree.read = func(*node) {
		b.tree.read = nil
		b.tree.remove("b") // deleted while it is imported
	}
	b.tree.write("b", b.tree.randomBytes(1000))
	b.check(b.sync())

	b.tree.write("c", []byte("first"))
	b.sync()
	b.tree.find("c").busy = true
	b.tree.write("c", []byte("second"))
	next, err := b.d.Work(context.Background(), b.now)
	must(t, err)
	next, err = b.d.Work(context.Background(), next)
	must(t, err)
	f, err := b.d.File(context.Background(), b.tree.find("c").id)
	if err != nil || next.IsZero() || !f.Closed || f.Version.Bytes != 5 {
		t.Errorf("a busy file is %+v, %v; next work at %v", f, err, next)
	}
	b.tree.find("c").busy = false
	b.tree.write("c", []byte("2"))
	b.check(b.sync())
}

func TestNothingIsImportedAgain(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.tree.mkdir("d")
	b.tree.write("d/a", b.tree.randomBytes(20000))
	s := b.sync()
	reads := 0
	b.tree.read = func(*node) { reads++ }
	b.open()
	must(t, b.d.Scan(context.Background()))
	b.tree.tell(Change{Kind: Closed, Path: "d/a", File: b.tree.find("d/a").id, Version: b.tree.find("d/a").stat().Version})
	b.tree.rename("d", "e", false)
	b.tree.rename("e/a", "e/b", false)
	b.tree.chmod("e/b", 0o755)
	after := b.sync()
	b.check(after)
	if reads > 0 {
		t.Errorf("read %d times what was known", reads)
	}
	if after.Root == s.Root {
		t.Error("the root is the same")
	}
}

func TestFileAndDirectory(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	ctx := context.Background()
	b.tree.mkdir("d")
	b.tree.write("d/a", b.tree.randomBytes(5<<20))
	id := b.tree.find("d/a").id
	b.settle()
	f, err := b.d.File(ctx, id)
	must(t, err)
	if f.Blocks != 6 || f.Placed != 0 || len(f.Groups) == 0 || !f.CID.Defined() {
		t.Errorf("imported: %+v", f)
	}
	b.sync()
	if f, err = b.d.File(ctx, id); err != nil || f.Placed != f.Blocks {
		t.Errorf("placed: %+v, %v", f, err)
	}
	if _, err := b.d.File(ctx, FileID{1}); !errors.Is(err, ErrGone) {
		t.Errorf("a file that never was: %v", err)
	}
	c, err := b.d.Directory(ctx, "d")
	must(t, err)
	b.tree.write("d/b", []byte("x"))
	b.tree.chmod("d", 0o711)
	later, err := b.d.Directory(ctx, "d")
	if err != nil || later == c {
		t.Errorf("the directory is %s as before, %v", later, err)
	}
	for _, p := range []string{"d/a", "x", "d/x/y"} {
		if _, err := b.d.Directory(ctx, p); !errors.Is(err, ErrGone) {
			t.Errorf("directory %q: %v", p, err)
		}
	}
}

// TestALargeFile: nothing of a file waits to be in groups while it is read, as the store does not have it for readers
// yet. Then it waits in parts that are put into groups one after the other.
func TestALargeFile(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.tree.write("large", nil)
	n := b.tree.find("large")
	n.size = 320 << 20
	reads, early := 0, int64(0)
	b.tree.read = func(*node) {
		st := b.d.Stats()
		reads++
		early += st.Groups + st.QueuedBytes
	}
	var mu sync.Mutex // parity is put by several at once
	most, puts := int64(0), 0
	b.store.putting = func() {
		mu.Lock()
		defer mu.Unlock()
		if q := b.d.Stats().QueuedBytes; q > 0 {
			puts++
			most = max(most, q)
		}
	}
	b.tree.tell(Change{Kind: Closed, Path: "large", File: n.id, Version: n.stat().Version})
	b.sync()
	if reads == 0 || early != 0 {
		t.Errorf("%d reads of the file, in which %d groups were there or bytes waited", reads, early)
	}
	if puts < 2 || most > 2*b.d.fullBytes()+pieceBlocks<<20 {
		t.Errorf("groups were begun %d times, and %d bytes waited at most", puts, most)
	}
	f, err := b.d.File(context.Background(), n.id)
	if err != nil || f.Version.Bytes != n.size || f.Placed != f.Blocks {
		t.Errorf("the file is %+v, %v", f, err)
	}
	n.size = 0 // truncated
	b.tree.write("large", nil)
	b.check(b.sync())
	if st := b.d.Stats(); st.LiveBytes > 1000 || st.StoredBytes > 10000 {
		t.Errorf("of a file that is gone is left: %+v", st)
	}
}

// brokenSink fails now and then.
type brokenSink struct {
	*fakeSink
	calls int
}

var errSink = errors.New("no answer")

func (s *brokenSink) fails() error {
	if s.calls++; s.calls%3 == 0 {
		return errSink
	}
	return nil
}

func (s *brokenSink) Group(ctx context.Context, g Group) error {
	return errors.Join(s.fails(), s.fakeSink.Group(ctx, g))
}

func (s *brokenSink) Released(ctx context.Context, id GroupID) error {
	return errors.Join(s.fails(), s.fakeSink.Released(ctx, id))
}

func (s *brokenSink) Part(ctx context.Context, id ManifestID, p erasure.Part) error {
	return errors.Join(s.fails(), s.fakeSink.Part(ctx, id, p))
}

func (s *brokenSink) PartsReleased(ctx context.Context, parts []cid.Cid) error {
	return errors.Join(s.fails(), s.fakeSink.PartsReleased(ctx, parts))
}

func TestASinkThatFails(t *testing.T) {
	r := seeded(t)
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	sink := &brokenSink{fakeSink: b.sink}
	b.cfg.Sink = sink
	b.open()
	for range 20 {
		for range 10 {
			edit(r, b.tree)
		}
		b.now = b.now.Add(defaultQuiet)
		if _, err := b.d.Work(context.Background(), b.now); err != nil && !errors.Is(err, errSink) {
			t.Fatal(err)
		}
		for _, id := range b.sink.upload() {
			must(t, b.d.Placed(context.Background(), id))
		}
	}
	b.d.cfg.Sink = b.sink
	b.check(b.sync())
}
