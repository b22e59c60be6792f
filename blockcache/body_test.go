package blockcache

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/go-cid"
)

func TestBodyCompletesInAnyOrder(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 1, 5<<20+123, 256<<10)
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(f.leaves))
	for i, j := range order {
		if _, ok := b.Body(f.root); ok {
			t.Fatalf("body given out after %d of %d leaves", i, len(order))
		}
		mustPut(t, b, f.leaves[j])
		mustGet(t, b, f.leaves[j].Block)
	}
	mustBody(t, b.Store, f)
	if st := b.Stats(); st.Complete != 1 || st.Packs != 0 || st.UsedBytes != int64(len(f.bytes)) || st.Blocks != int64(len(f.leaves)) {
		t.Errorf("stats: %+v", st)
	}
	b.reopen()
	mustBody(t, b.Store, f)
	if st := b.Stats(); st.Complete != 1 || st.UsedBytes != int64(len(f.bytes)) || st.Blocks != int64(len(f.leaves)) {
		t.Errorf("stats after reopening: %+v", st)
	}
	many, err := b.GetMany(t.Context(), []Want{wantOf(f.leaves[3]), {CID: randBlock(t, 9, 9).Cid()}, wantOf(f.leaves[0])})
	must(t, err)
	if many[1] != nil || !bytes.Equal(many[0].RawData(), f.leaves[3].Block.RawData()) || !bytes.Equal(many[2].RawData(), f.leaves[0].Block.RawData()) {
		t.Error("GetMany gave other blocks")
	}
}

func TestBodyWriter(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 2, 6<<20+1, 1<<20)
	w, err := b.CreateBody(t.Context(), uint64(len(f.bytes)))
	must(t, err)
	must(t, w.Put(t.Context(), 3<<20, f.blocks()[3:]))
	must(t, w.Put(t.Context(), 0, f.blocks()[:3]))
	if ok, _ := b.Has(t.Context(), f.leaves[0].Block.Cid()); ok {
		t.Error("a leaf is readable before Commit")
	}
	if w.Put(t.Context(), 1<<20, f.blocks()[1:2]) == nil {
		t.Error("a leaf was put twice")
	}
	must(t, w.Commit(t.Context(), f.root))
	mustBody(t, b.Store, f)
	for _, l := range f.leaves {
		mustGet(t, b, l.Block)
	}
	if w.Commit(t.Context(), f.root) == nil {
		t.Error("second Commit succeeded")
	}
	w.Abort()
	mustBody(t, b.Store, f)
	b.reopen()
	mustBody(t, b.Store, f)
}

func TestBodyWriterRefusesHoles(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 2, 6<<20, 1<<20)
	w, err := b.CreateBody(t.Context(), uint64(len(f.bytes)))
	must(t, err)
	must(t, w.Put(t.Context(), 1<<20, f.blocks()[1:]))
	if w.Put(t.Context(), 6<<20, f.blocks()[:1]) == nil {
		t.Error("a leaf behind the end was taken")
	}
	if w.Commit(t.Context(), f.root) == nil {
		t.Error("a body with a hole was committed")
	}
	wantEmpty(t, b)
}

// wantEmpty expects nothing to be left in the store.
func wantEmpty(t *testing.T, b *box) {
	t.Helper()
	if st := b.Stats(); st.Bodies != 0 || st.UsedBytes != 0 || st.Blocks != 0 {
		t.Errorf("stats: %+v", st)
	}
	names, err := b.fs.List(bodyDir)
	if err != nil || len(names) != 0 {
		t.Errorf("files are left: %v, %v", names, err)
	}
}

func TestBodyWriterAbortAndCrash(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 2, 300*64<<10, 64<<10)
	for _, end := range []func(*BodyWriter){
		func(w *BodyWriter) { w.Abort() },
		func(*BodyWriter) { b.crash() },
		func(*BodyWriter) { b.reopen() },
	} {
		w, err := b.CreateBody(t.Context(), uint64(len(f.bytes)))
		must(t, err)
		must(t, w.Put(t.Context(), 0, f.blocks()))
		end(w)
		wantEmpty(t, b)
	}
}

func TestCommitReplacesPartialBody(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 3, 5<<20, 1<<20)
	mustPut(t, b, f.leaves[:2]...)
	write := func() {
		w, err := b.CreateBody(t.Context(), uint64(len(f.bytes)))
		must(t, err)
		must(t, w.Put(t.Context(), 0, f.blocks()))
		must(t, w.Commit(t.Context(), f.root))
		mustBody(t, b.Store, f)
		if st := b.Stats(); st.Bodies != 1 || st.UsedBytes != int64(len(f.bytes)) || st.Blocks != 5 {
			t.Errorf("stats: %+v", st)
		}
	}
	write()
	write() // the complete body wins over the second
}

func TestHostilePlaces(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 4, 5<<20, 1<<20)
	mustPut(t, b, f.leaves[1])
	const size = 5 << 20
	for name, p := range map[string]Place{
		"declared longer":  {File: f.root, Offset: 2 << 20, FileBytes: size, Bytes: 1<<20 + 1},
		"declared shorter": {File: f.root, Offset: 2 << 20, FileBytes: size, Bytes: 1<<20 - 1},
		"overlaps":         {File: f.root, Offset: 1<<20 + 1, FileBytes: size},
		"ends behind":      {File: f.root, Offset: size - 1, FileBytes: size},
		"begins behind":    {File: f.root, Offset: size + 1, FileBytes: size},
		"wraps":            {File: f.root, Offset: ^uint64(0) - 5, FileBytes: size},
		"another length":   {File: f.root, Offset: 3 << 20, FileBytes: size + 1},
		"shorter":          {File: f.root, Offset: 3 << 20, FileBytes: 4 << 20},
		"beyond disks":     {File: f.leaves[0].Block.Cid(), Offset: 1 << 62, FileBytes: 1 << 63},
		"file undefined":   {File: cid.Undef, Offset: 0, FileBytes: size},
		"file too little":  {File: f.root, Offset: 0, FileBytes: 1 << 20},
	} {
		evil := randBlock(t, uint64(len(name)*100+int(p.Offset%97)), 1<<20)
		mustPut(t, b, Entry{Block: evil, Place: p})
		mustGet(t, b, evil)
		if have, total := b.BodyState(f.root); have != 1<<20 || total != size {
			t.Errorf("%s: body has %d of %d bytes", name, have, total)
		}
	}
	tiny := randBlock(t, 77, 1)
	mustPut(t, b, Entry{Block: tiny, Place: Place{File: f.root, Offset: 3 << 20, FileBytes: size}})
	mustPut(t, b, f.leaves...)
	mustBody(t, b.Store, f)
}

func TestRepeatedLeaves(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	zero := rawBlock(t, make([]byte, 64<<10))
	root := randBlock(t, 1, 10).Cid()
	const n = 100
	for i := range uint64(n) {
		mustPut(t, b, Entry{Block: zero, Place: Place{File: root, Offset: i * 64 << 10, FileBytes: n * 64 << 10}})
	}
	fd, ok := b.Body(root)
	if !ok {
		t.Fatal("no body")
	}
	got, err := io.ReadAll(fd)
	must(t, err)
	must(t, fd.Close())
	if len(got) != n*64<<10 {
		t.Fatalf("%d bytes", len(got))
	}
	b.crash()
	if have, total := b.BodyState(root); have != total || total == 0 {
		t.Errorf("after a crash: %d of %d bytes", have, total)
	}
	if st := b.Stats(); st.Blocks != 1 {
		t.Errorf("%d blocks", st.Blocks)
	}
	mustGet(t, b, zero)
}

// TestFill: blocks found elsewhere complete the body that a want names.
func TestFill(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 5, 5<<20, 1<<20)
	for _, l := range f.leaves[1:] {
		mustPut(t, b, Entry{Block: l.Block}) // loose
	}
	if _, err := b.Get(t.Context(), wantOf(f.leaves[1])); err != nil {
		t.Fatal(err)
	}
	if have, _ := b.BodyState(f.root); have != 0 {
		t.Fatal("a Get began a body")
	}
	mustPut(t, b, f.leaves[0])
	c, err := New(Config{Store: b.Store})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	for _, l := range f.leaves[1:3] {
		_, err := b.Get(t.Context(), wantOf(l))
		must(t, err)
	}
	for _, l := range f.leaves[3:] {
		mustGet(t, c, l.Block) // now in memory, without a place
		_, err := c.Get(t.Context(), wantOf(l))
		must(t, err)
	}
	mustBody(t, b.Store, f)
}
