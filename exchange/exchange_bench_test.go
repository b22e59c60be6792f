package exchange

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/peer"
)

// dropStore is a store that keeps nothing.
type dropStore struct{ simStore }

func (s *dropStore) Put(context.Context, []Arrival) error { return nil }

// benchExchange runs an exchange that is connected over loopback to a node that has the blocks.
func benchExchange(b *testing.B, store Store, has []blocks.Block) *Exchange {
	b.Helper()
	from, to := newTestHost(b), newTestHost(b)
	src := startNode(b, from, NetworkConfig{}, ServeConfig{})
	src.store.add(has...)
	net, err := NewHostNetwork(NetworkConfig{Host: to})
	if err != nil {
		b.Fatal(err)
	}
	x, err := New(Config{Network: net, Providers: newSimNet(), Store: store, Links: simLinks})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	if err := to.Connect(ctx, peer.AddrInfo{ID: from.ID(), Addrs: from.Addrs()}); err != nil {
		b.Fatal(err)
	}
	until(b, "the peer", func() bool { return x.Stats().Peers == 1 })
	return x
}

// benchFetch fetches b.N blocks of n bytes with so many readers, over loopback.
func benchFetch(b *testing.B, n, distinct, readers int) {
	var has []blocks.Block
	for i := range distinct {
		has = append(has, leaf(i, n))
	}
	x := benchExchange(b, &dropStore{}, has)
	dataset := has[0].Cid()
	var next atomic.Int64
	var group sync.WaitGroup
	b.SetBytes(int64(n))
	b.ResetTimer()
	for range readers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
				if _, err := x.Fetch(b.Context(), Want{CID: has[i%distinct].Cid(), Dataset: dataset}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}

func BenchmarkFetchMiB(b *testing.B)       { benchFetch(b, mib, 64, 32) }
func BenchmarkFetch10KiB(b *testing.B)     { benchFetch(b, 10*kib, 4096, 1000) }
func BenchmarkFetchSerialMiB(b *testing.B) { benchFetch(b, mib, 64, 1) }

// benchDownload downloads a DAG over and over, over loopback.
func benchDownload(b *testing.B, leaves, n int) {
	root, all := tree(leaves, n, 1000)
	store := &simStore{}
	x := benchExchange(b, store, all)
	total := 0
	for _, x := range all {
		total += len(x.RawData())
	}
	b.SetBytes(int64(total))
	for b.Loop() {
		*store = *newSimStore()
		d, err := x.Download(b.Context(), Want{CID: root.Cid()}, DownloadOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(all)*b.N)/b.Elapsed().Seconds(), "blocks/s")
}

func BenchmarkDownloadMiB(b *testing.B)   { benchDownload(b, 256, mib) }
func BenchmarkDownload10KiB(b *testing.B) { benchDownload(b, 20000, 10*kib) }
func BenchmarkDownload100B(b *testing.B)  { benchDownload(b, 50000, 100) }

// BenchmarkFirstByte fetches the root and then the first leaf of a file of 1 GiB from a peer that was
// never asked for anything: round trips alone, no timer.
func BenchmarkFirstByte(b *testing.B) {
	root, first := leaf(1, 50*kib), leaf(2, mib)
	b.StopTimer()
	for range b.N {
		x := benchExchange(b, newSimStore(), []blocks.Block{root, first})
		b.StartTimer()
		for _, want := range []blocks.Block{root, first} {
			if _, err := x.Fetch(b.Context(), Want{CID: want.Cid(), Dataset: root.Cid()}); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
	}
}
