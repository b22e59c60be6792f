package provider

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// gate bounds how many streams are worked for at once. A stream leaves when its answer is ready, so that
// a peer that has the answer can ask again; the writing of answers has a bound of its own.
type gate struct {
	perPeer, total int

	mu      sync.Mutex
	closed  bool
	streams int // that are open, with those that are only being answered
	all     int
	peers   map[peer.ID]int
}

// open counts a stream until done is called, or says that there are far too many to answer even.
func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.streams >= 4*g.total {
		return false
	}
	g.streams++
	return true
}

func (g *gate) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.streams--
}

func (g *gate) init(l Limits) {
	g.perPeer, g.total, g.peers = l.StreamsPerPeer, l.Streams, make(map[peer.ID]int)
}

// enter lets a stream in, which then has to leave, or says why not.
func (g *gate) enter(from peer.ID) *seal.Refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return seal.Refuse(seal.RefusedClosing, "the provider stops")
	case g.peers[from] >= g.perPeer:
		return seal.Refuse(seal.RefusedBusy, "%d requests of one peer at once, no more are served", g.perPeer)
	case g.all >= g.total:
		return seal.Refuse(seal.RefusedBusy, "%d requests are being served", g.all)
	}
	g.all++
	g.peers[from]++
	return nil
}

func (g *gate) leave(from peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.peers[from]--; g.peers[from] == 0 {
		delete(g.peers, from)
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}
