package erasure

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

// hugeLimit is what a manifest of any size may take in memory, in bytes, beside its parts, which a test
// keeps for the reader. The index run is the most of it.
const hugeLimit = 160 << 20

// huge writes the manifest of a dataset of so many bytes in blocks of the given size, from planner to
// last part, then looks for blocks of it, and reports time and memory.
func huge(t *testing.T, k, m int, size int64, block int) {
	var s shelf
	var parts, partBytes int64
	base := live()
	most := base
	w, err := NewManifestWriter(hugeCID(1<<62), k, m, func(p Part) error {
		parts++
		partBytes += int64(len(p.Data))
		if p.Kind == PartDescriptor {
			return nil // they follow from the pages
		}
		return s.put(p)
	})
	if err != nil {
		t.Fatalf("writer: %v", err)
	}
	blocks := size / int64(block)
	stripes := 0
	p, err := NewPlanner(k, nil, func(data []Shard) error {
		if stripes++; stripes%200000 == 0 {
			most = max(most, live()-s.bytes())
		}
		parity := make([]Shard, m)
		for i := range parity {
			parity[i] = Shard{hugeCID(1<<60 + int64(stripes*m+i)), widest(data)}
		}
		return w.Add(Stripe{data, parity})
	})
	if err != nil {
		t.Fatalf("planner: %v", err)
	}
	begin := time.Now()
	for i := range blocks {
		if err := p.Add(Shard{hugeCID(i), block}); err != nil {
			t.Fatalf("plan: %v", err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatalf("plan: %v", err)
	}
	most = max(most, live()-s.bytes())
	root, err := w.Close()
	if err != nil {
		t.Fatalf("close: %v", err)
	}
	wrote := time.Since(begin)
	runtime.KeepAlive(p)
	p, w = nil, nil

	t.Logf("%d GiB in %d blocks of %d: written in %v, %d parts of %d MiB, manifest block %d KiB, %d MiB of memory",
		size>>30, blocks, block, wrote, parts, partBytes>>20, len(s.parts[root].Data)>>10, (most-base)>>20)
	if most-base > hugeLimit {
		t.Errorf("writing took %d MiB", (most-base)>>20)
	}
	findHuge(t, &s, root, blocks)
}

func findHuge(t *testing.T, s *shelf, root cid.Cid, blocks int64) {
	t.Helper()
	const lookups = 300
	base := live()
	m := openManifest(t, s, root)
	if m.Blocks() != blocks || m.head.sum.pages <= unindexed {
		t.Fatalf("%d blocks in %d pages", m.Blocks(), m.head.sum.pages)
	}
	r := seeded(t)
	s.reads = 0
	for range lookups {
		c := hugeCID(r.Int64N(blocks))
		f, err := m.Find(t.Context(), c)
		if err != nil || f.Stripe.Data[f.Shard].CID != c {
			t.Fatalf("find %s: %v", c, err)
		}
	}
	took := live() - base
	t.Logf("found: %.1f parts read a lookup of %d runs, %d MiB of memory", float64(s.reads)/lookups, len(m.head.index), took>>20)
	if most := lookups * (3 + 2*len(m.head.index)); s.reads > most {
		t.Errorf("%d parts read for %d lookups", s.reads, lookups)
	}
	if took > 40<<20 {
		t.Errorf("reading took %d MiB", took>>20)
	}
	runtime.KeepAlive(m)
	sequential(t, s, root, r)
}

// sequential looks for blocks in their order, which reads each page about once.
func sequential(t *testing.T, s *shelf, root cid.Cid, r *rand.Rand) {
	t.Helper()
	m := openManifest(t, s, root)
	from := r.Int64N(m.Blocks() - 20000)
	s.reads = 0
	for i := range int64(20000) {
		if _, err := m.Find(context.Background(), hugeCID(from+i)); err != nil {
			t.Fatalf("find: %v", err)
		}
	}
	t.Logf("20000 blocks in order: %d parts read", s.reads)
	if s.reads > 20000/100 {
		t.Errorf("%d parts read for 20000 blocks in order", s.reads)
	}
}

// hugeCID is a CID with a made up digest: hashing that many blocks is not what is measured.
func hugeCID(n int64) cid.Cid {
	hash := make([]byte, 34)
	hash[0], hash[1] = 0x12, 32
	r := rand.NewPCG(uint64(n), 9)
	for i := 2; i < 34; i += 8 {
		binary.BigEndian.PutUint64(hash[i:], r.Uint64())
	}
	return cid.NewCidV1(cid.Raw, hash)
}

// live returns the bytes in use after a collection.
func live() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// bytes returns what the shelf's parts take.
func (s *shelf) bytes() (n int64) {
	for _, p := range s.parts {
		n += int64(cap(p.Data))
	}
	return n
}

func TestManifestOf64GiB(t *testing.T) { huge(t, 4, 2, 64<<30, 1<<20) }

// BenchmarkDecodePage sets our decoder beside go-ipld-prime's for a page of a mebibyte.
func BenchmarkDecodePage(b *testing.B) {
	var s shelf
	lengths := slices.Repeat([]int{10000}, 15500)
	writeManifest(b, &s, 4, 2, makeStripes(b, 4, 2, lengths))
	var page []byte
	for _, p := range s.parts {
		if p.Kind == PartPage && len(p.Data) > len(page) {
			page = p.Data
		}
	}
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(page)))
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := decodePage(page, 4, 2); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("go-ipld-prime", func(b *testing.B) {
		b.SetBytes(int64(len(page)))
		b.ReportAllocs()
		for b.Loop() {
			decodeGeneric(b, page)
		}
	})
}
