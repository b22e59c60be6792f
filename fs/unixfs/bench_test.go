package unixfs

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// BenchmarkReadAtCachedLeaf reads 128 KiB at a time, forwards, from a file of 1 MiB leaves that are all in memory.
func BenchmarkReadAtCachedLeaf(b *testing.B) {
	const size = 32 << 20
	s := shape{chunk: 1 << 20, width: 1024, raw: true, hash: mh.SHA2_256}
	store := newMemBlocks()
	root := s.build(b, store, make([]byte, size)).Cid()
	f := open(b, NewReader(plainBlocks{store.m}, Config{}), root)
	p := make([]byte, 128<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	off := uint64(0)
	for b.Loop() {
		if _, err := f.ReadAt(context.Background(), p, off); err != nil {
			b.Fatal(err)
		}
		off = (off + uint64(len(p))) % size
	}
}

// BenchmarkReadAtRandom reads 4 KiB at random places of a file with two levels of inner nodes.
func BenchmarkReadAtRandom(b *testing.B) {
	const size = 64 << 20
	s := shape{chunk: 16 << 10, width: 64, raw: true, hash: mh.SHA2_256}
	store := newMemBlocks()
	root := s.build(b, store, make([]byte, size)).Cid()
	f := open(b, NewReader(plainBlocks{store.m}, Config{}), root)
	p := make([]byte, 4<<10)
	b.ReportAllocs()
	rnd := newRand(b)
	for b.Loop() {
		if _, err := f.ReadAt(context.Background(), p, rnd.Uint64N(size-4096)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLookup looks up every name of a directory in turn.
func BenchmarkLookup(b *testing.B) {
	for _, tt := range []struct {
		hamt  bool
		names int
	}{{false, 1000}, {false, 20_000}, {true, 20_000}} {
		b.Run(fmt.Sprintf("hamt=%v/%d", tt.hamt, tt.names), func(b *testing.B) {
			store, names := newMemBlocks(), manyNames(tt.names)
			root := fastDir(b, store, tt.hamt, names)
			d := openDir(b, NewReader(plainBlocks{store.m}, Config{}), root)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := d.Lookup(context.Background(), names[i%len(names)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fastDir builds a directory; boxo's plain ones take quadratic time.
func fastDir(b *testing.B, store *memBlocks, hamt bool, names []string) cid.Cid {
	if hamt {
		return boxoDir(b, store, true, 256, names)
	}
	leaf := store.put(cid.Raw, []byte("x"))
	links := make([]link, len(names))
	for i, name := range names {
		links[i] = link{name: name, c: leaf}
	}
	return store.node(dirData, links...)
}

// BenchmarkListHAMT lists a HAMT of 100,000 names and prints the time an entry takes and the memory held at the end.
func BenchmarkListHAMT(b *testing.B) {
	store := newMemBlocks()
	root := boxoDir(b, store, true, 256, manyNames(100_000))
	blocks := plainBlocks{store.m}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := NewReader(blocks, Config{})
	for b.Loop() {
		n := 0
		for _, err := range openDir(b, r, root).Entries(context.Background(), 0) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 100_000 {
			b.Fatal(n, "entries")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(r)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/entry")
	b.ReportMetric(float64(after.HeapAlloc)/1e6-float64(before.HeapAlloc)/1e6, "MB-held")
}

// BenchmarkListMillion lists a HAMT of 1,000,000 names, resumes in its middle, and prints the memory held there.
func BenchmarkListMillion(b *testing.B) {
	const n = 1_000_000
	store := newMemBlocks()
	root := bigShard(store, n)
	before := heapMB()
	r := NewReader(plainBlocks{store.m}, Config{})
	var peak float64
	for b.Loop() {
		count, middle := 0, Cursor(0)
		for e, err := range openDir(b, r, root).Entries(context.Background(), 0) {
			if err != nil {
				b.Fatal(err)
			}
			if count++; count == n/2 {
				middle = e.Next
				peak = max(peak, heapMB()-before)
			}
		}
		rest := listed(b, openDir(b, r, root), middle, 1000)
		if count != n || len(rest) != 1000 {
			b.Fatal(count, len(rest))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
	b.ReportMetric(peak, "MB-held")
}

// BenchmarkResume goes on with 100 entries of a HAMT of 100,000 names at random places.
func BenchmarkResume(b *testing.B) {
	store := newMemBlocks()
	root := bigShard(store, 100_000)
	r, rnd := NewReader(plainBlocks{store.m}, Config{}), newRand(b)
	b.ReportAllocs()
	for b.Loop() {
		if got := listed(b, openDir(b, r, root), Cursor(rnd.Uint64N(1<<62)), 100); len(got) != 100 {
			b.Fatal(len(got))
		}
	}
}

func heapMB() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// bigShard builds a HAMT of n names from the bottom up.
func bigShard(store *memBlocks, n int) cid.Cid {
	leaf := store.put(cid.Raw, []byte("x"))
	names := manyNames(n)
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(nameHash([]byte(a)), nameHash([]byte(b))) })
	fanout, hash := uint64(256), uint64(hashMurmur3)
	var build func(names []string, used uint8) cid.Cid
	build = func(names []string, used uint8) cid.Cid {
		var field [32]byte
		var links []link
		for len(names) > 0 {
			index := bitsOf(nameHash([]byte(names[0])), used, 8)
			k := 1
			for k < len(names) && bitsOf(nameHash([]byte(names[k])), used, 8) == index {
				k++
			}
			field[31-index/8] |= 1 << (index % 8)
			l := link{name: fmt.Sprintf("%02X", index)}
			if k == 1 {
				l.name, l.c = l.name+names[0], leaf
			} else {
				l.c = build(names[:k], used+8)
			}
			links, names = append(links, l), names[k:]
		}
		return store.node(&pb.Data{Type: pb.Data_HAMTShard.Enum(), Data: field[:], HashType: &hash, Fanout: &fanout}, links...)
	}
	return build(names, 0)
}
