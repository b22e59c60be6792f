package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// How long the keeper waits before it dials a peer again: doubled with each failure.
const (
	redialMin = time.Second
	redialMax = 30 * time.Second
	dialLimit = 10 * time.Second // for one dial
)

// dialer is the network as a keeper sees it.
type dialer interface {
	// Dial returns when a connection stands, or fails.
	Dial(ctx context.Context, p peer.AddrInfo) error
	Connected(p peer.ID) bool
}

// keeper stays connected to peers: it dials those that it was given whenever their connection is lost.
type keeper struct {
	dialer dialer
	log    *slog.Logger
	wake   chan struct{} // has room for one: look at the peers

	mu   sync.Mutex // guards kept
	kept map[peer.ID]*kept
}

// kept is a peer to stay connected to.
type kept struct {
	info     peer.AddrInfo
	failures int
	next     time.Time // when to dial again, if it is not connected then
	dialling bool
}

// newKeeper returns a keeper of the remembered and the given peers.
func newKeeper(n *Node, given []peer.AddrInfo) (*keeper, error) {
	known, err := n.cfg.Repo.Peers()
	if err != nil {
		return nil, fmt.Errorf("read known peers: %w", err)
	}
	k := makeKeeper(hostDialer{n}, n.log)
	for _, p := range given {
		k.add(p)
	}
	for _, p := range known {
		info, err := infoOf(p)
		if err != nil {
			n.log.Warn("a remembered peer is damaged, leaving it out", "peer", p.ID, "error", err)
			continue
		}
		k.add(info)
	}
	n.host.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { k.look() }})
	return k, nil
}

func makeKeeper(d dialer, log *slog.Logger) *keeper {
	return &keeper{dialer: d, log: log, wake: make(chan struct{}, 1), kept: make(map[peer.ID]*kept)}
}

func infoOf(p repo.KnownPeer) (peer.AddrInfo, error) {
	id, err := peer.Decode(p.ID)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	addrs, err := multiaddrs(p.Addresses)
	return peer.AddrInfo{ID: id, Addrs: addrs}, err
}

// add keeps p from now on; addresses replace those known before.
func (k *keeper) add(p peer.AddrInfo) {
	k.mu.Lock()
	if old := k.kept[p.ID]; old != nil {
		old.info, old.next, old.failures = p, time.Time{}, 0
	} else {
		k.kept[p.ID] = &kept{info: p}
	}
	k.mu.Unlock()
	k.look()
}

// remove keeps a peer no longer; a connection stays.
func (k *keeper) remove(id peer.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.kept, id)
}

// peers returns who is kept.
func (k *keeper) peers() map[peer.ID]peer.AddrInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make(map[peer.ID]peer.AddrInfo, len(k.kept))
	for id, p := range k.kept {
		all[id] = p.info
	}
	return all
}

func (k *keeper) look() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run dials until ctx ends.
func (k *keeper) Run(ctx context.Context) error {
	var dials sync.WaitGroup
	defer dials.Wait()
	for {
		due, wait := k.due(time.Now())
		for _, p := range due {
			dials.Go(func() { k.dial(ctx, p) })
		}
		alarm := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			alarm.Stop()
			return nil
		case <-k.wake:
		case <-alarm.C:
		}
		alarm.Stop()
	}
}

// due takes the peers that are to be dialled now and says how long nobody else is.
func (k *keeper) due(now time.Time) (due []*kept, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wait = redialMax
	for id, p := range k.kept {
		switch {
		case p.dialling:
		case k.dialer.Connected(id):
			p.failures, p.next = 0, time.Time{}
		case p.next.After(now):
			wait = min(wait, p.next.Sub(now))
		default:
			p.dialling = true
			due = append(due, p)
		}
	}
	return due, wait
}

func (k *keeper) dial(ctx context.Context, p *kept) {
	k.mu.Lock()
	info := p.info
	k.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, dialLimit)
	err := k.dialer.Dial(limited, info)
	cancel()
	k.mu.Lock()
	p.dialling = false
	if err != nil {
		p.next = time.Now().Add(min(redialMax, redialMin<<min(p.failures, 10)))
		p.failures++
		if p.failures == 1 && ctx.Err() == nil {
			k.log.Info("peer does not answer, dialling on", "error", dialError(info, err))
		}
	}
	k.mu.Unlock()
	k.look()
}

// hostDialer dials as the exchange does.
type hostDialer struct{ n *Node }

func (d hostDialer) Dial(ctx context.Context, p peer.AddrInfo) error { return d.n.network.Dial(ctx, p) }

func (d hostDialer) Connected(p peer.ID) bool {
	return d.n.host.Network().Connectedness(p) == network.Connected
}
