package exchange

import (
	"container/heap"
	"container/list"
	"context"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// maxRefused bounds the wants that found the list full and are to be answered with dont-have.
const maxRefused = 1024

// leastWants is how many wants every peer may have, however many the others have.
const leastWants = 64

// demandState is where a peer's want stands. Nothing of it survives the connection.
type demandState uint8

const (
	// demandQueued: a worker has still to look at it.
	demandQueued demandState = iota
	// demandServing: a worker reads the store for it.
	demandServing
	// demandWaiting: the block is not here; it is answered when it comes, or makes room for others.
	demandWaiting
)

// demand is one entry of a peer's want list.
type demand struct {
	ledger   *ledger
	cid      cid.Cid
	block    bool   // want-block, else want-have
	dontHave bool   // say so when the block is not here
	price    Amount // per MiB, that the peer pays at most
	priority int32
	seq      uint64 // earlier wants of one priority go first
	state    demandState
	checked  bool          // the store was looked into twice once
	at       int           // place in the heap while queued
	idle     *list.Element // place in ledger.idle while waiting
}

// ledger is what one connected peer wants. Its fields are guarded by the server's lock.
type ledger struct {
	s      *server
	peer   peer.ID
	send   func(*reply)
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	limit  *rate.Limiter // nil for no limit

	closed   bool
	onRing   bool
	filling  bool // a worker fills a message that is to be paid
	inFlight int  // bytes read or being sent
	debt     int  // bytes that messages had beyond their turn's share
	seq      uint64
	wants    map[cid.Cid]*demand
	queue    demandHeap
	idle     list.List // of *demand that wait, longest first
	refused  []cid.Cid // found the list full; to be answered with dont-have
	roots    []cid.Cid // whose manifests are to be told

	tab     *tab // outlives the connection; nil where blocks are free
	pays    bool // the peer speaks the protocol that carries payments
	greeted bool // it was told about its account
	warned  bool // it gets no blocks until it pays, and was told so if it can be
}

// receive takes changes of the peer's want list. full says that nothing else is wanted any more.
func (l *ledger) receive(entries []Entry, full bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.closed {
		return
	}
	if full {
		l.forgetLocked()
	}
	for _, e := range entries {
		switch {
		case e.Kind == Cancel:
			l.removeLocked(l.wants[e.CID])
		case servable(e.CID):
			l.wantLocked(e)
		}
	}
	l.readyLocked()
}

// asked takes a question for the manifests of datasets. Those beyond what is kept are passed over.
func (l *ledger) asked(roots []cid.Cid) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.closed || l.s.cfg.Manifests == nil {
		return
	}
	for _, c := range roots {
		if len(l.roots) < maxManifestRoots && !slices.Contains(l.roots, c) {
			l.roots = append(l.roots, c)
		}
	}
	l.readyLocked()
}

// manifests answers what was asked.
func (l *ledger) manifests() (out []known) {
	l.s.mu.Lock()
	roots := l.roots
	l.roots = nil
	l.s.mu.Unlock()
	for _, c := range roots {
		list := l.s.cfg.Manifests(c)
		out = append(out, known{c, list[:min(len(list), maxManifestsOfRoot)]})
	}
	return out
}

// close ends the ledger with its connection.
func (l *ledger) close() {
	l.cancel()
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.forgetLocked()
	l.s.tabs.close(l.tab)
	delete(l.s.ledgers, l)
}

// wantLocked adds or renews a want.
func (l *ledger) wantLocked(e Entry) {
	w := l.wants[e.CID]
	block := e.Kind == WantBlock
	if w != nil && w.state == demandServing {
		if w.block || !block {
			return // the answer is on its way
		}
		l.removeLocked(w) // have becomes block: asked anew
		w = nil
	}
	if w == nil {
		if !l.roomLocked() {
			l.refuseLocked(e)
			return
		}
		w = &demand{ledger: l, cid: e.CID}
		l.wants[e.CID] = w
		l.s.wants++
		w.state = demandServing // not queued yet
	}
	w.block = w.block || block
	w.dontHave = e.SendDontHave
	w.price = e.PricePerMiB
	w.priority = e.Priority
	l.queueLocked(w)
}

// roomLocked makes room for another want: those that wait for a block give way, longest first.
func (l *ledger) roomLocked() bool {
	if n := len(l.wants); n < l.s.cfg.MaxWants && (n < leastWants || l.s.wants < l.s.cfg.TotalWants) {
		return true
	}
	first := l.idle.Front()
	if first == nil {
		return false
	}
	l.removeLocked(first.Value.(*demand))
	return true
}

func (l *ledger) refuseLocked(e Entry) {
	l.s.overflow.Add(1)
	if e.SendDontHave && len(l.refused) < maxRefused {
		l.refused = append(l.refused, e.CID)
	}
}

// queueLocked puts a want before the workers, or moves it to its place there.
func (l *ledger) queueLocked(w *demand) {
	if w.state == demandQueued {
		heap.Fix(&l.queue, w.at)
		return
	}
	l.unwaitLocked(w)
	w.state = demandQueued
	l.seq++
	w.seq = l.seq
	heap.Push(&l.queue, w)
}

// waitLocked keeps a want until its block comes.
func (l *ledger) waitLocked(w *demand) {
	w.state = demandWaiting
	w.idle = l.idle.PushBack(w)
	key := string(w.cid.Hash())
	all := l.s.waiting[key]
	if all == nil {
		all = make(map[*demand]struct{}, 1)
		l.s.waiting[key] = all
	}
	all[w] = struct{}{}
}

func (l *ledger) unwaitLocked(w *demand) {
	if w.state != demandWaiting {
		return
	}
	l.idle.Remove(w.idle)
	key := string(w.cid.Hash())
	all := l.s.waiting[key]
	if delete(all, w); len(all) == 0 {
		delete(l.s.waiting, key)
	}
}

// removeLocked forgets a want; nil is none.
func (l *ledger) removeLocked(w *demand) {
	if w == nil {
		return
	}
	switch w.state {
	case demandQueued:
		heap.Remove(&l.queue, w.at)
	case demandWaiting:
		l.unwaitLocked(w)
	}
	delete(l.wants, w.cid)
	l.s.wants--
}

// forgetLocked forgets all wants.
func (l *ledger) forgetLocked() {
	for _, w := range l.wants {
		l.unwaitLocked(w)
	}
	l.s.wants -= len(l.wants)
	clear(l.wants)
	l.queue, l.refused, l.roots = nil, nil, nil
}

// idleLocked reports whether there is nothing to answer.
func (l *ledger) idleLocked() bool {
	return len(l.refused) == 0 && len(l.roots) == 0 && (len(l.queue) == 0 || l.heldLocked() && l.warned)
}

// readyLocked gives the ledger a turn when it has something to answer and room in flight.
func (l *ledger) readyLocked() {
	cfg := &l.s.cfg
	if l.closed || l.onRing || l.filling || l.idleLocked() || l.inFlight > 0 && l.inFlight+cfg.MessageBytes > cfg.PeerBytes {
		return
	}
	l.onRing = true
	l.s.ring = append(l.s.ring, l)
	l.s.changed.Signal()
}

// demandHeap orders queued wants: those that need no block read first, then by priority, then by age.
type demandHeap []*demand

func (h demandHeap) Len() int { return len(h) }

func (h demandHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	switch {
	case a.block != b.block:
		return !a.block
	case a.priority != b.priority:
		return a.priority > b.priority
	}
	return a.seq < b.seq
}

func (h demandHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *demandHeap) Push(x any) {
	w := x.(*demand)
	w.at = len(*h)
	*h = append(*h, w)
}

// Pop implements heap.Interface.
func (h *demandHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return w
}
