package node

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

const (
	// maxCandidates is how many providers one search in the DHT brings.
	maxCandidates = 256
	// searchFor is the longest that such a search may take.
	searchFor = 20 * time.Second
	// addressesFor is how long what the DHT says about addresses is believed.
	addressesFor = time.Hour
	// shardPatience is how long a shard that is not here is waited for.
	shardPatience = time.Minute
	// shardPoll is how often it is looked for here meanwhile.
	shardPoll = time.Second
)

// shards reads what is to be stored, from the local store or from peers.
type shards struct{ n *Node }

// ReadShard implements uploader.Chunks. The store's blocks have checksums, and those of peers are compared with their
// CIDs as they come.
func (s shards) ReadShard(ctx context.Context, c cid.Cid) (bytes []byte, checked bool, err error) {
	b, err := (&served{store: s.n.store}).Get(ctx, c)
	if errors.Is(err, exchange.ErrNotFound) {
		ctx, cancel := context.WithTimeoutCause(ctx, shardPatience, fmt.Errorf("shard %s: %w", c, exchange.ErrNotFound))
		defer cancel()
		b, err = s.fetch(ctx, c)
	}
	if err != nil {
		return nil, false, err
	}
	return b.RawData(), true, nil
}

// fetch asks peers for a shard, and looks now and then whether it has come here otherwise: out of a staging tree.
func (s shards) fetch(ctx context.Context, c cid.Cid) (b blocks.Block, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fetched := make(chan struct{})
	go func() {
		defer close(fetched)
		b, err = s.n.exchange.Fetch(ctx, exchange.Want{CID: c})
	}()
	tick := time.NewTicker(shardPoll)
	defer tick.Stop()
	for {
		select {
		case <-fetched:
			return b, err
		case <-tick.C:
			if here, herr := (&served{store: s.n.store}).Get(ctx, c); herr == nil {
				cancel()
				<-fetched
				return here, nil
			}
		}
	}
}

// storageStreams opens streams to providers.
type storageStreams struct{ n *Node }

// Open implements uploader.Providers.
func (s storageStreams) Open(ctx context.Context, p peer.ID) (uploader.Stream, error) {
	stream, err := s.n.host.NewStream(ctx, p, seal.ProtocolID)
	if err != nil {
		return nil, err
	}
	return stream, nil
}

// candidates finds providers: those that are announced, and connected peers that speak the protocol.
type candidates struct{ n *Node }

// Find implements uploader.Candidates.
func (c candidates) Find(ctx context.Context) ([]uploader.Candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, searchFor)
	defer cancel()
	c.awaitRouting(ctx)
	found := make(map[peer.ID][]ma.Multiaddr)
	for info := range c.n.routing.FindProviders(ctx, rendezvous, maxCandidates) {
		c.n.host.Peerstore().AddAddrs(info.ID, info.Addrs, addressesFor)
		found[info.ID] = info.Addrs
	}
	for _, p := range c.n.host.Network().Peers() {
		if known, err := c.n.host.Peerstore().SupportsProtocols(p, seal.ProtocolID); err == nil && len(known) > 0 && found[p] == nil {
			found[p] = c.n.host.Peerstore().Addrs(p)
		}
	}
	delete(found, c.n.host.ID())
	var out []uploader.Candidate
	for p, addrs := range found {
		out = append(out, c.candidate(p, addrs))
	}
	return out, nil
}

// routingPoll is how often a search that came before the node knew anybody looks again.
const routingPoll = 100 * time.Millisecond

// awaitRouting returns when there is somebody to ask, or ctx has ended.
func (c candidates) awaitRouting(ctx context.Context) {
	for c.n.routing.Peers() == 0 && len(c.n.host.Network().Peers()) == 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(routingPoll):
		}
	}
}

// candidate is a provider with the networks that it lies in. Where it is connected is what counts; what it or others
// say of its addresses comes on top.
func (c candidates) candidate(p peer.ID, addrs []ma.Multiaddr) uploader.Candidate {
	var all []ma.Multiaddr
	for _, conn := range c.n.host.Network().ConnsToPeer(p) {
		all = append(all, conn.RemoteMultiaddr())
	}
	return uploader.Candidate{ID: p, Networks: networksOf(append(all, addrs...))}
}

// networksOf names the networks that addresses lie in.
func networksOf(addrs []ma.Multiaddr) (names []string) {
	seen := make(map[string]bool)
	for _, a := range addrs {
		ip, err := manet.ToIP(a)
		if err != nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip)
		if name := uploader.NetworkOf(addr.Unmap()); ok && name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// networkOptions are the values of the setting networks.
var networkOptions = map[string]uploader.Networks{
	"prefer": uploader.NetworksPrefer, "strict": uploader.NetworksStrict, "ignore": uploader.NetworksIgnore,
}

// openUploader opens the writer's end of storage links.
func (n *Node) openUploader() error {
	s, r := n.cfg.Settings, n.cfg.Repo
	raw, err := r.Key.Raw()
	if err != nil {
		return fmt.Errorf("derive the sealing secret: %w", err)
	}
	secret, err := hkdf.Key(sha256.New, raw, nil, "holdfast/sealing-secret/1", 32)
	if err != nil {
		return fmt.Errorf("derive the sealing secret: %w", err)
	}
	n.uploader, err = uploader.Open(uploader.Config{DB: r.DB, Prefix: repo.PrefixUploads, Self: n.host.ID(), Secret: secret,
		Chunks: shards{n}, Providers: storageStreams{n}, Candidates: candidates{n}, Payments: n.wallet.storage,
		MaxPricePerGiBDay: s.MaxStoragePrice, Deposit: s.Deposit, AuditInterval: s.AuditInterval, VanishAfter: s.VanishAfter,
		Networks: networkOptions[s.Networks], Regions: s.Regions, Logger: n.log})
	if err != nil {
		return fmt.Errorf("open uploads: %w", err)
	}
	return nil
}

// watchProviders tells the uploader of providers that have come, and peers that are gone, until ctx ends.
func (n *Node) watchProviders(ctx context.Context) error {
	sub, err := n.host.EventBus().Subscribe([]any{new(event.EvtPeerConnectednessChanged), new(event.EvtPeerIdentificationCompleted)},
		eventbus.BufSize(256), eventbus.Name("holdfast/uploads"))
	if err != nil {
		return fmt.Errorf("watch providers: %w", err)
	}
	defer sub.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-sub.Out():
			if !ok {
				return nil
			}
			if err := n.peerChanged(ctx, e); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

func (n *Node) peerChanged(ctx context.Context, e any) error {
	switch e := e.(type) {
	case event.EvtPeerConnectednessChanged:
		if e.Connectedness == network.NotConnected {
			return n.uploader.PeerGone(ctx, e.Peer)
		}
	case event.EvtPeerIdentificationCompleted:
		if slices.Contains(e.Protocols, seal.ProtocolID) {
			return n.uploader.Offer(ctx, []uploader.Candidate{candidates{n}.candidate(e.Peer, e.ListenAddrs)})
		}
	}
	return nil
}
