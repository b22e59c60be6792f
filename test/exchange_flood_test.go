package test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// floodPeers of each kind flood at the same time.
const floodPeers = 3

// flood sends a node one kind of what no honest peer sends, until so many bytes have left. When the node throws
// it out it comes back as another peer.
type flood struct {
	name     string
	to       peer.AddrInfo
	protocol protocol.ID
	attack   func(*flood, host.Host)
	payloads [][]byte // what attacks send over and over
	left     atomic.Int64
	peers    atomic.Int64 // that it has been
	ctx      context.Context
}

// run floods until nothing is left.
func (f *flood) run() error {
	for f.left.Load() > 0 && f.ctx.Err() == nil {
		if err := f.once(); err != nil {
			return err
		}
	}
	return nil
}

// once floods as one peer, as long as it is let.
func (f *flood) once() error {
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery())
	if err != nil {
		return err
	}
	defer h.Close()
	for _, p := range append([]protocol.ID{holdfastProtocol}, bitswapProtocols...) {
		h.SetStreamHandler(p, f.swallow)
	}
	if h.Connect(f.ctx, f.to) == nil {
		f.peers.Add(1)
		f.attack(f, h)
	}
	return nil
}

// swallow reads what the node answers.
func (f *flood) swallow(s network.Stream) {
	defer s.Reset()
	stop := context.AfterFunc(f.ctx, func() { s.Reset() })
	defer stop()
	b := make([]byte, 64<<10)
	for {
		if _, err := s.Read(b); err != nil {
			return
		}
	}
}

// write spends of what is left. False says that there is no more, or that the node takes no more of this peer.
func (f *flood) write(s network.Stream, b []byte) bool {
	if f.left.Add(-int64(len(b))) < 0 {
		return false
	}
	_, err := s.Write(b)
	return err == nil
}

// pour sends the payloads over one stream again and again.
func pour(f *flood, h host.Host) {
	s, err := h.NewStream(f.ctx, f.to.ID, f.protocol)
	if err != nil {
		return
	}
	defer s.Reset()
	stop := context.AfterFunc(f.ctx, func() { s.Reset() })
	defer stop()
	for i := 0; f.write(s, f.payloads[i%len(f.payloads)]); i++ {
	}
}

// crowd opens stream after stream, sends a part of a message over each, and leaves all of them open until the
// last one is refused.
func crowd(f *flood, h host.Host) {
	var last network.Stream
	for i := range 400 {
		s, err := h.NewStream(f.ctx, f.to.ID, f.protocol)
		if err != nil {
			return
		}
		if b := f.payloads[i%len(f.payloads)]; !f.write(s, b[:len(b)/2]) {
			return
		}
		last = s
	}
	f.swallow(last)
}

// flooded is a node under floods of every kind.
type flooded struct {
	*testing.T
	node   *swarm.Node
	floods []*flood
	cancel context.CancelFunc
	work   sync.WaitGroup
	on     atomic.Int64 // floods that have not ended
	most   int64        // RssAnon
}

// newFlooded begins every kind of flood, of so many bytes together.
func newFlooded(t *testing.T, n *swarm.Node, bytes int64) *flooded {
	t.Helper()
	addr, err := ma.NewMultiaddr(n.Identity().Addresses[0])
	must(t, err)
	to, err := peer.AddrInfoFromP2pAddr(addr)
	must(t, err)
	d := &flooded{T: t, node: n}
	var ctx context.Context
	ctx, d.cancel = context.WithCancel(t.Context())
	for _, k := range floodKinds(t) {
		f := &flood{name: k.name, to: *to, protocol: k.protocol, attack: k.attack, payloads: k.payloads, ctx: ctx}
		f.left.Store(bytes / int64(len(floodKinds(t))))
		d.floods = append(d.floods, f)
	}
	for _, f := range d.floods {
		for range floodPeers {
			d.on.Add(1)
			d.work.Go(func() {
				defer d.on.Add(-1)
				if err := f.run(); err != nil {
					t.Errorf("%s: %v", f.name, err)
				}
			})
		}
	}
	t.Cleanup(func() { d.cancel(); d.work.Wait() })
	return d
}

// begun says whether every kind has spent some of its bytes.
func (d *flooded) begun(bytes int64) bool {
	for _, f := range d.floods {
		if f.left.Load() > bytes/int64(len(d.floods))*7/8 {
			return false
		}
	}
	return true
}

// look checks what the node uses now.
func (d *flooded) look() {
	d.Helper()
	d.most = max(d.most, d.node.RssAnon())
	for _, l := range d.node.Limits() {
		most := l.Limit
		if l.Name == "serve-credit-bytes" {
			most += 2 << 20 // the block that goes over it is given
		}
		if l.Limit > 0 && l.Used > most {
			d.Errorf("%d of %s are in use, the limit is %d", l.Used, l.Name, l.Limit)
		}
	}
}

// TestFloods lets peers send giant want lists, blocks and presences nobody asked for, parts of messages over
// hundreds of streams, messages that are too long or none at all, and payments that are worth nothing. The node
// serves an honest peer meanwhile, stays small, and forgets it all.
func TestFloods(t *testing.T) {
	s := swarm.New(t)
	a, b := s.Start("a", "--price", "100"), s.Start("b", "--max-price", "100", "--budget", "1000000")
	file := s.RandomFile(48<<20, 3, "file")
	root := a.Add(file)
	b.Connect(a)
	a.Must("status")
	routines, files := a.Figure(goroutines), a.OpenFiles()

	d := newFlooded(t, a, floodBytes)
	s.Eventually("every flood has begun", func() bool { d.look(); return d.begun(floodBytes) })
	get := s.Spawn(b.Command("get", root, "-o", s.Path("out")))
	s.Eventually("the honest peer is served", func() bool { d.look(); return !get.Running() })
	if code := get.Wait(patience); code != 0 {
		t.Fatalf("get ended with code %d: %s", code, get.Err())
	}
	s.MustSh(`cmp "$1" "$2"`, file, s.Path("out"))
	t.Logf("%d of %d floods were on when the honest peer had everything", d.on.Load(), floodPeers*len(d.floods))
	s.Eventually("the floods have ended", func() bool { d.look(); return d.on.Load() == 0 })
	for _, f := range d.floods {
		t.Logf("%s: sent by %d peers", f.name, f.peers.Load())
		if f.left.Load() > 0 {
			t.Errorf("%s: %d bytes were not sent", f.name, f.left.Load())
		}
	}
	x := a.Status()["exchange"].(map[string]any)
	for _, figure := range []string{"unasked_blocks", "malformed_messages", "refused_streams", "overflowed_wants", "bans"} {
		if n, _ := x[figure].(float64); n == 0 {
			t.Errorf("nothing of the floods is seen in %s", figure)
		}
	}
	if n := a.Figure("money.refused_payments"); n == 0 {
		t.Error("no payment was refused")
	}
	log, bans, peers := len(a.Log()), a.Figure("exchange.bans"), int64(0)
	for _, f := range d.floods {
		peers += f.peers.Load()
	}
	t.Logf("RssAnon of A at most %d MiB, %d kB of log, %d of %d peers banned", d.most>>20, log>>10, bans, peers)
	if d.most > 400<<20 {
		t.Errorf("floods grew the node to %d MiB", d.most>>20)
	}
	if most := 1000*peers + 10_000; int64(log) > most {
		t.Errorf("%d peers made the node write %d bytes of log", peers, log)
	}
	s.Eventually("goroutines and files are about what they were", func() bool {
		return a.Figure(goroutines) <= routines+40 && a.OpenFiles() <= files+12
	})
	refused(t, a, 1, []string{"nobody"}, "cat", missingCID(9).String(), "--timeout", "1s")
}
