package exchange

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/dual"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
)

// storedRecords returns the keys of all provider records in a datastore.
func storedRecords(t *testing.T, store ds.Batching) (keys []string) {
	t.Helper()
	all, err := store.Query(t.Context(), query.Query{Prefix: records.ProvidersKeyPrefix, KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	rest, err := all.Rest()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rest {
		keys = append(keys, r.Key)
	}
	slices.Sort(keys)
	return keys
}

// TestRoutingRecordsSurviveAKill: what a peer announced, and what this node did, is in the datastore
// soon, though nothing is closed; a DHT over a copy of it knows the provider.
func TestRoutingRecordsSurviveAKill(t *testing.T) {
	goroutinesBack(t)
	a, c := newRouted(t), newRouted(t)
	meet(t, a, c)
	content := testCID(5)
	if err := a.routing.Provide(t.Context(), content); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*routed{a, c} {
		until(t, "the record to be kept", func() bool { return len(storedRecords(t, r.store)) == 1 })
	}
	left := dssync.MutexWrap(ds.NewMapDatastore())
	for _, k := range storedRecords(t, c.store) {
		v, err := c.store.Get(t.Context(), ds.RawKey(k))
		if err != nil {
			t.Fatal(err)
		}
		if err := left.Put(t.Context(), ds.RawKey(k), v); err != nil {
			t.Fatal(err)
		}
	}
	again := joinRouted(t, newTestHost(t), left)
	known, err := again.routing.dht.(*dht.IpfsDHT).ProviderStore().GetProviders(t.Context(), content.Hash())
	if err != nil || len(known) != 1 || known[0].ID != a.ID() {
		t.Errorf("after a kill the providers are %v, %v", known, err)
	}
}

// TestRoutingRecordsAreBounded: more than so many are not kept, and make room when they are gone.
func TestRoutingRecordsAreBounded(t *testing.T) {
	store := dssync.MutexWrap(ds.NewMapDatastore())
	r := Routing{cfg: RoutingConfig{Datastore: store, Records: 10, Logger: slog.New(slog.DiscardHandler)}}
	k := newRecordKeeper(r.cfg)
	for i := range 3 * maxFreshRecords {
		k.note(testCID(i).Hash(), "p")
	}
	k.note(nil, "p")
	k.note(make([]byte, maxRecordKey+1), "p")
	if len(k.fresh) > maxFreshRecords {
		t.Errorf("%d records wait, at most %d may", len(k.fresh), maxFreshRecords)
	}
	if err := k.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := storedRecords(t, store)
	if len(kept) != 10 {
		t.Fatalf("%d records are kept, want 10", len(kept))
	}
	other := newRecordKeeper(r.cfg)
	other.recount(t.Context())
	b, err := other.Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []func() error{
		func() error { return b.Put(t.Context(), ds.NewKey("/providers/new/1"), nil) },
		func() error { return b.Delete(t.Context(), ds.RawKey(kept[0])) },
		func() error { return b.Put(t.Context(), ds.NewKey("/providers/new/2"), nil) },
		func() error { return b.Commit(t.Context()) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	if now := storedRecords(t, store); len(now) != 10 || slices.Contains(now, "/providers/new/1") || !slices.Contains(now, "/providers/new/2") {
		t.Errorf("kept after one was deleted: %v", now)
	}
}

// noDials is a gater that lets nothing out, and says what was tried.
type noDials struct{ dialed chan peer.ID }

func (g noDials) InterceptPeerDial(p peer.ID) bool { wakeWith(g.dialed, p); return false }
func (g noDials) InterceptAddrDial(p peer.ID, _ ma.Multiaddr) bool {
	wakeWith(g.dialed, p)
	return false
}
func (noDials) InterceptAccept(network.ConnMultiaddrs) bool { return true }
func (noDials) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (noDials) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func wakeWith(ch chan peer.ID, p peer.ID) {
	select {
	case ch <- p:
	default:
	}
}

// TestPublicRouting: how the public network is joined, on a host that can reach nobody.
func TestPublicRouting(t *testing.T) {
	goroutinesBack(t)
	gate := noDials{make(chan peer.ID, 1)}
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.ConnectionGater(gate), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	store := dssync.MutexWrap(ds.NewMapDatastore())
	// The one bootstrap peer is the host itself, so that the public ones are not used.
	r, err := NewRouting(h, RoutingConfig{Network: NetworkIPFS, Datastore: store, Bootstrap: []peer.AddrInfo{{ID: h.ID()}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	both := r.dht.(*dual.DHT)
	if both.WAN.Mode() != dht.ModeAuto || both.LAN.Mode() != dht.ModeServer {
		t.Errorf("modes %v and %v", both.WAN.Mode(), both.LAN.Mode())
	}
	speaks := func(p protocol.ID) bool { return slices.Contains(h.Mux().Protocols(), p) }
	if !speaks("/ipfs/lan/kad/1.0.0") || speaks("/ipfs/kad/1.0.0") || speaks(dhtPrefix+"/kad/1.0.0") {
		t.Errorf("protocols before anything is known: %v", h.Mux().Protocols())
	}
	reach, err := h.EventBus().Emitter(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer reach.Close()
	if err := reach.Emit(event.EvtLocalReachabilityChanged{Reachability: network.ReachabilityPublic}); err != nil {
		t.Fatal(err)
	}
	until(t, "the public DHT to be served", func() bool { return speaks("/ipfs/kad/1.0.0") })
	if err := r.Provide(t.Context(), testCID(1)); r.Peers() != 0 || err == nil {
		t.Errorf("%d peers are known, provided with %v", r.Peers(), err)
	}
	if found := providers(t, r, testCID(1), 3); len(found) != 0 {
		t.Errorf("found %v", found)
	}
	info := peer.AddrInfo{ID: "provider", Addrs: []ma.Multiaddr{ma.StringCast("/ip4/1.2.3.4/tcp/1")}}
	for _, d := range []*dht.IpfsDHT{both.WAN, both.LAN} {
		if err := d.ProviderStore().AddProvider(t.Context(), testCID(2).Hash(), info); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(storedRecords(t, store)); n != 1 {
		t.Errorf("%d records are stored, want 1", n)
	}
	select {
	case p := <-gate.dialed:
		t.Errorf("%s was dialed", p)
	default:
	}
}

// slowTable is a DHT that finds a provider without addresses first, and never where it is.
type slowTable struct{ found []peer.AddrInfo }

func (s slowTable) FindProvidersAsync(context.Context, cid.Cid, int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, len(s.found))
	for _, p := range s.found {
		out <- p
	}
	close(out)
	return out
}

func (slowTable) FindPeer(ctx context.Context, _ peer.ID) (peer.AddrInfo, error) {
	<-ctx.Done()
	return peer.AddrInfo{}, ctx.Err()
}

func (slowTable) Provide(context.Context, cid.Cid, bool) error { return nil }
func (slowTable) Bootstrap(context.Context) error              { return nil }
func (slowTable) Close() error                                 { return nil }

// TestRoutingProviderWithoutAddresses: its lookup keeps the others not waiting, and it comes all the
// same in the end.
func TestRoutingProviderWithoutAddresses(t *testing.T) {
	goroutinesBack(t)
	r := newRouted(t).routing
	if err := r.dht.Close(); err != nil {
		t.Fatal(err)
	}
	at := []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1")}
	r.dht = slowTable{[]peer.AddrInfo{{ID: "nowhere"}, {ID: r.host.ID(), Addrs: at}, {ID: "there", Addrs: at}}}
	r.cfg.PeerLookup = hang
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	found := r.FindProviders(ctx, testCID(1), 5)
	if p := <-found; p.ID != "there" {
		t.Errorf("found %v first", p)
	}
	cancel()
	for p := range found {
		if p.ID != "nowhere" {
			t.Errorf("found %v", p)
		}
	}
}
