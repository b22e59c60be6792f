package blockcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

func has(t *testing.T, s *Store, b blocks.Block) bool {
	t.Helper()
	ok, err := s.Has(t.Context(), b.Cid())
	must(t, err)
	return ok
}

func TestQuotaEvictsLongestUnusedBody(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{QuotaBytes: 21 << 20})
	var files []fakeFile
	for i := range 4 {
		files = append(files, makeFile(t, uint64(i), 5<<20, 1<<20))
		mustPut(t, b, files[i].leaves...)
	}
	mustGet(t, b, files[0].leaves[0].Block) // used again
	fd, ok := b.Body(files[1].root)         // used again, and open
	if !ok {
		t.Fatal("no body")
	}
	defer fd.Close()
	more := makeFile(t, 9, 10<<20, 1<<20)
	mustPut(t, b, more.leaves...)
	mustBody(t, b.Store, more)
	for i, want := range []bool{true, true, false, false} {
		if have, _ := b.BodyState(files[i].root); (have > 0) != want {
			t.Errorf("file %d is here: %v", i, have > 0)
		}
		if has(t, b.Store, files[i].leaves[0].Block) != want {
			t.Errorf("a leaf of file %d is here: %v", i, !want)
		}
	}
	last := makeFile(t, 10, 20<<20, 1<<20)
	mustPut(t, b, last.leaves...)
	if _, ok := b.Body(files[1].root); ok {
		t.Error("file 1 is still here")
	}
	got, err := io.ReadAll(fd)
	if err != nil || !bytes.Equal(got, files[1].bytes) {
		t.Errorf("an open body changed when it was evicted: %v", err)
	}
	if st := b.Stats(); st.UsedBytes > st.QuotaBytes || st.Evictions != 5 {
		t.Errorf("stats: %+v", st)
	}
	checkFigures(t, b.Store)
}

func TestQuotaOfLooseBlocks(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{QuotaBytes: 16 << 20, PackBytes: 1 << 20})
	pinned, hot := randBlock(t, 1, 10<<10), randBlock(t, 2, 10<<10)
	mustPut(t, b, Entry{Block: pinned})
	must(t, b.Pin(t.Context(), pinned.Cid(), []cid.Cid{pinned.Cid()}))
	mustPut(t, b, Entry{Block: hot})
	cold := randBlock(t, 3, 10<<10)
	for i := range uint64(32 << 6) { // 40 MiB
		mustPut(t, b, Entry{Block: randBlock(t, 1000+i, 20<<10)})
		if i == 100 {
			mustPut(t, b, Entry{Block: cold})
		}
		mustGet(t, b, hot)
	}
	mustGet(t, b, pinned)
	mustGet(t, b, hot)
	if has(t, b.Store, cold) {
		t.Error("a block nobody read was kept")
	}
	if st := b.Stats(); st.UsedBytes > st.QuotaBytes || st.Evictions == 0 || st.PinnedBytes != 10<<10 {
		t.Errorf("stats: %+v", st)
	}
	checkFigures(t, b.Store)
	b.reopen()
	mustGet(t, b, pinned)
	mustGet(t, b, hot)
	checkFigures(t, b.Store)
}

func TestFullOfPins(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{QuotaBytes: 12 << 20})
	f := makeFile(t, 1, 8<<20, 1<<20)
	mustPut(t, b, f.leaves...)
	must(t, b.Pin(t.Context(), f.root, []cid.Cid{f.leaves[3].Block.Cid()}))
	g := makeFile(t, 2, 8<<20, 1<<20)
	err := b.Put(t.Context(), g.leaves)
	if !errors.Is(err, ErrFull) {
		t.Fatalf("put into a store full of pins: %v", err)
	}
	w, err := b.CreateBody(t.Context(), 8<<20)
	must(t, err)
	if err := w.Put(t.Context(), 0, g.blocks()); !errors.Is(err, ErrFull) {
		t.Errorf("write into a store full of pins: %v", err)
	}
	w.Abort()
	mustBody(t, b.Store, f)
	checkFigures(t, b.Store)
	must(t, b.Unpin(t.Context(), f.root))
	mustPut(t, b, g.leaves...)
	mustBody(t, b.Store, g)
	if err := b.Put(t.Context(), makeFile(t, 3, 13<<20, 1<<20).leaves[:0]); err != nil {
		t.Error(err)
	}
}

func TestDiskIsFull(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	fs, err := newFaultFiles(dir)
	must(t, err)
	db := openDB(t, dir)
	t.Cleanup(func() { must(t, db.Close()) })
	s, err := OpenStore(StoreConfig{DB: db, files: fs})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	f, g := makeFile(t, 1, 5<<20, 1<<20), makeFile(t, 2, 5<<20, 1<<20)
	small := randBlock(t, 3, 1000)
	mustPut(t, s, f.leaves...)
	fs.setRoom(100)
	if err := s.Put(t.Context(), []Entry{{Block: small}}); err != nil && !errors.Is(err, ErrFull) {
		t.Errorf("put on a full disk: %v", err)
	}
	checkFigures(t, s)
	fs.setRoom(-1)
	mustPut(t, s, f.leaves...)
	must(t, s.Pin(t.Context(), f.root, []cid.Cid{f.leaves[0].Block.Cid()}))
	fs.setRoom(1<<20 + 50)
	if err := s.Put(t.Context(), g.leaves); !errors.Is(err, ErrFull) {
		t.Errorf("put on a full disk: %v", err)
	}
	checkFigures(t, s)
	fs.setRoom(-1)
	mustBody(t, s, f)
	mustPut(t, s, g.leaves...)
	mustBody(t, s, g)
}

func (f *faultFiles) setRoom(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = n
}

func TestMinFree(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{MinFreeBytes: 1 << 60})
	if err := b.Put(t.Context(), []Entry{{Block: randBlock(t, 1, 10)}}); !errors.Is(err, ErrFull) {
		t.Errorf("put with too little free: %v", err)
	}
}

func TestRunEvictsAheadAndRewrites(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{QuotaBytes: 19 << 20, PackBytes: 2 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	var es []Entry
	for i := range uint64(100) {
		es = append(es, Entry{Block: randBlock(t, i, 20<<10)})
	}
	mustPut(t, b, es...)
	mustPut(t, b, makeFile(t, 1, 8<<20, 1<<20).leaves...)
	var gone []cid.Cid
	for _, e := range es[:60] {
		gone = append(gone, e.Block.Cid())
	}
	must(t, b.Delete(t.Context(), gone))
	waitFor(t, func() bool { return b.Stats().UsedBytes < 9<<20 })
	for _, e := range es[60:] {
		mustGet(t, b, e.Block)
	}
	for i := range uint64(2) {
		mustPut(t, b, makeFile(t, 10+i, 5<<20, 1<<20).leaves...)
	}
	waitFor(t, func() bool { return b.Stats().UsedBytes <= 19<<20*lowWater/100 })
	cancel()
	must(t, <-done)
	checkFigures(t, b.Store)
}

// waitFor waits for a condition that another goroutine brings about.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	guard := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-guard:
			t.Fatal("it never came to pass")
		}
	}
}

func TestGC(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f, g := makeFile(t, 1, 5<<20, 1<<20), makeFile(t, 2, 5<<20, 1<<20)
	a, c := randBlock(t, 3, 1000), randBlock(t, 4, 1000)
	mustPut(t, b, append(append([]Entry{{Block: a}, {Block: c}}, f.leaves...), g.leaves...)...)
	must(t, b.Pin(t.Context(), f.root, []cid.Cid{f.leaves[0].Block.Cid(), a.Cid()}))
	w, err := b.CreateBody(t.Context(), 5<<20)
	must(t, err)
	h := makeFile(t, 5, 5<<20, 1<<20)
	must(t, w.Put(t.Context(), 0, h.blocks()))
	r, err := b.GC(t.Context())
	must(t, err)
	if r.Blocks != 6 || r.Bytes < 5<<20 {
		t.Errorf("won %+v", r)
	}
	mustBody(t, b.Store, f)
	mustGet(t, b, a)
	if has(t, b.Store, c) || has(t, b.Store, g.leaves[0].Block) {
		t.Error("garbage is left")
	}
	must(t, w.Commit(t.Context(), h.root))
	mustBody(t, b.Store, h)
	checkFigures(t, b.Store)
	b.crash()
	if _, ok := b.Body(f.root); ok {
		t.Error("a body was given out unverified")
	}
	must(t, b.verifyAll(t.Context()))
	mustBody(t, b.Store, f)
}
