package exchange

import (
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

// subscribe asks the host for everything that changes who is a peer of ours.
func (n *HostNetwork) subscribe() (event.Subscription, error) {
	sub, err := n.host.EventBus().Subscribe([]any{
		new(event.EvtPeerConnectednessChanged),
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerProtocolsUpdated),
	}, eventbus.BufSize(256), eventbus.Name("holdfast/exchange"))
	if err != nil {
		return nil, fmt.Errorf("subscribe to host events: %w", err)
	}
	return sub, nil
}

// watch follows the host's events until the context ends. It never waits for the handler.
func (n *HostNetwork) watch(sub event.Subscription) {
	defer n.stop()
	defer sub.Close()
	for {
		select {
		case <-n.ctx.Done():
			return
		case ev, ok := <-sub.Out():
			if !ok {
				return
			}
			switch ev := ev.(type) {
			case event.EvtPeerConnectednessChanged:
				if ev.Connectedness != network.Connected {
					n.down(ev.Peer)
				}
				n.look(ev.Peer)
			case event.EvtPeerIdentificationCompleted:
				n.look(ev.Peer)
			case event.EvtPeerProtocolsUpdated:
				if len(n.spoken(ev.Peer)) == 0 {
					n.down(ev.Peer)
				}
				n.look(ev.Peer)
			}
		}
	}
}

// look compares a peer's connection and protocols with what is known of it. A peer whose protocols
// are not identified yet is looked at again when they are.
func (n *HostNetwork) look(p peer.ID) {
	if !n.connected(p) {
		n.down(p)
		return
	}
	spoken := n.spoken(p)
	if len(spoken) == 0 {
		return
	}
	presences := slices.ContainsFunc(spoken, hasPresences)
	n.up(p, presences, slices.Contains(spoken, ProtocolHoldfast))
}

// spoken returns which of our protocols a peer is known to speak.
func (n *HostNetwork) spoken(p peer.ID) []protocol.ID {
	ids, err := n.host.Peerstore().SupportsProtocols(p, n.cfg.Protocols...)
	if err != nil {
		n.cfg.Logger.Debug("look up protocols", "peer", p, "err", err)
	}
	return ids
}

// up returns the remote of a connected peer, making it when there is none or the protocol it
// speaks has changed. It returns nil when the network has stopped.
// pays says that the peer speaks the protocol that carries payments.
func (n *HostNetwork) up(p peer.ID, presences, pays bool) *remote {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return nil
	}
	r := n.peers[p]
	if r != nil && r.presences == presences {
		n.canMoreLocked(r, pays)
		return r
	}
	if r != nil {
		n.work.Go(r.close)
	}
	r = n.newRemoteLocked(p, presences)
	n.canMoreLocked(r, pays)
	n.peers[p] = r
	n.changedLocked(p)
	return r
}

// canMoreLocked notes whether the peer speaks the protocol that carries payments and manifests.
func (n *HostNetwork) canMoreLocked(r *remote, yes bool) {
	if yes && !r.pays.Swap(true) {
		n.newcomers.Add(1)
	}
	r.ledger.canPay(yes)
}

// down forgets a peer that has no connection any more.
func (n *HostNetwork) down(p peer.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.peers[p]; r != nil {
		delete(n.peers, p)
		r.cancel()
		n.work.Go(r.close)
		n.changedLocked(p)
	}
}

// speaking returns the remote of a peer that has just opened a stream, known or not yet.
func (n *HostNetwork) speaking(s network.Stream) *remote {
	p := s.Conn().RemotePeer()
	n.mu.Lock()
	r := n.peers[p]
	n.mu.Unlock()
	if r != nil || !n.connected(p) {
		return r
	}
	return n.up(p, hasPresences(s.Protocol()), s.Protocol() == ProtocolHoldfast)
}

func (n *HostNetwork) changedLocked(p peer.ID) {
	n.changed[p] = struct{}{}
	select {
	case n.dirty <- struct{}{}:
	default:
	}
}

// report tells the handler who came and who went. However slow it is, no more than one report a
// peer waits; a peer that went and came in between is reported gone first.
func (n *HostNetwork) report() {
	told := make(map[peer.ID]*remote)
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.dirty:
		}
		for p, now := range n.takeChanged() {
			if told[p] == now {
				continue
			}
			if told[p] != nil {
				n.handler.PeerGone(n.ctx, p)
				delete(told, p)
			}
			if now != nil {
				n.handler.PeerConnected(n.ctx, p, now.presences)
				told[p] = now
				close(now.reported)
				n.payAgain(p)
			}
		}
	}
}

func (n *HostNetwork) takeChanged() map[peer.ID]*remote {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[peer.ID]*remote, len(n.changed))
	for p := range n.changed {
		out[p] = n.peers[p]
	}
	clear(n.changed)
	return out
}
