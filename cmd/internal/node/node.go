package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/exchange/recovery"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/holdfastfs/holdfast/uploader"
)

// Config says what a node is made of. Repo and Logger are needed.
type Config struct {
	Repo     *repo.Repo // open; the node closes it when Run returns
	Settings repo.Config
	Daemon   bool // restores mounts, and outlives the command that started it
	Version  string
	Logger   *slog.Logger
}

// Node is a node. Its methods may be called by many goroutines while Run works.
type Node struct {
	cfg   Config
	log   *slog.Logger
	start time.Time

	host       host.Host
	network    *exchange.HostNetwork
	routing    *exchange.Routing
	announce   *exchange.AnnounceQueue
	sweeper    *exchange.Sweeper
	exchange   *exchange.Exchange
	wallet     *wallet
	provider   *storage // nil where this node keeps nothing for others
	uploader   *uploader.Uploader
	uploadDirs uploads
	register   *recovery.Register
	recovery   *recovery.Recovery
	store      *blockcache.Store
	lender     *lender
	cache      *blockcache.Cache
	blocks     *blocksOf
	reader     *unixfs.Reader
	keeper     *keeper
	mounts     *mounts
	server     *api.Server
	memory     int64 // limit in bytes, 0: not ours
	temporary  atomic.Uint64

	ready  chan struct{} // closed when commands are answered
	failed chan struct{} // closed when a part of the node has failed
}

var _ api.Node = (*Node)(nil)

// Open makes the rooms of a node. Nothing of it runs yet, but the host listens. On failure the repo stays open.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	n := &Node{cfg: cfg, log: cfg.Logger, start: time.Now(), ready: make(chan struct{}), failed: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	n.memory = limitMemory(cfg.Settings.CacheBytes)
	if err := n.openStore(); err != nil {
		return nil, err
	}
	if err := n.openNetwork(ctx); err != nil {
		return nil, err
	}
	n.cache, err = blockcache.New(blockcache.Config{MemoryBytes: cfg.Settings.CacheBytes, Store: n.store,
		Origin: origin{n.exchange}, PrefetchBytes: max(32<<20, 2*cfg.Settings.Readahead), Logger: n.log})
	if err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	n.blocks = &blocksOf{cache: n.cache, store: n.store}
	n.reader = unixfs.NewReader(n.blocks, unixfs.Config{Logger: n.log})
	if err := errors.Join(n.openProvider(), n.openUploader()); err != nil {
		return nil, err
	}
	n.mounts = newMounts(n)
	n.server = api.NewServer(n, n.log)
	return n, n.forgetImports(ctx)
}

func (n *Node) openStore() (err error) {
	r, s := n.cfg.Repo, n.cfg.Settings
	n.lender = newLender(n)
	n.store, err = blockcache.OpenStore(blockcache.StoreConfig{DB: r.DB, Prefix: repo.PrefixBlocks, Dir: r.BlocksDir(),
		QuotaBytes: s.QuotaBytes, MinFreeBytes: s.MinFreeBytes, UncleanStop: r.UncleanStop, Lender: n.lender, Logger: n.log})
	if err != nil {
		return hint.Add(fmt.Errorf("open repo %s: %w", r.Dir, err), "its disk may be full or damaged")
	}
	return nil
}

func (n *Node) openNetwork(ctx context.Context) (err error) {
	r, s := n.cfg.Repo, n.cfg.Settings
	listen, err := multiaddrs(s.Addresses())
	if err != nil {
		return err
	}
	if err := portsFree(s.Addresses()); err != nil {
		return hint.Add(err, "choose another port with port: in %s/config.yaml, or --listen", r.Dir)
	}
	n.host, err = exchange.NewHost(exchange.HostConfig{Network: s.Network, Listen: listen, Key: r.Key, QUIC: hasQUIC(s.Addresses())})
	if err != nil {
		err = fmt.Errorf("listen on %s: %w", s.Addresses(), err)
		return hint.Add(err, "choose another port with port: in %s/config.yaml, or --listen", r.Dir)
	}
	boot, err := addrInfos(s.Bootstrap)
	if err != nil {
		return err
	}
	n.routing, err = exchange.NewRouting(n.host, exchange.RoutingConfig{Network: s.Network,
		Datastore: r.Datastore(repo.PrefixRouting), Bootstrap: boot, Logger: n.log})
	if err != nil {
		return err
	}
	if err := n.openAnnouncements(ctx); err != nil {
		return err
	}
	if err := n.openExchange(ctx); err != nil {
		return err
	}
	n.keeper, err = newKeeper(n, boot)
	return err
}

func (n *Node) openAnnouncements(ctx context.Context) (err error) {
	r, ready := n.cfg.Repo, func() bool { return n.routing.Peers() > 0 }
	n.announce, err = exchange.OpenAnnounceQueue(ctx, exchange.AnnounceConfig{Providers: n.routing,
		Datastore: r.Datastore(repo.PrefixAnnounce), Ready: ready, Logger: n.log})
	if err != nil {
		return err
	}
	sweep := exchange.SweepConfig{Strategy: exchange.AnnounceStrategy(n.cfg.Settings.Announce), Keys: n.store.List,
		Providers: n.routing, Datastore: r.Datastore(repo.PrefixSweep), Ready: ready, Logger: n.log}
	if sweep.Strategy == exchange.AnnouncePinned {
		sweep.Keys = n.store.ListPinned
	}
	n.sweeper, err = exchange.OpenSweeper(ctx, sweep)
	return err
}

func (n *Node) openExchange(ctx context.Context) (err error) {
	s := n.cfg.Settings
	limits, err := repo.ParseLimits(s.Limits)
	if err != nil {
		return err
	}
	if err := n.openWallet(); err != nil {
		return err
	}
	if n.register, err = recovery.OpenRegister(ctx, n.cfg.Repo.Datastore(repo.PrefixManifest)); err != nil {
		return err
	}
	store := &served{store: n.store, stored: n.sweeper.Stored, chunks: func() *storage { return n.provider }}
	network, serve := limits.Network, limits.Serve
	serve.Store, serve.Till, serve.Logger = store, n.wallet, n.log
	serve.PricePerMiB, serve.CreditBytes = exchange.Amount(s.Price), s.Credit
	serve.BytesPerSecond, serve.PeerPerSecond = float64(s.UploadRate), float64(s.PeerUploadRate)
	serve.Manifests = func(root cid.Cid) []cid.Cid {
		known, err := n.register.Of(ctx, root)
		if err != nil {
			n.log.Warn("manifests are not told", "cid", root, "error", err)
		}
		return known
	}
	network.Host, network.Serve, network.Owed, network.Logger = n.host, serve, n.wallet.again, n.log
	if n.network, err = exchange.NewHostNetwork(network); err != nil {
		return err
	}
	store.arrived, n.wallet.network = n.network.NotifyNewBlocks, n.network
	limits.Exchange.Spending, limits.Exchange.DayBudget = spending(s), exchange.Amount(s.DayBudget)
	n.exchange, err = exchange.New(exchange.Config{Network: n.network, Providers: n.routing, Store: store, Purse: n.wallet,
		Limits: limits.Exchange, Links: links, Announcer: n.announce, Logger: n.log,
		Rescue: func(ctx context.Context, w exchange.Want) (blocks.Block, error) { return n.recovery.Rescue(ctx, w) }})
	if err != nil {
		return err
	}
	n.recovery, err = recovery.New(recovery.Config{Engine: n.exchange, Store: store, Register: n.register, Ask: n.network.Manifests, News: n.network.Newcomers, Logger: n.log})
	return err
}

// close ends what Open has opened, backwards, but for the repo.
func (n *Node) close() error {
	var errs []error
	if n.cache != nil {
		errs = append(errs, n.cache.Close())
	}
	if n.provider != nil {
		errs = append(errs, n.provider.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.routing != nil {
		errs = append(errs, n.routing.Close())
	}
	if n.host != nil {
		errs = append(errs, n.host.Close())
	}
	return errors.Join(errs...)
}

func multiaddrs(texts []string) (addrs []ma.Multiaddr, err error) {
	for _, text := range texts {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a multiaddr: %w", text, err)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// portsFree fails where somebody listens already: the host shares ports, and would get half of the other's connections.
func portsFree(addrs []string) error {
	for _, text := range addrs {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			continue // whoever listens says what is wrong with it
		}
		network, host, err := manet.DialArgs(a)
		if err != nil || !strings.HasPrefix(network, "tcp") || strings.HasSuffix(host, ":0") {
			continue
		}
		l, err := net.Listen(network, host)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("listen on %s: %w", text, syscall.EADDRINUSE)
		}
		if err == nil {
			l.Close()
		}
	}
	return nil
}

func addrInfos(texts []string) ([]peer.AddrInfo, error) {
	addrs, err := multiaddrs(texts)
	if err != nil {
		return nil, err
	}
	return peer.AddrInfosFromP2pAddrs(addrs...)
}

func hasQUIC(addrs []string) bool {
	for _, text := range addrs {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			continue
		}
		if _, err := a.ValueForProtocol(ma.P_QUIC_V1); err == nil {
			return true
		}
	}
	return false
}
