package exchange

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// The protocols spoken, best first. All carry the same message; version 1.1 has no presences.
const (
	ProtocolHoldfast  protocol.ID = "/holdfast/exchange/1.0.0"
	ProtocolBitswap12 protocol.ID = "/ipfs/bitswap/1.2.0"
	ProtocolBitswap11 protocol.ID = "/ipfs/bitswap/1.1.0"
)

var allProtocols = []protocol.ID{ProtocolHoldfast, ProtocolBitswap12, ProtocolBitswap11}

// protectTag marks the connections of session peers for the connection manager.
const protectTag = "holdfast-exchange"

var (
	errNotConnected = errors.New("peer is not connected")
	errQueueFull    = errors.New("too many changes of the want list wait to be sent")
)

// NetworkConfig says whom a [HostNetwork] talks to and what it may hold. Zero values mean the
// defaults; Host is required.
type NetworkConfig struct {
	Host           host.Host
	Protocols      []protocol.ID // spoken, best first; default all three
	Serve          ServeConfig   // what peers are answered; without a Store nothing
	MessageTimeout time.Duration // for every 256 KiB of a message, either way; default 20 s
	DialTimeout    time.Duration // default 15 s
	RetryDelay     time.Duration // before the n-th new stream, times n; default 100 ms
	StreamsPerPeer int           // incoming, idle ones among them; default 256
	PeerBytes      int           // taken by messages in hand, a peer; default 8 MiB
	SharedBytes    int           // the same for all peers that no session uses; default 32 MiB

	// Owed returns payments that a peer which has come is sent again; nil is none. It must not wait long.
	Owed func(ctx context.Context, p peer.ID) ([][]byte, error)

	Logger *slog.Logger // default: nothing is logged
}

func (c NetworkConfig) withDefaults() NetworkConfig {
	if len(c.Protocols) == 0 {
		c.Protocols = allProtocols
	}
	c.MessageTimeout = cmp.Or(c.MessageTimeout, 20*time.Second)
	c.DialTimeout = cmp.Or(c.DialTimeout, 15*time.Second)
	c.RetryDelay = cmp.Or(c.RetryDelay, 100*time.Millisecond)
	c.StreamsPerPeer = cmp.Or(c.StreamsPerPeer, 256)
	c.PeerBytes = max(mostHeld, cmp.Or(c.PeerBytes, 8<<20))
	c.SharedBytes = max(mostHeld, cmp.Or(c.SharedBytes, 32<<20))
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Serve.Logger = cmp.Or(c.Serve.Logger, c.Logger)
	return c
}

// HostNetwork is the [Network] over a libp2p host, and the server that answers the want lists of
// peers. A peer has two streams of ours, opened when they are first needed and kept: one for changes
// of our want list, one for answers to its own. So wants never wait behind blocks.
//
// What Start starts ends with its context; Wait returns when all of it has. All methods are safe
// for concurrent use.
type HostNetwork struct {
	cfg    NetworkConfig
	host   host.Host
	server *server // nil without a store
	counts wireCounts
	shared *byteBudget // for messages of peers that no session uses

	ctx     context.Context // of Start
	handler Handler
	work    sync.WaitGroup // every goroutine and every stream handler

	dirty chan struct{} // has room for one: reports are due

	newcomers atomic.Uint64 // peers that became able to tell of manifests

	mu      sync.Mutex // guards all below
	stopped bool
	peers   map[peer.ID]*remote
	asks    map[cid.Cid][]*manifestAsk
	changed map[peer.ID]struct{} // whose standing may differ from what the handler was told
	inUse   map[peer.ID]struct{} // protected by a session
}

var _ Network = (*HostNetwork)(nil)

// NewHostNetwork makes a network. It does nothing until Start is called.
func NewHostNetwork(cfg NetworkConfig) (*HostNetwork, error) {
	if cfg.Host == nil {
		return nil, fmt.Errorf("make network: %w: no host", ErrInvalid)
	}
	cfg = cfg.withDefaults()
	n := &HostNetwork{
		cfg:     cfg,
		host:    cfg.Host,
		shared:  newByteBudget(cfg.SharedBytes),
		dirty:   make(chan struct{}, 1),
		peers:   make(map[peer.ID]*remote),
		changed: make(map[peer.ID]struct{}),
		inUse:   make(map[peer.ID]struct{}),
		asks:    make(map[cid.Cid][]*manifestAsk),
	}
	if cfg.Serve.Store != nil {
		n.server = newServer(cfg.Serve)
	}
	return n, nil
}

// Start implements Network. It may be called once.
func (n *HostNetwork) Start(ctx context.Context, h Handler) error {
	events, err := n.subscribe()
	if err != nil {
		return fmt.Errorf("start network: %w", err)
	}
	n.mu.Lock()
	n.ctx, n.handler = ctx, h
	n.mu.Unlock()
	if n.server != nil {
		n.work.Go(func() { n.server.run(ctx) })
	}
	for _, p := range n.cfg.Protocols {
		n.host.SetStreamHandler(p, n.incoming)
	}
	n.work.Go(func() { n.watch(events) })
	n.work.Go(n.report)
	for _, p := range n.host.Network().Peers() {
		n.look(p)
	}
	return nil
}

// Wait returns when the context of Start has ended and everything that it started is done; at once
// when nothing was started.
func (n *HostNetwork) Wait() {
	n.mu.Lock()
	ctx := n.ctx
	n.mu.Unlock()
	if ctx != nil {
		<-ctx.Done()
		n.work.Wait()
	}
}

// NotifyNewBlocks answers peers that wait for blocks which have come into the store since they
// asked. Whoever writes to the store calls it; it does not block.
func (n *HostNetwork) NotifyNewBlocks(cids ...cid.Cid) {
	if n.server != nil {
		n.server.notifyNewBlocks(cids)
	}
}

// stop ends all peers; it runs when the context has ended.
func (n *HostNetwork) stop() {
	for _, p := range n.cfg.Protocols {
		n.host.RemoveStreamHandler(p)
	}
	n.mu.Lock()
	n.stopped = true
	peers := n.peers
	n.peers = make(map[peer.ID]*remote)
	n.mu.Unlock()
	for _, r := range peers {
		n.work.Go(r.close) // a reset may wait for a connection that is stuck
	}
}

// Send implements Network. Entries for a peer that is gone are dropped: PeerGone says so.
func (n *HostNetwork) Send(p peer.ID, entries []Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.peers[p]; r != nil {
		r.wants.add(entries)
		r.startLocked(&r.wantsOn, r.sendWants)
	}
}

// Pay sends payments to a peer, as its Till takes them. Those for a peer that is gone, or speaks no protocol that
// carries payments, are dropped: whoever pays sends its last ones again when the peer is back.
func (n *HostNetwork) Pay(p peer.ID, vouchers [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.peers[p]; r != nil && len(vouchers) > 0 {
		r.wants.pay(vouchers)
		r.startLocked(&r.wantsOn, r.sendWants)
	}
}

// Dial implements Network.
func (n *HostNetwork) Dial(ctx context.Context, p peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.DialTimeout)
	defer cancel()
	if err := n.host.Connect(ctx, p); err != nil {
		return fmt.Errorf("dial %s: %w", p.ID, err)
	}
	return nil
}

// Disconnect implements Network.
func (n *HostNetwork) Disconnect(p peer.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return
	}
	n.work.Go(func() {
		if err := n.host.Network().ClosePeer(p); err != nil {
			n.cfg.Logger.Debug("close connections", "peer", p, "err", err)
		}
	})
}

// Protect implements Network.
func (n *HostNetwork) Protect(p peer.ID, on bool) {
	n.mu.Lock()
	if on {
		n.inUse[p] = struct{}{}
	} else {
		delete(n.inUse, p)
	}
	if r := n.peers[p]; r != nil {
		r.inUse.Store(on)
	}
	n.mu.Unlock()
	if on {
		n.host.ConnManager().Protect(p, protectTag)
	} else {
		n.host.ConnManager().Unprotect(p, protectTag)
	}
}

// hasPresences reports whether a protocol knows have and dont-have.
func hasPresences(p protocol.ID) bool { return p != ProtocolBitswap11 }

// connected reports whether a peer has a connection that blocks may go over; relayed ones are not
// meant for bulk.
func (n *HostNetwork) connected(p peer.ID) bool {
	return n.host.Network().Connectedness(p) == network.Connected
}
