package exchange

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// routed is a host in a local DHT.
type routed struct {
	host.Host
	routing *Routing
	store   ds.Batching
}

func newRouted(t *testing.T) *routed {
	t.Helper()
	return joinRouted(t, newTestHost(t), dssync.MutexWrap(ds.NewMapDatastore()))
}

func joinRouted(t *testing.T, h host.Host, store ds.Batching) *routed {
	t.Helper()
	r, err := NewRouting(h, RoutingConfig{Datastore: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return &routed{Host: h, routing: r, store: store}
}

func (r *routed) info() peer.AddrInfo { return peer.AddrInfo{ID: r.ID(), Addrs: r.Addrs()} }

// meet connects two nodes and waits until both have the other in their table.
func meet(t *testing.T, a, b *routed) {
	t.Helper()
	before := [2]int{a.routing.Peers(), b.routing.Peers()}
	if err := a.Connect(t.Context(), b.info()); err != nil {
		t.Fatal(err)
	}
	until(t, "the routing tables", func() bool { return a.routing.Peers() > before[0] && b.routing.Peers() > before[1] })
}

func providers(t *testing.T, r *Routing, c cid.Cid, max int) []peer.AddrInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	var out []peer.AddrInfo
	for p := range r.FindProviders(ctx, c, max) {
		out = append(out, p)
	}
	return out
}

func TestRoutingFindsThroughThird(t *testing.T) {
	goroutinesBack(t)
	a, b, c := newRouted(t), newRouted(t), newRouted(t)
	content := testCID(1)
	if err := a.routing.Provide(t.Context(), content); !errors.Is(err, ErrNoPeers) {
		t.Errorf("provided to nobody: %v", err)
	}
	meet(t, a, c)
	meet(t, b, c)
	if err := a.routing.Provide(t.Context(), content); err != nil {
		t.Fatal(err)
	}
	var found []peer.AddrInfo
	until(t, "the record", func() bool {
		found = providers(t, b.routing, content, 5)
		return len(found) > 0
	})
	if len(found) != 1 || found[0].ID != a.ID() {
		t.Fatalf("b finds %v, want %s", found, a.ID())
	}
	if err := b.Connect(t.Context(), found[0]); err != nil {
		t.Errorf("dial what was found: %v", err)
	}
	if self := providers(t, a.routing, content, 5); len(self) != 0 {
		t.Errorf("a finds itself: %v", self)
	}
}

func TestRoutingRecordsSurviveRestart(t *testing.T) {
	goroutinesBack(t)
	a, b, c := newRouted(t), newRouted(t), newRouted(t)
	meet(t, a, c)
	content := testCID(2)
	if err := a.routing.Provide(t.Context(), content); err != nil {
		t.Fatal(err)
	}
	// Telling is not answered, and c would find the provider by asking it: only what c has written shows that it was told.
	until(t, "the record to come", func() bool {
		has, err := c.store.Has(t.Context(), recordKey(content.Hash(), a.ID()))
		return err == nil && has
	})
	if err := c.routing.Close(); err != nil {
		t.Fatal(err)
	}
	again := joinRouted(t, c.Host, c.store)
	// The provider itself is gone; only the record tells of it.
	if err := a.routing.Close(); err != nil {
		t.Fatal(err)
	}
	meet(t, b, again)
	// A query that comes while the restarted node is still being identified finds nobody to ask.
	until(t, "the record of before the restart", func() bool {
		found := providers(t, b.routing, content, 5)
		return len(found) == 1 && found[0].ID == a.ID()
	})
}

func TestRoutingIsBounded(t *testing.T) {
	goroutinesBack(t)
	hub := newRouted(t)
	content := testCID(3)
	for range 4 {
		p := newRouted(t)
		meet(t, p, hub)
		if err := p.routing.Provide(t.Context(), content); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all records", func() bool {
		all, err := hub.routing.dht.(*dht.IpfsDHT).ProviderStore().GetProviders(t.Context(), content.Hash())
		return err == nil && len(all) == 4
	})
	seeker := newRouted(t)
	meet(t, seeker, hub)
	if found := providers(t, seeker.routing, content, 2); len(found) != 2 {
		t.Errorf("found %d providers, want 2", len(found))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range hub.routing.FindProviders(ctx, testCID(4), 5) {
		t.Error("a search that was given up found something")
	}
	if err := seeker.routing.Close(); err != nil {
		t.Fatal(err)
	}
	if found := providers(t, seeker.routing, content, 2); len(found) != 0 {
		t.Errorf("found %v after close", found)
	}
}

func TestFoundCache(t *testing.T) {
	f := newFoundCache(time.Hour)
	f.put(testCID(1), nil)
	f.put(testCID(2), []peer.AddrInfo{{ID: "a"}})
	if len(f.get(testCID(1))) != 0 || len(f.get(testCID(2))) != 1 {
		t.Error("cache keeps what was not found, or loses what was")
	}
	for i := range maxFound + 10 {
		f.put(testCID(i+10), []peer.AddrInfo{{ID: "a"}})
	}
	if n := len(f.found); n > maxFound {
		t.Errorf("cache has %d entries, at most %d are allowed", n, maxFound)
	}
	old := newFoundCache(-time.Second)
	old.put(testCID(1), []peer.AddrInfo{{ID: "a"}})
	if len(old.get(testCID(1))) != 0 {
		t.Error("cache gives what is too old")
	}
}

// applied returns the libp2p configuration that options make, without starting anything.
func applied(t *testing.T, cfg HostConfig) libp2p.Config {
	t.Helper()
	opts, err := hostOptions(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var c libp2p.Config
	if err := c.Apply(opts...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.ConnManager.Close()
		c.ResourceManager.Close()
	})
	return c
}

func TestHostOptions(t *testing.T) {
	local := applied(t, HostConfig{})
	if local.Relay || local.EnableHolePunching || local.NATManager != nil || local.EnableAutoNATv2 ||
		local.AutoNATConfig.EnableService || local.AutoNATConfig.ForceReachability == nil {
		t.Errorf("a local host has something to reach the outside: %+v", local)
	}
	if len(local.Transports) != 1 || len(local.ListenAddrs) != 1 || local.ListenAddrs[0].String() != "/ip4/127.0.0.1/tcp/0" {
		t.Errorf("a local host has %d transports and listens on %v", len(local.Transports), local.ListenAddrs)
	}
	public := applied(t, HostConfig{Network: NetworkIPFS})
	if !public.Relay || !public.EnableHolePunching || public.NATManager == nil || !public.EnableAutoNATv2 ||
		!public.AutoNATConfig.EnableService || public.AutoNATConfig.ForceReachability != nil {
		t.Errorf("a public host lacks something to be reached: %+v", public)
	}
	if len(public.Transports) != 2 || len(public.ListenAddrs) != 4 {
		t.Errorf("a public host has %d transports and listens on %v", len(public.Transports), public.ListenAddrs)
	}
	for name, c := range map[string]libp2p.Config{"local": local, "public": public} {
		if len(c.SecurityTransports) != 2 || c.SecurityTransports[0].ID != "/tls/1.0.0" {
			t.Errorf("%s: tls is not the first of %v", name, c.SecurityTransports)
		}
	}
	if _, err := NewHost(HostConfig{Network: "moon"}); !errors.Is(err, ErrNetwork) {
		t.Errorf("host on no known network: %v", err)
	}
	if _, err := NewRouting(newTestHost(t), RoutingConfig{Network: "moon", Datastore: ds.NewMapDatastore()}); !errors.Is(err, ErrNetwork) {
		t.Errorf("routing on no known network: %v", err)
	}
}
