package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// ID says who the node is.
func (n *Node) ID(context.Context) (api.ID, error) {
	self := peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}
	full, err := peer.AddrInfoToP2pAddrs(&self)
	if err != nil {
		return api.ID{}, fmt.Errorf("name the addresses: %w", err)
	}
	return api.ID{ID: n.host.ID().String(), Addresses: texts(full), Version: n.cfg.Version, Network: n.cfg.Settings.Network,
		Repo: n.cfg.Repo.Dir, Pid: os.Getpid(), Daemon: n.cfg.Daemon}, nil
}

func texts(addrs []ma.Multiaddr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// Connect dials peers and remembers them.
func (n *Node) Connect(ctx context.Context, addrs []string) ([]api.Peer, error) {
	infos, err := connectInfos(addrs)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, info := range infos {
		if info.ID == n.host.ID() {
			return nil, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%s is this node itself", info.ID)}
		}
		if err := n.cfg.Repo.SavePeer(repo.KnownPeer{ID: info.ID.String(), Addresses: texts(info.Addrs)}); err != nil {
			return nil, err
		}
		if s, ok := n.host.Network().(*swarm.Swarm); ok {
			s.Backoff().Clear(info.ID) // somebody asks: don't wait
		}
		limited, cancel := context.WithTimeout(ctx, dialLimit)
		err := n.network.Dial(limited, info)
		cancel()
		n.keeper.add(info)
		if err != nil {
			errs = append(errs, dialError(info, err))
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(errs) > 0 {
		return nil, &api.Error{Code: api.CodeUnavailable, Message: errors.Join(errs...).Error(),
			Advice: "it is remembered and dialled again while the daemon runs; holdfast peers --forget ID ends that"}
	}
	return n.Peers(ctx)
}

// connectInfos reads multiaddrs that people typed.
func connectInfos(addrs []string) ([]peer.AddrInfo, error) {
	var all []ma.Multiaddr
	for _, text := range addrs {
		a, err := ma.NewMultiaddr(text)
		if err == nil {
			_, err = peer.AddrInfoFromP2pAddr(a)
		}
		if err != nil {
			return nil, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%q is not a multiaddr that ends in /p2p/ID", text),
				Advice: "holdfast id on the other node prints it, as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…"}
		}
		all = append(all, a)
	}
	return peer.AddrInfosFromP2pAddrs(all...)
}

// dialError is one line of what libp2p says in many.
func dialError(p peer.AddrInfo, err error) error {
	text := err.Error()
	var many *swarm.DialError
	if errors.As(err, &many) && len(many.DialErrors) > 0 {
		text = many.DialErrors[0].Cause.Error()
	}
	return fmt.Errorf("%s at %s: %s", p.ID, strings.Join(texts(p.Addrs), " "), text)
}

// Forget ends the remembering of a peer.
func (n *Node) Forget(_ context.Context, id string) error {
	p, err := peer.Decode(id)
	if err != nil {
		return &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%q is not a peer ID", id)}
	}
	if _, ok := n.keeper.peers()[p]; !ok {
		return &api.Error{Code: api.CodeNotFound, Message: "it is not remembered"}
	}
	if err := n.cfg.Repo.ForgetPeer(p.String()); err != nil {
		return err
	}
	n.keeper.remove(p)
	return nil
}

// Peers lists connected and remembered peers, by ID.
func (n *Node) Peers(context.Context) ([]api.Peer, error) {
	all := map[peer.ID]*api.Peer{}
	get := func(id peer.ID) *api.Peer {
		if all[id] == nil {
			all[id] = &api.Peer{ID: id.String(), Addresses: []string{}}
		}
		return all[id]
	}
	for id, info := range n.keeper.peers() {
		p := get(id)
		p.Remembered, p.Addresses = true, texts(info.Addrs)
	}
	for _, id := range n.host.Network().Peers() {
		if n.host.Network().Connectedness(id) != network.Connected {
			continue
		}
		p := get(id)
		p.Connected, p.Addresses = true, nil
		for _, c := range n.host.Network().ConnsToPeer(id) {
			p.Addresses = append(p.Addresses, c.RemoteMultiaddr().String())
		}
		p.LatencyMS = float64(n.host.Peerstore().LatencyEWMA(id)) / 1e6
		if agent, err := n.host.Peerstore().Get(id, "AgentVersion"); err == nil {
			p.Agent, _ = agent.(string)
		}
	}
	for _, info := range n.exchange.Peers() {
		if info.Banned > 0 {
			get(info.ID) // also where it was dropped
		}
		if p := all[info.ID]; p != nil {
			p.BytesIn = uint64(info.BytesReceived)
			p.Banned, p.Why = info.Banned.Seconds(), info.BanReason
			p.Failures, p.Price = info.Failures, uint64(info.PricePerMiB)
			if info.Latency > 0 {
				p.LatencyMS = float64(info.Latency) / 1e6
			}
		}
	}
	out := make([]api.Peer, 0, len(all))
	for id, p := range all {
		paid, perr := n.wallet.accounts.Paid(id)
		earned, eerr := n.wallet.accounts.Received(id)
		if err := errors.Join(perr, eerr); err != nil {
			return nil, err
		}
		p.Paid, p.Earned = uint64(paid), uint64(earned)
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b api.Peer) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}
