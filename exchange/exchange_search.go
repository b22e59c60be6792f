package exchange

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// dialTimeout is the longest that a dial may take.
const dialTimeout = 15 * time.Second

// runSearch searches for providers of c and hands each to the machine as it is found.
func (e *Exchange) runSearch(ctx context.Context, c cid.Cid) {
	within, stop := context.WithTimeout(ctx, e.limits.SearchTimeout)
	defer stop()
	found := 0
	for info := range e.cfg.Providers.FindProviders(within, c, e.limits.SearchProviders) {
		if found++; found <= e.limits.SearchProviders {
			e.answer(ctx, providersEvent{key: c, peers: []peer.AddrInfo{info}})
		}
	}
	e.log.Debug("searched for providers", "op", "search", "cid", c, "found", found)
	e.answer(ctx, providersEvent{key: c, done: true})
}

// runDial dials a peer and tells the machine how that ended.
func (e *Exchange) runDial(ctx context.Context, info peer.AddrInfo) {
	within, stop := context.WithTimeout(ctx, dialTimeout)
	defer stop()
	err := e.cfg.Network.Dial(within, info)
	if err != nil {
		e.log.Debug("dial failed", "op", "dial", "peer", info.ID, "err", err)
	}
	e.answer(ctx, dialedEvent{info.ID, err})
}
