package blockcache

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
)

// The power goes right after a lent file was given back: the worst of moments.
func TestPowerCutAfterGivingBack(t *testing.T) {
	for seed := range seeds(4) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			w := newCutWorld(t, seed)
			for range 3 {
				w.start()
				for range 4 {
					w.lend()
				}
				w.sync()
				w.lend()
				for range 1 + w.r.IntN(4) {
					w.giveBack()
				}
				w.cut()
				w.check()
			}
		})
	}
}

// shelf is where the world's lent files are. No power cut touches them: they are their owner's.
func (w *cutWorld) shelf() *shelf { return &shelf{dir: filepath.Join(w.dir, "lent")} }

// lend lends the store a file.
func (w *cutWorld) lend() {
	w.next++
	f := makeFile(w.t, w.next, 4<<20+w.r.IntN(1<<20), 1<<20)
	name := fmt.Sprint(w.next)
	writer := lendFile(w.t, w.s, w.shelf(), name, f)
	if w.r.IntN(4) == 0 {
		writer.Abort()
		return
	}
	must(w.t, writer.Commit(w.t.Context(), f.root))
	w.lent[name] = f
	for _, e := range f.leaves {
		w.keep(e)
	}
	if w.r.IntN(2) == 0 {
		w.next++
		root := randBlock(w.t, w.next, 8).Cid()
		members := []cid.Cid{f.leaves[0].Block.Cid(), f.leaves[2].Block.Cid()}
		must(w.t, w.s.Pin(w.t.Context(), root, members))
		w.pins[root] = members
	}
}

// giveBack has a lent file end: it is written over, or it is removed, or neither comes to pass.
func (w *cutWorld) giveBack() {
	for name, f := range w.lent {
		path := filepath.Join(w.shelf().dir, name)
		if w.r.IntN(2) == 0 {
			must(w.t, w.s.Reclaim(w.t.Context(), name))
			w.reclaimed(f)
			must(w.t, os.WriteFile(path, []byte("something else"), 0o600))
		} else {
			must(w.t, w.s.TakeOver(w.t.Context(), name, func(to string) error { return os.Link(path, to) }))
			if !w.holds(f) {
				w.reclaimed(f)
			}
			must(w.t, os.Remove(path))
			if w.r.IntN(2) == 0 {
				must(w.t, w.s.Gone(w.t.Context(), name))
			}
		}
		delete(w.lent, name)
		return
	}
}

// reclaimed notes that of a file only what is pinned is left, and that for good.
func (w *cutWorld) reclaimed(f fakeFile) {
	for _, e := range f.leaves {
		c := e.Block.Cid()
		if w.put[c] && w.pinnedNow(c) {
			w.acked[c] = true
		} else {
			delete(w.put, c)
			delete(w.acked, c)
		}
	}
}

func (w *cutWorld) pinnedNow(c cid.Cid) bool {
	for _, members := range w.pins {
		if slices.ContainsFunc(members, c.Equals) {
			return true
		}
	}
	return false
}

// holds reports whether all of a file, none of which was deleted, is the store's own.
func (w *cutWorld) holds(f fakeFile) bool {
	have, total := w.s.BodyState(f.root)
	return have > 0 && have == total
}
