package blockcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// lister is List or ListPinned.
type lister func(ctx context.Context, after cid.Cid, max int) ([]cid.Cid, error)

// listAll walks in pages and returns how often each hash came.
func listAll(t testing.TB, list lister, page int) map[string]int {
	t.Helper()
	seen := make(map[string]int)
	for after := cid.Undef; ; {
		got, err := list(t.Context(), after, page)
		must(t, err)
		if len(got) == 0 {
			return seen
		}
		if len(got) > page {
			t.Fatalf("%d blocks in a page of %d", len(got), page)
		}
		for _, c := range got {
			seen[key(c)]++
			if after.Defined() && bytes.Compare(after.Hash(), c.Hash()) >= 0 {
				t.Fatalf("%s comes after %s", c, after)
			}
			after = c
		}
	}
}

// once is what a walk over exactly these blocks returns.
func once(bs ...blocks.Block) map[string]int {
	m := make(map[string]int)
	for _, b := range bs {
		m[key(b.Cid())] = 1
	}
	return m
}

func checkList(t testing.TB, name string, list lister, want map[string]int) {
	t.Helper()
	for _, page := range []int{1, 3, 7, 5000} {
		if got := listAll(t, list, page); !maps.Equal(got, want) {
			t.Errorf("%s in pages of %d: %d blocks, want %d", name, page, len(got), len(want))
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	checkList(t, "an empty store", b.List, once())
	f := makeFile(t, 9, 5<<20, 1<<20)
	mustPut(t, b, f.leaves...)
	mustBody(t, b.Store, f)
	all := f.blocks()
	for i := range 50 {
		blk := randBlock(t, uint64(100+i), 64)
		mustPut(t, b, Entry{Block: blk})
		all = append(all, blk)
	}
	w, err := b.CreateBody(t.Context(), 5<<20)
	must(t, err)
	unread := makeFile(t, 10, 5<<20, 1<<20)
	must(t, w.Put(t.Context(), 0, unread.blocks()[:3]))
	for _, again := range []func(){func() {}, w.Abort, b.reopen, b.crash} {
		again()
		checkList(t, "the store", b.List, once(all...))
		checkList(t, "what is pinned", b.ListPinned, once())
	}
	must(t, b.Delete(t.Context(), []cid.Cid{all[7].Cid()}))
	checkList(t, "the store", b.List, once(slices.Delete(slices.Clone(all), 7, 8)...))
	got, err := b.List(t.Context(), all[7].Cid(), 1)
	if err != nil || len(got) == 1 && bytes.Compare(got[0].Hash(), all[7].Cid().Hash()) <= 0 {
		t.Errorf("after a block that is gone comes %v, %v", got, err)
	}
	if got, err := b.List(t.Context(), cid.Undef, 0); len(got) != 0 || err != nil {
		t.Errorf("a page of nothing: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.List(ctx, cid.Undef, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("listed after the end: %v", err)
	}
}

// TestListPinned: blocks that many roots pin, more than one transaction passes over, are listed once;
// those that are not here are not listed.
func TestListPinned(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	var here, members []blocks.Block
	for i := range 40 {
		blk := randBlock(t, uint64(i), 64)
		if members = append(members, blk); i%4 != 0 {
			here = append(here, blk)
			mustPut(t, b, Entry{Block: blk})
		}
	}
	mustPut(t, b, Entry{Block: randBlock(t, 1000, 64)}) // of no pin
	var cids []cid.Cid
	for _, m := range members {
		cids = append(cids, m.Cid())
	}
	for i := range listLook/len(cids) + 40 {
		must(t, b.Pin(t.Context(), randBlock(t, uint64(2000+i), 8).Cid(), cids))
	}
	for i := range listLook + 10 {
		must(t, b.Pin(t.Context(), randBlock(t, uint64(10000+i), 8).Cid(), cids[1:2]))
	}
	checkList(t, "what is pinned", b.ListPinned, once(here...))
}

// TestListWhileStoreChanges: what stays is listed exactly once whatever comes and goes meanwhile.
func TestListWhileStoreChanges(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{})
	var stays []blocks.Block
	var es []Entry
	for i := range 3000 {
		blk := randBlock(t, uint64(i), 32)
		stays, es = append(stays, blk), append(es, Entry{Block: blk})
	}
	mustPut(t, b, es...)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for i := range 2 {
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				blk := randBlock(t, uint64(i)<<32|uint64(n%500)|1<<40, 32)
				err := errors.Join(b.Put(t.Context(), []Entry{{Block: blk}}), b.Delete(t.Context(), []cid.Cid{blk.Cid()}))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, page := range []int{17, 512, 4096} {
		seen := listAll(t, b.List, page)
		for _, blk := range stays {
			if n := seen[key(blk.Cid())]; n != 1 {
				t.Fatalf("%s came %d times in pages of %d", blk.Cid(), n, page)
			}
		}
	}
}

func TestBehind(t *testing.T) {
	t.Parallel()
	x := &index{prefix: []byte("p/")}
	for _, hash := range []string{"a", "a\xff", "\xff\xff", "a\x00"} {
		for _, tag := range []byte{tagBlock, tagPinned} {
			entry := x.k(tag, hash)
			if tag == tagPinned {
				entry = x.pairKey(tag, hash, "\xff\xff root")
			}
			from := x.behind(tag, hash)
			if bytes.Compare(entry, from) >= 0 {
				t.Errorf("%q is not behind %q", from, entry)
			}
			next := x.k(tag, hash+"\x00")
			if tag == tagPinned {
				next = x.pairKey(tag, hash[:len(hash)-1]+"\xff\xff", "")
			}
			if bytes.Compare(next, from) < 0 {
				t.Errorf("%q leaves out %q", from, next)
			}
		}
	}
}

func BenchmarkList(b *testing.B) {
	s := newBox(b, StoreConfig{})
	const count = 20000
	for i := range count / 500 {
		var es []Entry
		for j := range 500 {
			es = append(es, Entry{Block: rawBlock(b, fmt.Appendf(nil, "block %d", i*500+j))})
		}
		mustPut(b, s, es...)
	}
	for b.Loop() {
		if n := len(listAll(b, s.List, 512)); n != count {
			b.Fatalf("%d blocks", n)
		}
	}
	b.ReportMetric(float64(count)*float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}
