package dag

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"testing"

	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// nullSink counts what it is given.
type nullSink struct {
	mu    sync.Mutex
	count int
	bytes int
}

func (s *nullSink) Put(_ context.Context, blks []blocks.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blks {
		s.count++
		s.bytes += len(b.RawData())
	}
	return nil
}

func (s *nullSink) Body(context.Context, uint64) (Body, error) { return nullBody{s}, nil }

type nullBody struct{ s *nullSink }

func (b nullBody) Put(ctx context.Context, _ uint64, blks []blocks.Block) error {
	return b.s.Put(ctx, blks)
}
func (nullBody) Commit(context.Context, cid.Cid) error { return nil }
func (nullBody) Abort()                                {}

// BenchmarkImport imports 256 MiB; BenchmarkHash is the same bytes through sha2-256 alone, on all cores.
func BenchmarkImport(b *testing.B) {
	data := randomBytes(1, 256<<20)
	for _, announced := range []int64{int64(len(data)), -1} {
		b.Run(fmt.Sprintf("body=%v", announced > 0), func(b *testing.B) {
			bld, err := New(Config{Sink: &nullSink{}})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bld.File(context.Background(), bytes.NewReader(data), announced, Meta{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHash(b *testing.B) {
	data := randomBytes(1, 256<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		var wg sync.WaitGroup
		cores := runtime.GOMAXPROCS(0)
		for i := range cores {
			wg.Go(func() {
				for off := i << 20; off < len(data); off += cores << 20 {
					sha256.Sum256(data[off : off+1<<20])
				}
			})
		}
		wg.Wait()
	}
}

// BenchmarkTarSmallFiles imports 10,000 files of 10 KiB.
func BenchmarkTarSmallFiles(b *testing.B) {
	entries := make([]entry, 10_000)
	for i := range entries {
		entries[i] = entry{name: fmt.Sprintf("root/d%d/f%d", i%100, i), kind: '0', data: randomBytes(uint64(i), 10<<10)}
	}
	raw := tarOf(b, entries...)
	bld, err := New(Config{Sink: &nullSink{}})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bld.Tar(context.Background(), bytes.NewReader(raw), TarOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

// BenchmarkMillionNames builds a directory of 1,000,000 names and prints the memory held before it is closed.
func BenchmarkMillionNames(b *testing.B) {
	const n = 1_000_000
	c := cidOf(cid.Raw, []byte("x"))
	for b.Loop() {
		s := &nullSink{}
		bld, err := New(Config{Sink: s})
		if err != nil {
			b.Fatal(err)
		}
		before := heap()
		d := bld.Dir(Meta{})
		for i := range n {
			if err := d.Add(fmt.Sprintf("some-file-name-%07d", i), Link{CID: c, Bytes: 1}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((heap()-before)/1e6, "MB-held")
		if _, err := d.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(s.count), "shards")
	}
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkBoxoHAMT is boxo's own HAMT of 100,000 names, for comparison.
func BenchmarkBoxoHAMT(b *testing.B) {
	names := manyNames(100_000, 8)
	for b.Loop() {
		d, err := uio.NewHAMTDirectory(dagService{s: newMemSink()}, 0, uio.WithCidBuilder(uio.UnixFS_v1_2025.CidBuilder()))
		if err != nil {
			b.Fatal(err)
		}
		node := rawNode(b, 1)
		for _, name := range names {
			if err := d.AddChild(context.Background(), name, node); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := d.GetNode(); err != nil {
			b.Fatal(err)
		}
	}
}
