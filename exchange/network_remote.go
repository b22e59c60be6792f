package exchange

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// remote is one connected peer, from its connection until its last one is gone. A peer that comes
// back is another remote.
type remote struct {
	n         *HostNetwork
	id        peer.ID
	presences bool
	ctx       context.Context
	cancel    context.CancelFunc
	reported  chan struct{} // closed when the handler knows of this peer
	ledger    *ledger       // what it wants of us; nil without a server
	budget    *byteBudget   // bytes of its messages in hand
	pays      atomic.Bool   // it speaks the protocol that carries more than Bitswap
	inUse     atomic.Bool   // a session uses it: it need not share memory with strangers

	wants    wantQueue
	replies  replyQueue
	vouchers voucherQueue // of the peer, to be accepted

	wantsOn, repliesOn, vouchersOn bool // lanes that run; under n.mu

	mu      sync.Mutex // guards streams
	closed  bool
	streams map[network.Stream]struct{} // ours and theirs
	theirs  int
}

func (n *HostNetwork) newRemoteLocked(p peer.ID, presences bool) *remote {
	r := &remote{
		n: n, id: p, presences: presences,
		reported: make(chan struct{}),
		budget:   newByteBudget(n.cfg.PeerBytes),
		wants:    newWantQueue(presences),
		replies:  newReplyQueue(),
		vouchers: newVoucherQueue(),
		streams:  make(map[network.Stream]struct{}),
	}
	_, used := n.inUse[p]
	r.inUse.Store(used)
	r.ctx, r.cancel = context.WithCancel(n.ctx)
	if n.server != nil {
		r.ledger = n.server.open(p, r.reply)
	}
	return r
}

// startLocked starts a lane unless it runs. The lane lasts as long as the remote.
func (r *remote) startLocked(on *bool, lane func()) {
	if *on || r.ctx.Err() != nil {
		return
	}
	*on = true
	r.n.work.Go(lane)
}

// close ends the remote: its streams are reset, its lanes and stream handlers return.
func (r *remote) close() {
	r.cancel()
	if r.ledger != nil {
		r.ledger.close()
	}
	r.replies.close()
	r.mu.Lock()
	r.closed = true
	streams := r.streams
	r.streams = nil
	r.mu.Unlock()
	for s := range streams {
		_ = s.Reset() // the peer is gone or we are; there is nobody to tell
	}
}

// adopt makes a stream end with the remote. It reports false, with the stream reset, when the
// remote has ended or the peer has too many.
func (r *remote) adopt(s network.Stream, theirs bool) bool {
	r.mu.Lock()
	ok := !r.closed && (!theirs || r.theirs < r.n.cfg.StreamsPerPeer)
	if ok {
		r.streams[s] = struct{}{}
		if theirs {
			r.theirs++
		}
	}
	r.mu.Unlock()
	if !ok {
		_ = s.Reset()
	}
	return ok
}

// release forgets a stream that has ended.
func (r *remote) release(s network.Stream, theirs bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, s)
	if theirs {
		r.theirs--
	}
}

// has says whether a stream is in use, so that it was not us who ended it.
func (r *remote) has(s network.Stream) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.streams[s]
	return ok
}
