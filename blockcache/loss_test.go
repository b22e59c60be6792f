package blockcache

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// newFaultBox opens a store over files that fail on demand.
func newFaultBox(t *testing.T, cfg StoreConfig) (*Store, *faultFiles) {
	t.Helper()
	dir := scratch(t)
	fs, err := newFaultFiles(dir)
	must(t, err)
	db := openDB(t, dir)
	t.Cleanup(func() { must(t, db.Close()) })
	cfg.DB, cfg.files = db, fs
	s, err := OpenStore(cfg)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() }) // some tests leave a store that cannot be synced any more
	return s, fs
}

// TestPinDuringEviction: a body that is pinned after the eviction looked for pins, and before it
// began, stays.
func TestPinDuringEviction(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 1, 5<<20, 1<<20)
	mustPut(t, b, f.leaves...)
	must(t, b.Pin(t.Context(), randBlock(t, 2, 9).Cid(), []cid.Cid{randBlock(t, 3, 9).Cid()}))
	k := b.bodyOf(f.root)
	k.mu.Lock() // leave waits for this
	done := make(chan error)
	go func() {
		_, err := b.evictBody(context.Background(), k)
		done <- err
	}()
	waitFor(t, func() bool { _, ok := k.pins.get(b.pinsNow()); return ok })
	must(t, b.Pin(t.Context(), f.root, []cid.Cid{f.leaves[4].Block.Cid()}))
	k.mu.Unlock()
	must(t, <-done)
	mustGet(t, b, f.leaves[4].Block)
	mustBody(t, b.Store, f)
	checkFigures(t, b.Store)
}

// TestReplacedBodyWasDurable: what a body had before a better one took its place stays durable.
func TestReplacedBodyWasDurable(t *testing.T) {
	t.Parallel()
	s, fs := newFaultBox(t, StoreConfig{})
	f := makeFile(t, 1, 5<<20, 1<<20)
	mustPut(t, s, f.leaves[:2]...)
	must(t, s.Sync(t.Context()))
	w, err := s.CreateBody(t.Context(), uint64(len(f.bytes)))
	must(t, err)
	must(t, w.Put(t.Context(), 0, f.blocks()))
	must(t, w.Commit(t.Context(), f.root))
	mustBody(t, s, f)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for name, st := range fs.files {
		if !st.named || len(st.old) > 0 {
			t.Errorf("%s took the place of a durable body and is not durable itself", name)
		}
	}
}

// TestFailedSync: bytes that the disk did not take are not called durable by a later Sync, and a pack
// whose blocks were moved to such a file stays.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	s, fs := newFaultBox(t, StoreConfig{})
	e := Entry{Block: randBlock(t, 1, 1000)}
	mustPut(t, s, e)
	must(t, s.Sync(t.Context()))
	ps, err := s.lookup(Want{CID: e.Block.Cid()})
	must(t, err)
	old := s.packs[ps[0].id]
	fs.setSick(syscall.EIO)
	if _, err := s.sweep(t.Context(), old, keepAll); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sweep: %v", err)
	}
	fs.setSick(nil)
	if err := s.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync after a failed one: %v", err)
	}
	if _, err := s.sweep(t.Context(), old, keepAll); err == nil || s.packs[old.id] == nil {
		t.Errorf("the durable copy is gone: %v", err)
	}
	mustGet(t, s, e.Block)
	if _, err := s.GC(t.Context()); err != nil && !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	must(t, s.Delete(t.Context(), []cid.Cid{e.Block.Cid()}))
	for _, p := range s.packs { // without the file there is nothing left to be lost
		if p != old {
			_, err := s.sweep(t.Context(), p, keepAll)
			must(t, err)
		}
	}
	must(t, s.Sync(t.Context()))
	mustPut(t, s, e)
	must(t, s.Sync(t.Context()))
	checkFigures(t, s)
}

func (f *faultFiles) setSick(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sick = err
}

// TestSweepDamagedHeader: a block whose record lost its header lives on in the index.
func TestSweepDamagedHeader(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	var es []Entry
	for i := range uint64(20) {
		es = append(es, Entry{Block: randBlock(t, i, 1000)})
	}
	mustPut(t, b, es...)
	must(t, b.Pin(t.Context(), es[3].Block.Cid(), blockCIDs(es[3:5])))
	for _, e := range es[2:6] {
		p := b.placeOf(e.Block)
		b.flip(placeFile(p), int64(p.off)-int64(headerBytes))
	}
	_, err := b.GC(t.Context())
	must(t, err)
	mustGet(t, b, es[3].Block)
	mustGet(t, b, es[4].Block)
	if st := b.Stats(); st.Blocks != 2 || st.Corruptions != 0 {
		t.Errorf("stats: %+v", st)
	}
	checkFigures(t, b.Store)
}

// TestUnreadablePages: a pack with pages that the disk cannot read hinders neither opening nor
// eviction, and costs only what lies on them.
func TestUnreadablePages(t *testing.T) {
	t.Parallel()
	s, fs := newFaultBox(t, StoreConfig{QuotaBytes: 8 << 20, PackBytes: 2 << 20})
	var es []Entry
	for i := range uint64(100) {
		es = append(es, Entry{Block: randBlock(t, i, 10_000)})
	}
	mustPut(t, s, es...)
	must(t, s.Pin(t.Context(), es[0].Block.Cid(), blockCIDs(es[:50])))
	ps, err := s.lookup(Want{CID: es[20].Block.Cid()})
	must(t, err)
	fs.setBad(packName(ps[0].id), span{ps[0].off - 10, ps[0].off + 10})
	crash := StoreConfig{DB: s.cfg.DB, files: fs, QuotaBytes: 8 << 20, PackBytes: 2 << 20, UncleanStop: true}
	must(t, s.Sync(t.Context()))
	s, err = OpenStore(crash)
	must(t, err)
	must(t, s.verifyAll(t.Context()))
	for i := range uint64(2000) {
		mustPut(t, s, Entry{Block: randBlock(t, 1000+i, 10_000)})
	}
	var lost []int
	for i, e := range es[:50] {
		if !has(t, s, e.Block) {
			lost = append(lost, i)
			continue
		}
		mustGet(t, s, e.Block)
	}
	if !slices.Equal(lost, []int{20}) {
		t.Errorf("blocks %d are lost", lost)
	}
	checkFigures(t, s)
	must(t, s.Close())
}

func (f *faultFiles) setBad(name string, x span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad = map[string]span{name: x}
}

// TestEvictionGoesOn: on a full disk a pack with a pinned block cannot be rewritten; another file goes.
func TestEvictionGoesOn(t *testing.T) {
	t.Parallel()
	s, fs := newFaultBox(t, StoreConfig{})
	var es []Entry
	for i := range uint64(20) {
		es = append(es, Entry{Block: randBlock(t, i, 10_000)})
	}
	mustPut(t, s, es...)
	must(t, s.Pin(t.Context(), es[0].Block.Cid(), blockCIDs(es[:1])))
	mustPut(t, s, makeFile(t, 1, 5<<20, 1<<20).leaves...)
	fs.setRoom(0)
	freed, err := s.evictOne(t.Context())
	must(t, err)
	if freed != 5<<20 {
		t.Errorf("evicted %d bytes", freed)
	}
	mustGet(t, s, es[0].Block)
	checkFigures(t, s)
}

// TestPutAfterTornWrite: after an unclean stop the bytes of a block may be torn though the index has
// it. Who puts the block again must not be told that it is here.
func TestPutAfterTornWrite(t *testing.T) {
	t.Parallel()
	f, small := makeFile(t, 1, 5<<20, 1<<20), Entry{Block: randBlock(t, 2, 1000)}
	all := slices.Concat(f.leaves, []Entry{small}) // one slice of their own: the tests run side by side
	for name, again := range map[string]func(b *box) error{
		"put": func(b *box) error { return b.Put(t.Context(), all) },
		"body": func(b *box) error {
			return errors.Join(writeBody(b.Store, f, true), b.Put(t.Context(), []Entry{small}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, StoreConfig{})
			mustPut(t, b, all...)
			must(t, b.Sync(t.Context()))
			for _, e := range []Entry{f.leaves[2], small} {
				p := b.placeOf(e.Block)
				b.flip(placeFile(p), int64(p.off)+77)
			}
			b.crash()
			must(t, again(b))
			must(t, b.verifyAll(t.Context()))
			mustGet(t, b, small.Block)
			mustBody(t, b.Store, f)
			checkFigures(t, b.Store)
		})
	}
}

// TestMissingPack: a pack that a stranger removed does not stand in the way of eviction.
func TestMissingPack(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{OpenFiles: 1})
	mustPut(t, b, Entry{Block: randBlock(t, 1, 1000)})
	p := b.placeOf(randBlock(t, 1, 1000))
	must(t, b.Pin(t.Context(), randBlock(t, 2, 9).Cid(), nil))
	mustPut(t, b, makeFile(t, 1, 5<<20, 1<<20).leaves...) // its file takes the only descriptor
	must(t, osFiles{filepath.Join(b.dir, "blocks")}.Remove(packName(p.id)))
	freed, err := b.evictOne(t.Context())
	must(t, err)
	if freed == 0 || len(b.packs) != 0 {
		t.Errorf("%d bytes won, %d packs left", freed, len(b.packs))
	}
	must(t, b.rewriteAny(rand.New(rand.NewPCG(1, 1))))
	checkFigures(t, b.Store)
}

// TestRoomForIndex: the database is not written to when the disk has no room for its logs, except to
// remove things.
func TestRoomForIndex(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f, small := makeFile(t, 1, 5<<20, 1<<20), Entry{Block: randBlock(t, 2, 1000)}
	mustPut(t, b, f.leaves...)
	room := b.ix.room
	b.ix.room = func() (uint64, error) { return b.ix.floor - 1, nil }
	err := b.Pin(t.Context(), f.root, blockCIDs(f.leaves))
	if !errors.Is(err, ErrFull) {
		t.Errorf("pin: %v", err)
	}
	if err := b.Put(t.Context(), []Entry{small}); !errors.Is(err, ErrFull) {
		t.Errorf("put: %v", err)
	}
	if err := writeBody(b.Store, makeFile(t, 3, 5<<20, 1<<20), true); !errors.Is(err, ErrFull) {
		t.Errorf("write body: %v", err)
	}
	if has(t, b.Store, f.leaves[0].Block) {
		t.Error("nothing was evicted to make room")
	}
	checkFigures(t, b.Store)
	b.ix.room = room
	mustPut(t, b, small)
	mustGet(t, b, small.Block)
	b.ix.room = func() (uint64, error) { return hardFloor - 1, nil }
	if err := b.Delete(t.Context(), []cid.Cid{small.Block.Cid()}); !errors.Is(err, ErrFull) {
		t.Errorf("delete on a disk without a byte: %v", err)
	}
	b.ix.room = room
	mustGet(t, b, small.Block)
}

// TestPinsAreNotCountedAgain: more pins leave what is known of a pinned file, fewer do not.
func TestPinsAreNotCountedAgain(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f, other := makeFile(t, 1, 5<<20, 1<<20), randBlock(t, 2, 9).Cid()
	mustPut(t, b, f.leaves...)
	known := func() bool { _, ok := b.bodyOf(f.root).pins.get(b.pinsNow()); return ok }
	evict := func() int64 {
		n, err := b.evictOne(t.Context())
		must(t, err)
		return n
	}
	must(t, b.Pin(t.Context(), f.root, blockCIDs(f.leaves[:1])))
	if evict() != 0 || !known() {
		t.Error("a pinned body was evicted, or nothing is known of it")
	}
	must(t, b.Pin(t.Context(), other, []cid.Cid{other}))
	if !known() {
		t.Error("another pin made it forgotten")
	}
	must(t, b.Delete(t.Context(), blockCIDs(f.leaves[1:2])))
	if known() {
		t.Error("what a body lost still counts")
	}
	if evict() != 0 || !known() {
		t.Error("a pinned body was evicted, or nothing is known of it")
	}
	must(t, b.Unpin(t.Context(), f.root))
	if known() || evict() != 4<<20 {
		t.Error("it stays though unpinned")
	}
}

// TestTinyPrefetches: leaves of a byte are prefetched in no greater number than the bound allows for.
func TestTinyPrefetches(t *testing.T) {
	t.Parallel()
	o := newSlow(func(w Want) (blocks.Block, error) { return nil, ErrNotFound })
	c, err := New(Config{Origin: o, PrefetchBytes: 1 << 20})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	var ws []Want
	for i := range uint64(200) {
		ws = append(ws, Want{CID: randBlock(t, i, 10).Cid(), Place: Place{Bytes: 1}})
	}
	c.Prefetch(t.Context(), ws)
	if st := c.Stats(); st.Dropped != 200-1<<20/minGuess {
		t.Errorf("stats: %+v", st)
	}
}

// TestSweepLeavesDamageBehind: a block whose bytes are bad is not carried into another pack.
func TestSweepLeavesDamageBehind(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	good, bad := randBlock(t, 1, 1000), randBlock(t, 2, 1000)
	mustPut(t, b, Entry{Block: good}, Entry{Block: bad})
	p := b.placeOf(bad)
	b.flip(placeFile(p), int64(p.off)+77)
	_, err := b.sweep(t.Context(), b.packs[p.id], keepAll)
	must(t, err)
	if st := b.Stats(); has(t, b.Store, bad) || st.Corruptions != 1 || st.Blocks != 1 {
		t.Errorf("stats: %+v", st)
	}
	mustGet(t, b, good)
	checkFigures(t, b.Store)
}
