package exchange

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/dual"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrNoPeers says that an announcement found nobody to keep it.
var ErrNoPeers = errors.New("no peers in the routing table")

// dhtPrefix keeps local nodes apart from the public network.
const dhtPrefix = "/holdfast"

// RoutingConfig says how providers are found. Zero values mean the defaults; Datastore is required.
type RoutingConfig struct {
	Network    string          // NetworkLocal (default) or NetworkIPFS
	Datastore  ds.Batching     // keeps provider records over a restart; the caller closes it after
	Bootstrap  []peer.AddrInfo // dialed while nobody else is known; default: the public ones on NetworkIPFS
	CacheFor   time.Duration   // providers found are given again without asking; default 3 s
	Searches   int             // in parallel, others wait; default 16
	PeerLookup time.Duration   // for the addresses of a provider that came without; default 5 s
	FlushEvery time.Duration   // provider records are durable this long after they came; default 1 s
	Records    int             // provider records of others that are kept; default 1,048,576
	Logger     *slog.Logger    // default: nothing is logged
}

// table is what both kinds of DHT can do.
type table interface {
	FindProvidersAsync(ctx context.Context, c cid.Cid, count int) <-chan peer.AddrInfo
	FindPeer(ctx context.Context, p peer.ID) (peer.AddrInfo, error)
	Provide(ctx context.Context, c cid.Cid, announce bool) error
	Bootstrap(ctx context.Context) error
	Close() error
}

// Routing is the [ProviderMap] over a Kademlia DHT. All methods are safe for concurrent use.
type Routing struct {
	cfg   RoutingConfig
	host  host.Host
	dht   table
	size  func() int // of the routing table
	cache *foundCache
	slots chan struct{} // one for each search that runs
	kept  *recordKeeper

	ctx    context.Context // until Close
	cancel context.CancelFunc

	mu      sync.Mutex // guards closed, and work against Wait
	closed  bool
	work    sync.WaitGroup // searches
	closing sync.Once
}

var _ ProviderMap = (*Routing)(nil)

// NewRouting joins the DHT of a network. The caller closes it before the host.
//
// NetworkLocal is one DHT in server mode that keeps loopback addresses and does not mind that all
// peers share one; NetworkIPFS is the public one and that of the local network, serving when this
// node can be reached.
func NewRouting(h host.Host, cfg RoutingConfig) (*Routing, error) {
	cfg.Network = cmp.Or(cfg.Network, NetworkLocal)
	cfg.CacheFor = cmp.Or(cfg.CacheFor, 3*time.Second)
	cfg.Searches = cmp.Or(cfg.Searches, 16)
	cfg.PeerLookup = cmp.Or(cfg.PeerLookup, 5*time.Second)
	cfg.FlushEvery = cmp.Or(cfg.FlushEvery, time.Second)
	cfg.Records = cmp.Or(cfg.Records, 1<<20)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Datastore == nil {
		return nil, fmt.Errorf("make routing: %w: no datastore", ErrInvalid)
	}
	r := &Routing{
		cfg: cfg, host: h,
		cache: newFoundCache(cfg.CacheFor),
		slots: make(chan struct{}, cfg.Searches),
		kept:  newRecordKeeper(cfg),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if err := r.join(); err != nil {
		r.cancel()
		return nil, fmt.Errorf("join dht: %w", err)
	}
	r.work.Go(func() { r.kept.run(r.ctx) })
	if err := r.dht.Bootstrap(r.ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("bootstrap dht: %w", err), r.Close())
	}
	return r, nil
}

func (r *Routing) join() error {
	switch r.cfg.Network {
	case NetworkLocal:
		d, err := dht.New(r.host, r.localDHT()...)
		if err != nil {
			return err
		}
		r.dht, r.size = d, d.RoutingTable().Size
	case NetworkIPFS:
		d, err := dual.New(r.host, r.publicDHT()...)
		if err != nil {
			return err
		}
		r.dht = d
		r.size = func() int { return d.WAN.RoutingTable().Size() + d.LAN.RoutingTable().Size() }
	default:
		return fmt.Errorf("%w %q", ErrNetwork, r.cfg.Network)
	}
	return nil
}

// localDHT leaves out every filter: the dual DHT's would drop loopback addresses, and the diversity
// filter all but a few peers of one address.
func (r *Routing) localDHT() []dht.Option {
	return append(r.commonDHT(),
		dht.Mode(dht.ModeServer),
		dht.ProtocolPrefix(dhtPrefix),
		dht.DisableValues(),
		dht.BootstrapPeers(r.cfg.Bootstrap...),
	)
}

// publicDHT bootstraps the public half alone: nobody of the local network is known beforehand.
func (r *Routing) publicDHT() []dual.Option {
	bootstrap := r.cfg.Bootstrap
	if len(bootstrap) == 0 {
		bootstrap = dht.GetDefaultBootstrapPeerAddrInfos()
	}
	return []dual.Option{
		dual.DHTOption(append(r.commonDHT(), dht.Mode(dht.ModeAuto))...),
		dual.WanDHTOption(dht.BootstrapPeers(bootstrap...)),
	}
}

func (r *Routing) commonDHT() []dht.Option {
	return []dht.Option{dht.Datastore(r.cfg.Datastore), dht.ProviderDatastore(r.kept), dht.OnRequestHook(r.kept.hook)}
}

// Close leaves the DHT, writes out provider records and waits for searches to end.
func (r *Routing) Close() error {
	r.cancel()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.work.Wait()
	var err error
	r.closing.Do(func() { err = r.dht.Close() })
	if err != nil {
		return fmt.Errorf("close dht: %w", err)
	}
	return nil
}

// Peers returns how many peers the routing table has; with none, Provide fails.
func (r *Routing) Peers() int { return r.size() }

// Provide implements ProviderMap. Its error wraps ErrNoPeers when nobody could be told.
func (r *Routing) Provide(ctx context.Context, c cid.Cid) error {
	if r.size() == 0 {
		return fmt.Errorf("provide %s: %w", c, ErrNoPeers)
	}
	r.kept.note(c.Hash(), r.host.ID())
	if err := r.dht.Provide(ctx, c, true); err != nil {
		return fmt.Errorf("provide %s: %w", c, err)
	}
	return nil
}

// FindProviders implements ProviderMap. This node itself is left out.
func (r *Routing) FindProviders(ctx context.Context, c cid.Cid, max int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || max <= 0 || !c.Defined() {
		close(out)
		return out
	}
	r.work.Go(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(r.ctx, cancel)()
		r.search(ctx, c, max, out)
	})
	return out
}

// search sends providers from the cache, or else from the DHT.
func (r *Routing) search(ctx context.Context, c cid.Cid, max int, out chan<- peer.AddrInfo) {
	if found := r.cache.get(c); len(found) > 0 {
		for _, p := range found[:min(max, len(found))] {
			if !offer(ctx, out, p) {
				return
			}
		}
		return
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var found []peer.AddrInfo
	for p := range r.gather(ctx, c, max) {
		if len(found) == max || !offer(ctx, out, p) {
			continue // until the DHT has closed its channel
		}
		if found = append(found, p); len(found) == max {
			cancel()
		}
	}
	r.cache.put(c, found)
}

// gather asks the DHT and completes what it finds, each provider by itself: one without addresses keeps
// none of the others waiting. The channel has to be read until it is closed.
func (r *Routing) gather(ctx context.Context, c cid.Cid, max int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	r.work.Go(func() {
		defer close(out)
		var lookups sync.WaitGroup
		defer lookups.Wait()
		// One more than asked for: we may be among them.
		for p := range r.dht.FindProvidersAsync(ctx, c, max+1) {
			if p.ID != r.host.ID() {
				lookups.Go(func() { out <- r.withAddrs(ctx, p) })
			}
		}
	})
	return out
}

// withAddrs looks up where a provider is when its record does not say and it is not connected.
func (r *Routing) withAddrs(ctx context.Context, p peer.AddrInfo) peer.AddrInfo {
	p.Addrs = keepAddrs(p.Addrs)
	if len(p.Addrs) > 0 || r.host.Network().Connectedness(p.ID) == network.Connected {
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.PeerLookup)
	defer cancel()
	found, err := r.dht.FindPeer(ctx, p.ID)
	if err != nil {
		r.cfg.Logger.Debug("look up addresses of a provider", "peer", p.ID, "err", err)
		return p
	}
	found.Addrs = keepAddrs(found.Addrs)
	return found
}

// offer sends unless ctx ends first.
func offer(ctx context.Context, out chan<- peer.AddrInfo, p peer.AddrInfo) bool {
	select {
	case out <- p:
		return true
	case <-ctx.Done():
		return false
	}
}
