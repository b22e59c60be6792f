package exchange

import (
	"context"
	"io"
	"sync"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

// benchPair returns two connected hosts on loopback: TCP, TLS, yamux.
func benchPair(b *testing.B) (host.Host, host.Host) {
	b.Helper()
	x, y := newTestHost(b), newTestHost(b)
	y.Peerstore().AddAddrs(x.ID(), x.Addrs(), peerstore.PermanentAddrTTL)
	if err := y.Connect(b.Context(), peer.AddrInfo{ID: x.ID(), Addrs: x.Addrs()}); err != nil {
		b.Fatal(err)
	}
	return x, y
}

// BenchmarkRawStream is the line that serving is held against: one stream, 1 MiB writes, nothing
// done with what comes.
func BenchmarkRawStream(b *testing.B) {
	x, y := benchPair(b)
	x.SetStreamHandler("/bench", func(s network.Stream) {
		data := make([]byte, 1<<20)
		for {
			if _, err := s.Write(data); err != nil {
				_ = s.Reset()
				return
			}
		}
	})
	s, err := y.NewStream(b.Context(), x.ID(), "/bench")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Write(nil); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := io.ReadFull(s, buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = s.Reset()
}

// benchClient wants blocks over and over, with a window of wants open.
type benchClient struct {
	recorder
	got chan int
}

// Received implements Handler.
func (c *benchClient) Received(ctx context.Context, _ peer.ID, m Incoming) {
	select {
	case c.got <- len(m.Blocks):
	case <-ctx.Done():
	}
}

// benchServe fetches b.N blocks of n bytes, window of them asked for at a time.
func benchServe(b *testing.B, n, distinct, window int) {
	x, y := benchPair(b)
	src := startNode(b, x, NetworkConfig{}, ServeConfig{})
	var bs []blocks.Block
	for range distinct {
		bs = append(bs, rawBlockOf(b, n))
	}
	src.store.add(bs...)
	client := &benchClient{recorder: *newRecorder(), got: make(chan int, 64)}
	net, err := NewHostNetwork(NetworkConfig{Host: y})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := net.Start(ctx, client); err != nil {
		b.Fatal(err)
	}
	defer sync.OnceFunc(func() { cancel(); net.Wait() })()
	until(b, "the peer", func() bool { client.mu.Lock(); defer client.mu.Unlock(); return len(client.peers) == 1 })

	b.SetBytes(int64(n))
	asked, have, turn := 0, 0, 0
	b.ResetTimer()
	for have < b.N {
		if free := window - (asked - have); free >= max(1, window/4) && asked < b.N {
			var es []Entry
			for range min(free, b.N-asked) {
				es = append(es, Entry{CID: bs[turn%distinct].Cid(), Kind: WantBlock})
				turn++
			}
			asked += len(es)
			net.Send(x.ID(), es)
		}
		have += <-client.got
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}

func BenchmarkServeMiB(b *testing.B)       { benchServe(b, 1<<20, 64, 16) }
func BenchmarkServe10KiB(b *testing.B)     { benchServe(b, 10<<10, 4096, 1000) }
func BenchmarkServe256KiB(b *testing.B)    { benchServe(b, 256<<10, 256, 64) }
func BenchmarkServeSerialMiB(b *testing.B) { benchServe(b, 1<<20, 64, 1) }
