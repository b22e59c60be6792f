package blockcache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// benchFile is what the benchmarks write: 256 MiB in leaves of 1 MiB, hashed outside of the clock.
func benchFile(b *testing.B) fakeFile {
	b.Helper()
	return makeFile(b, 1, 256<<20, 1<<20)
}

// BenchmarkPutBody writes a file through a BodyWriter and syncs; native writes the same bytes to a
// plain file and syncs.
func BenchmarkPutBody(b *testing.B) {
	f := benchFile(b)
	b.Run("native", func(b *testing.B) {
		dir := b.TempDir()
		b.SetBytes(int64(len(f.bytes)))
		for i := range b.N {
			writeNative(b, filepath.Join(dir, fmt.Sprint(i)), f.leaves)
		}
	})
	b.Run("store", func(b *testing.B) {
		s := newBox(b, StoreConfig{})
		b.SetBytes(int64(len(f.bytes)))
		b.ResetTimer()
		for i := range b.N {
			w, err := s.CreateBody(b.Context(), uint64(len(f.bytes)))
			must(b, err)
			for j := 0; j < len(f.leaves); j += 4 {
				must(b, w.Put(b.Context(), uint64(j)<<20, f.blocks()[j:j+4]))
			}
			must(b, w.Commit(b.Context(), randBlock(b, uint64(i), 8).Cid()))
			must(b, s.Sync(b.Context()))
		}
	})
	b.Run("lent", func(b *testing.B) {
		from := &shelf{dir: b.TempDir()}
		writeNative(b, from.path("file"), f.leaves)
		s := newBox(b, StoreConfig{Lender: from})
		b.SetBytes(int64(len(f.bytes)))
		b.ResetTimer()
		for i := range b.N {
			must(b, lendAgain(b, s.Store, from, "file", f).Commit(b.Context(), randBlock(b, uint64(i), 8).Cid()))
			must(b, s.Sync(b.Context()))
		}
	})
	b.Run("placed", func(b *testing.B) {
		s := newBox(b, StoreConfig{})
		b.SetBytes(int64(len(f.bytes)))
		b.ResetTimer()
		for i := range b.N {
			root := randBlock(b, uint64(i), 8).Cid()
			for _, e := range f.leaves {
				e.Place.File = root
				must(b, s.Put(b.Context(), []Entry{e}))
			}
			must(b, s.Sync(b.Context()))
		}
	})
}

func writeNative(b *testing.B, name string, es []Entry) {
	b.Helper()
	fd, err := os.Create(name)
	must(b, err)
	for _, e := range es {
		_, err := fd.Write(e.Block.RawData())
		must(b, err)
	}
	must(b, fd.Sync())
	must(b, fd.Close())
}

// BenchmarkPutSmall stores 10,000 blocks of 10 KiB and syncs; native writes as many files.
func BenchmarkPutSmall(b *testing.B) {
	const n, size = 10000, 10 << 10
	b.Run("native", func(b *testing.B) {
		es := make([]Entry, n)
		for i := range es {
			es[i].Block = randBlock(b, uint64(i), size)
		}
		b.SetBytes(n * size)
		b.ResetTimer()
		for range b.N {
			dir := b.TempDir()
			for i := range es {
				must(b, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), es[i].Block.RawData(), 0o600))
			}
			must(b, syncAll())
		}
	})
	for _, batch := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("store/batch=%d", batch), func(b *testing.B) {
			s := newBox(b, StoreConfig{})
			b.SetBytes(n * size)
			for i := range b.N {
				b.StopTimer()
				es := make([]Entry, n)
				for j := range es {
					es[j].Block = randBlock(b, uint64(i*n+j), size)
				}
				b.StartTimer()
				for j := 0; j < n; j += batch {
					must(b, s.Put(b.Context(), es[j:min(n, j+batch)]))
				}
				must(b, s.Sync(b.Context()))
			}
		})
	}
}

// BenchmarkPinSmall pins and puts blocks one by one under one root, as an import of small files does: the facts of the pin
// have as many versions then.
func BenchmarkPinSmall(b *testing.B) {
	const n = 10000
	for b.Loop() {
		b.StopTimer()
		s := newBox(b, StoreConfig{})
		root := randBlock(b, 0, 8).Cid()
		b.StartTimer()
		for i := range uint64(n) {
			e := Entry{Block: randBlock(b, 1+i, 1<<10)}
			must(b, s.Pin(b.Context(), root, []cid.Cid{e.Block.Cid()}))
			must(b, s.Put(b.Context(), []Entry{e}))
		}
	}
}

// BenchmarkGet reads leaves of a body and small blocks of a pack that the page cache has.
func BenchmarkGet(b *testing.B) {
	f := makeFile(b, 1, 64<<20, 1<<20)
	run := func(name string, n int, get func(i int) blocks.Block) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for i := range b.N {
				if len(get(i).RawData()) != n {
					b.Fatal("short block")
				}
			}
		})
	}
	s := newBox(b, StoreConfig{})
	mustPut(b, s, f.leaves...)
	small := make([]Entry, 1000)
	for i := range small {
		small[i].Block = randBlock(b, uint64(i), 10<<10)
	}
	mustPut(b, s, small...)
	fd, ok := s.Body(f.root)
	if !ok {
		b.Fatal("no body")
	}
	defer fd.Close()
	ctx := context.Background()
	run("native/1MiB", 1<<20, func(i int) blocks.Block {
		e := f.leaves[i%len(f.leaves)]
		p := make([]byte, 1<<20)
		_, err := fd.ReadAt(p, int64(e.Place.Offset))
		must(b, err)
		return withCID(p, e.Block.Cid())
	})
	get := func(s getter, w Want) blocks.Block {
		blk, err := s.Get(ctx, w)
		must(b, err)
		return blk
	}
	run("store/1MiB", 1<<20, func(i int) blocks.Block { return get(s, wantOf(f.leaves[i%len(f.leaves)])) })
	run("store/10KiB", 10<<10, func(i int) blocks.Block { return get(s, wantOf(small[i%len(small)])) })
	c, err := New(Config{Store: s.Store})
	must(b, err)
	defer c.Close()
	run("cache/10KiB", 10<<10, func(i int) blocks.Block { return get(c, wantOf(small[i%len(small)])) })
	r := rand.New(rand.NewPCG(1, 1))
	run("cache/1MiB", 1<<20, func(int) blocks.Block { return get(c, wantOf(f.leaves[r.IntN(32)])) })
}
