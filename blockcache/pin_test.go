package blockcache

import (
	"errors"
	"testing"

	"github.com/ipfs/go-cid"
)

func TestPins(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	x, y, z := randBlock(t, 1, 100), randBlock(t, 2, 200), randBlock(t, 3, 400)
	r1, r2 := randBlock(t, 4, 8).Cid(), randBlock(t, 5, 8).Cid()
	pinned := func(want int64) {
		t.Helper()
		if got := b.Stats().PinnedBytes; got != want {
			t.Errorf("%d pinned bytes, want %d", got, want)
		}
		checkFigures(t, b.Store)
	}
	mustPut(t, b, Entry{Block: x}, Entry{Block: y})
	must(t, b.Pin(t.Context(), r1, []cid.Cid{x.Cid(), x.Cid(), z.Cid()}))
	must(t, b.Pin(t.Context(), r1, []cid.Cid{x.Cid()})) // again
	pinned(100)
	must(t, b.Pin(t.Context(), r1, []cid.Cid{y.Cid()})) // in parts
	pinned(300)
	must(t, b.Pin(t.Context(), r2, []cid.Cid{y.Cid(), cid.NewCidV0(x.Cid().Hash())}))
	must(t, b.FinishPin(t.Context(), r2))
	pinned(300)
	mustPut(t, b, Entry{Block: z}) // pinned before it was here
	pinned(700)
	for _, again := range []func(){func() {}, b.reopen, b.crash} {
		again()
		pinned(700)
		pins, err := b.Pins(t.Context())
		must(t, err)
		got := map[cid.Cid]Pin{}
		for _, p := range pins {
			got[p.Root] = p
		}
		if len(pins) != 2 || got[r1] != (Pin{r1, 3, false}) || got[r2] != (Pin{r2, 2, true}) {
			t.Errorf("pins: %+v", pins)
		}
	}
	must(t, b.Unpin(t.Context(), r1))
	pinned(300)
	if err := b.Unpin(t.Context(), r1); !errors.Is(err, ErrNotFound) {
		t.Errorf("second Unpin: %v", err)
	}
	if err := b.FinishPin(t.Context(), r1); !errors.Is(err, ErrNotFound) {
		t.Errorf("finish of no pin: %v", err)
	}
	must(t, b.Delete(t.Context(), []cid.Cid{y.Cid()}))
	pinned(100)
	if _, err := b.GC(t.Context()); err != nil {
		t.Error(err)
	}
	mustGet(t, b, x)
	if has(t, b.Store, z) {
		t.Error("an unpinned block outlived GC")
	}
	must(t, b.Unpin(t.Context(), r2))
	pinned(0)
	if b.Stats().Pins != 0 {
		t.Errorf("%d pins", b.Stats().Pins)
	}
}

func TestManyPins(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	var cs []cid.Cid
	for i := range uint64(3*maxChanges + 7) {
		blk := randBlock(t, i, 10)
		cs = append(cs, blk.Cid())
		if i%2 == 0 {
			mustPut(t, b, Entry{Block: blk})
		}
	}
	must(t, b.Pin(t.Context(), cs[0], cs))
	if st := b.Stats(); st.PinnedBytes != 10*int64(len(cs)+1)/2 {
		t.Errorf("%d pinned bytes", st.PinnedBytes)
	}
	must(t, b.Unpin(t.Context(), cs[0]))
	if st := b.Stats(); st.PinnedBytes != 0 {
		t.Errorf("%d pinned bytes", st.PinnedBytes)
	}
	checkFigures(t, b.Store)
}

// TestPinnedByFewAndMany: blocks are known as pinned however many pins there are.
func TestPinnedByFewAndMany(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	kept, loose := randBlock(t, 1, 1000), randBlock(t, 2, 1000)
	var roots []cid.Cid
	for i := range uint64(fewRoots + 3) {
		mustPut(t, b, Entry{Block: kept}, Entry{Block: loose})
		roots = append(roots, randBlock(t, 10+i, 9).Cid())
		must(t, b.Pin(t.Context(), roots[i], []cid.Cid{kept.Cid()}))
		if i > 0 {
			must(t, b.Pin(t.Context(), roots[i-1], []cid.Cid{loose.Cid()}))
			must(t, b.Unpin(t.Context(), roots[i-1]))
			must(t, b.Pin(t.Context(), roots[i-1], nil))
		}
		_, err := b.GC(t.Context())
		must(t, err)
		mustGet(t, b, kept)
		if has(t, b.Store, loose) {
			t.Fatalf("a loose block is left with %d pins", i+1)
		}
		checkFigures(t, b.Store)
	}
}
