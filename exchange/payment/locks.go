package payment

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// keyedLock is a lock a peer. It keeps only those that are held or waited for.
type keyedLock struct {
	mu  sync.Mutex
	all map[peer.ID]*heldLock
}

type heldLock struct {
	turn chan struct{}
	refs int
}

// lock waits until ctx ends.
func (k *keyedLock) lock(ctx context.Context, p peer.ID) (unlock func(), err error) {
	k.mu.Lock()
	if k.all == nil {
		k.all = map[peer.ID]*heldLock{}
	}
	h := k.all[p]
	if h == nil {
		h = &heldLock{turn: make(chan struct{}, 1)}
		k.all[p] = h
	}
	h.refs++
	k.mu.Unlock()
	select {
	case h.turn <- struct{}{}:
		return func() { <-h.turn; k.drop(p, h) }, nil
	case <-ctx.Done():
		k.drop(p, h)
		return nil, context.Cause(ctx)
	}
}

func (k *keyedLock) drop(p peer.ID, h *heldLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.refs--; h.refs == 0 {
		delete(k.all, p)
	}
}

// views remembers when the ledger was asked for a channel, and which peers named channels that it
// does not have.
type views struct {
	mu      sync.Mutex
	asked   map[ChannelID]time.Time
	unknown map[peer.ID]time.Time
}

// Bounds of views; one that is dropped costs a look at the ledger.
const (
	maxViews     = 16384
	maxUnknown   = 1024
	unknownPause = time.Second
)

func (v *views) seen(id ChannelID, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked == nil {
		v.asked = map[ChannelID]time.Time{}
	}
	trim(v.asked, maxViews)
	v.asked[id] = now
}

// stale says whether the ledger was not asked within d.
func (v *views) stale(id ChannelID, now time.Time, d time.Duration) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.asked[id]
	return !ok || now.Sub(t) >= d || t.After(now)
}

func (v *views) forget(id ChannelID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.asked, id)
}

// strange notes that p named a channel that the ledger does not have.
func (v *views) strange(p peer.ID, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.unknown == nil {
		v.unknown = map[peer.ID]time.Time{}
	}
	trim(v.unknown, maxUnknown)
	v.unknown[p] = now
}

// mayAsk says whether p named no such channel just now.
func (v *views) mayAsk(p peer.ID, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.unknown[p]
	return !ok || now.Sub(t) >= unknownPause || t.After(now)
}

// trim makes room for one more.
func trim[K comparable](m map[K]time.Time, most int) {
	for k := range m {
		if len(m) < most {
			return
		}
		delete(m, k)
	}
}
