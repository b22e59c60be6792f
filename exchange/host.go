package exchange

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	yamuxmux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

// The networks a node can belong to.
const (
	NetworkLocal = "local" // this machine: loopback, no discovery but our own
	NetworkIPFS  = "ipfs"  // the public network
)

// ErrNetwork says that a network is neither local nor ipfs.
var ErrNetwork = errors.New("unknown network")

// userAgent is what identify tells other peers.
const userAgent = "holdfast"

// HostConfig says how a node meets others. Zero values mean the defaults.
type HostConfig struct {
	Network   string         // NetworkLocal (default) or NetworkIPFS
	Listen    []ma.Multiaddr // default: a free port on 127.0.0.1, or port 4001 on all interfaces
	Key       crypto.PrivKey // identity; default: a new one
	QUIC      bool           // also QUIC on NetworkLocal, which is slower than TCP on loopback
	LowPeers  int            // connections above which idle ones may be closed; default 96
	HighPeers int            // connections above which they are; default 192
	// MemoryBytes bounds what libp2p buffers for all connections; default 256 MiB.
	MemoryBytes int64
}

// NewHost makes the libp2p host of a node, listening. The caller closes it.
//
// TLS comes before Noise and TCP before QUIC, as measured on loopback. NetworkLocal has no relay,
// no NAT mapping, no reachability probes and no local discovery.
func NewHost(cfg HostConfig) (host.Host, error) {
	opts, err := hostOptions(cfg)
	if err != nil {
		return nil, fmt.Errorf("configure host: %w", err)
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("start host: %w", err)
	}
	return h, nil
}

// hostOptions turns a configuration into libp2p's.
func hostOptions(cfg HostConfig) ([]libp2p.Option, error) {
	shared, err := sharedOptions(cfg)
	if err != nil {
		return nil, err
	}
	switch cmp.Or(cfg.Network, NetworkLocal) {
	case NetworkLocal:
		return append(shared, localOptions(cfg)...), nil
	case NetworkIPFS:
		return append(shared, publicOptions(cfg)...), nil
	}
	return nil, fmt.Errorf("%w %q", ErrNetwork, cfg.Network)
}

// sharedOptions hold for every network.
func sharedOptions(cfg HostConfig) ([]libp2p.Option, error) {
	low := cmp.Or(cfg.LowPeers, 96)
	high := max(low, cmp.Or(cfg.HighPeers, 192))
	conns, err := connmgr.NewConnManager(low, high, connmgr.WithGracePeriod(30*time.Second))
	if err != nil {
		return nil, fmt.Errorf("make connection manager: %w", err)
	}
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(hostLimits(high, cmp.Or(cfg.MemoryBytes, 256<<20))))
	if err != nil {
		return nil, fmt.Errorf("make resource manager: %w", err)
	}
	opts := []libp2p.Option{
		libp2p.UserAgent(userAgent),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamuxmux.ID, yamuxmux.DefaultTransport),
		libp2p.ConnectionManager(conns),
		libp2p.ResourceManager(limits),
		libp2p.DisableMetrics(),
		libp2p.Ping(true),
	}
	if cfg.Key != nil {
		opts = append(opts, libp2p.Identity(cfg.Key))
	}
	return opts, nil
}

func localOptions(cfg HostConfig) []libp2p.Option {
	opts := []libp2p.Option{
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableRelay(),
		libp2p.ForceReachabilityPublic(), // nothing is probed
		libp2p.DisableIdentifyAddressDiscovery(),
		listenOption(cfg.Listen, "/ip4/127.0.0.1/tcp/0"),
	}
	if cfg.QUIC {
		opts = append(opts, libp2p.Transport(libp2pquic.NewTransport))
	}
	return opts
}

func publicOptions(cfg HostConfig) []libp2p.Option {
	return []libp2p.Option{
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.NATPortMap(),
		libp2p.EnableRelay(),
		libp2p.EnableHolePunching(),
		libp2p.EnableNATService(),
		libp2p.EnableAutoNATv2(),
		listenOption(cfg.Listen, "/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001",
			"/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/udp/4001/quic-v1"),
	}
}

// listenOption listens where it is told, or on the defaults.
func listenOption(addrs []ma.Multiaddr, defaults ...string) libp2p.Option {
	if len(addrs) > 0 {
		return libp2p.ListenAddrs(addrs...)
	}
	return libp2p.ListenAddrStrings(defaults...)
}

// hostLimits bounds what peers can make libp2p hold. They are wide enough for every stream window
// of a busy connection to open fully.
func hostLimits(conns int, memory int64) rcmgr.ConcreteLimitConfig {
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)
	scaled := defaults.Scale(memory, 4096)
	return rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: rcmgr.LimitVal(4 * conns), ConnsInbound: rcmgr.LimitVal(2 * conns), ConnsOutbound: rcmgr.LimitVal(2 * conns),
			Streams: 16384, StreamsInbound: 8192, StreamsOutbound: 8192,
			FD: rcmgr.LimitVal(4 * conns), Memory: rcmgr.LimitVal64(memory),
		},
		Transient: rcmgr.ResourceLimits{
			Conns: 256, ConnsInbound: 128, ConnsOutbound: 128,
			Streams: 1024, StreamsInbound: 512, StreamsOutbound: 512, FD: 256, Memory: rcmgr.LimitVal64(memory / 4),
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 16, ConnsInbound: 8, ConnsOutbound: 8,
			Streams: 1024, StreamsInbound: 512, StreamsOutbound: 512, FD: 16, Memory: rcmgr.LimitVal64(memory / 2),
		},
		ProtocolPeerDefault: rcmgr.ResourceLimits{Streams: 512, StreamsInbound: 512, StreamsOutbound: 512, Memory: rcmgr.LimitVal64(memory / 2)},
		ProtocolDefault:     rcmgr.ResourceLimits{Streams: 8192, StreamsInbound: 8192, StreamsOutbound: 8192, Memory: rcmgr.LimitVal64(memory)},
	}.Build(scaled)
}
