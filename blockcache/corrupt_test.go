package blockcache

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// flip changes one bit of a file of the store.
func (b *box) flip(name string, off int64) {
	b.t.Helper()
	f, err := os.OpenFile(filepath.Join(b.dir, "blocks", name), os.O_RDWR, 0)
	must(b.t, err)
	defer f.Close()
	p := make([]byte, 1)
	_, err = f.ReadAt(p, off)
	must(b.t, err)
	p[0] ^= 0x10
	_, err = f.WriteAt(p, off)
	must(b.t, err)
}

func (b *box) placeOf(blk blocks.Block) place {
	b.t.Helper()
	ps, err := b.lookup(Want{CID: blk.Cid()})
	must(b.t, err)
	if len(ps) == 0 {
		b.t.Fatal("no place")
	}
	return ps[0]
}

// again is an origin that puts the block into the store, as the exchange does.
type again struct {
	s     *Store
	entry Entry
	calls int
}

func (o *again) Fetch(ctx context.Context, _ Want) (blocks.Block, error) {
	o.calls++
	return o.entry.Block, o.s.Put(ctx, []Entry{o.entry})
}

func TestFlippedBitIsFoundAndFetchedAgain(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 1, 5<<20, 1<<20)
	small := Entry{Block: randBlock(t, 2, 1000)}
	mustPut(t, b, append(f.leaves, small)...)
	for i, e := range []Entry{f.leaves[2], small} {
		p := b.placeOf(e.Block)
		b.flip(placeFile(p), int64(p.off)+77)
		o := &again{s: b.Store, entry: e}
		c, err := New(Config{Store: b.Store, Origin: o})
		must(t, err)
		got, err := c.Get(t.Context(), wantOf(e))
		must(t, err)
		if !bytes.Equal(got.RawData(), e.Block.RawData()) || o.calls != 1 {
			t.Errorf("wrong bytes, or %d fetches", o.calls)
		}
		must(t, c.Close())
		if n := b.Stats().Corruptions; n != int64(i+1) {
			t.Errorf("%d corruptions are counted", n)
		}
		mustGet(t, b, e.Block)
		checkFigures(t, b.Store)
	}
	mustBody(t, b.Store, f)
}

func TestDamagedBodyIsNotGivenOut(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 1, 5<<20, 1<<20)
	mustPut(t, b, f.leaves...)
	mustPut(t, b, Entry{Block: randBlock(t, 2, 3000)})
	p := b.placeOf(f.leaves[3].Block)
	b.crash()
	b.flip(placeFile(p), int64(p.off)+5)
	if _, ok := b.Body(f.root); ok {
		t.Error("a body was given out unverified")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	waitFor(t, func() bool { return b.Stats().Unverified == 0 })
	cancel()
	must(t, <-done)
	if have, total := b.BodyState(f.root); have != total-1<<20 {
		t.Errorf("%d of %d bytes are left", have, total)
	}
	if _, err := b.Get(t.Context(), wantOf(f.leaves[3])); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of the damaged leaf: %v", err)
	}
	mustPut(t, b, f.leaves[3])
	mustBody(t, b.Store, f)
	b.reopen()
	mustBody(t, b.Store, f) // verified once, not at each start
}

// TestTruncatedBody: somebody cut a body short behind our back.
func TestTruncatedBody(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 1, 5<<20, 1<<20)
	mustPut(t, b, f.leaves...)
	must(t, os.Truncate(filepath.Join(b.dir, "blocks", placeFile(b.placeOf(f.leaves[0].Block))), 1<<20+7))
	if _, ok := b.Body(f.root); ok {
		t.Error("a short body was given out")
	}
	mustGet(t, b, f.leaves[0].Block)
	for _, l := range f.leaves[1:] {
		if _, err := b.Get(t.Context(), wantOf(l)); !errors.Is(err, ErrNotFound) {
			t.Errorf("get of a lost leaf: %v", err)
		}
	}
	mustPut(t, b, f.leaves...)
	mustBody(t, b.Store, f)
}

// TestOtherPlaceIsTried: one copy is damaged, the other serves.
func TestOtherPlaceIsTried(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 1, 5<<20, 1<<20)
	loose := f.leaves[0].Block
	mustPut(t, b, Entry{Block: loose})
	mustPut(t, b, f.leaves...)
	p := b.placeOf(loose)
	b.flip(placeFile(p), int64(p.off))
	mustGet(t, b, loose)
	if b.Stats().Corruptions != 1 {
		t.Errorf("%d corruptions", b.Stats().Corruptions)
	}
	checkFigures(t, b.Store)
}

func TestMissingFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	f := makeFile(t, 1, 5<<20, 1<<20)
	small := randBlock(t, 2, 1000)
	mustPut(t, b, append(f.leaves, Entry{Block: small})...)
	b.close()
	for _, d := range []string{packDir, bodyDir} {
		must(t, os.RemoveAll(filepath.Join(b.dir, "blocks", d)))
	}
	b.open()
	for _, blk := range append(f.blocks(), small) {
		if _, err := b.Get(t.Context(), Want{CID: blk.Cid()}); !errors.Is(err, ErrNotFound) {
			t.Errorf("get: %v", err)
		}
	}
	mustPut(t, b, append(f.leaves, Entry{Block: small})...)
	mustBody(t, b.Store, f)
	mustGet(t, b, small)
}

// TestLostIndex: the database is gone, the packs are there.
func TestLostIndex(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	var es []Entry
	for i := range uint64(300) {
		es = append(es, Entry{Block: randBlock(t, i, 1+int(i)*20)})
	}
	mustPut(t, b, es...)
	mustPut(t, b, makeFile(t, 1, 5<<20, 1<<20).leaves...)
	b.close()
	must(t, os.RemoveAll(filepath.Join(b.dir, "db")))
	b.open()
	for _, e := range es {
		mustGet(t, b, e.Block)
	}
	if st := b.Stats(); st.Recovered != 300 || st.Blocks != 300 || st.Bodies != 0 {
		t.Errorf("stats: %+v", st)
	}
	checkFigures(t, b.Store)
}

// TestIndexLag: records that were written and not indexed are found again, whatever follows them.
func TestIndexLag(t *testing.T) {
	lie := randBlock(t, 50, 100)
	evil := cid.NewCidV1(cid.Raw, randBlock(t, 51, 1).Cid().Hash())
	forged := append(appendHeader(nil, evil, 100, checksum(lie.RawData())), lie.RawData()...)
	beyond := appendHeader(nil, lie.Cid(), MaxBlockBytes, 1)
	for name, tail := range map[string][]byte{
		"nothing":        nil,
		"zeros":          make([]byte, 10000),
		"garbage":        randBytes(1, 5000),
		"magics":         bytes.Repeat(magic[:], 3000),
		"half a header":  forged[:headerBytes/2],
		"half a record":  forged[:len(forged)-10],
		"forged":         forged,
		"runs past":      beyond,
		"broken, then":   append(randBytes(2, 333), forged...),
		"one magic more": magic[:],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, StoreConfig{})
			old, late := randBlock(t, 1, 1000), randBlock(t, 2, 2000)
			mustPut(t, b, Entry{Block: old})
			must(t, b.Sync(t.Context()))
			pack := placeFile(b.placeOf(old))
			rec := appendHeader(nil, late.Cid(), 2000, checksum(late.RawData()))
			f, err := os.OpenFile(filepath.Join(b.dir, "blocks", pack), os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			for _, p := range [][]byte{rec, late.RawData(), tail} {
				_, err = f.Write(p)
				must(t, err)
			}
			must(t, f.Close())
			b.crash()
			mustGet(t, b, old)
			mustGet(t, b, late)
			if ok, _ := b.Has(t.Context(), evil); ok {
				t.Error("a record with a wrong CID was indexed")
			}
			if st := b.Stats(); st.Recovered != 1 || st.Blocks != 2 {
				t.Errorf("stats: %+v", st)
			}
			mustPut(t, b, Entry{Block: randBlock(t, 3, 100)})
			b.crash()
			mustGet(t, b, randBlock(t, 3, 100))
			checkFigures(t, b.Store)
		})
	}
}

// TestGarbageEverywhere changes random bytes of all files; nothing wrong may come out.
func TestGarbageEverywhere(t *testing.T) {
	t.Parallel()
	for seed := range seeds(4) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := newBox(t, StoreConfig{PackBytes: 1 << 20})
		f := makeFile(t, seed, 4<<20, 256<<10)
		all := f.leaves
		for i := range uint64(100) {
			all = append(all, Entry{Block: randBlock(t, i, 1+r.IntN(30000))})
		}
		mustPut(t, b, all...)
		paths, err := filepath.Glob(filepath.Join(b.dir, "blocks", "*", "*"))
		must(t, err)
		for range 30 {
			path := paths[r.IntN(len(paths))]
			st, err := os.Stat(path)
			must(t, err)
			rel, err := filepath.Rel(filepath.Join(b.dir, "blocks"), path)
			must(t, err)
			b.flip(rel, r.Int64N(st.Size()))
		}
		if r.IntN(2) == 0 {
			b.crash()
		}
		lost := 0
		for _, e := range all {
			if _, err := b.Get(t.Context(), wantOf(e)); errors.Is(err, ErrNotFound) {
				lost++
				continue
			}
			mustGet(t, b, e.Block)
		}
		if lost == 0 || lost > 30 {
			t.Errorf("seed %d: %d blocks lost", seed, lost)
		}
		must(t, b.rewriteAny(r))
		mustPut(t, b, all...)
		for _, e := range all {
			mustGet(t, b, e.Block)
		}
		mustBodyAfter(t, b, f)
	}
}

func mustBodyAfter(t *testing.T, b *box, f fakeFile) {
	t.Helper()
	must(t, b.verifyAll(t.Context()))
	mustBody(t, b.Store, f)
}
