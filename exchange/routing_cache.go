package exchange

import (
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxFound bounds the searches whose result is kept.
const maxFound = 1024

// foundCache keeps what searches found for a short while.
type foundCache struct {
	keep time.Duration

	mu    sync.Mutex // guards found
	found map[cid.Cid]foundEntry
}

type foundEntry struct {
	peers []peer.AddrInfo
	until time.Time
}

func newFoundCache(keep time.Duration) *foundCache {
	return &foundCache{keep: keep, found: make(map[cid.Cid]foundEntry)}
}

// get returns what was found lately, or nil.
func (f *foundCache) get(c cid.Cid) []peer.AddrInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.found[c]
	if !ok || time.Now().After(e.until) {
		delete(f.found, c)
		return nil
	}
	return e.peers
}

// put keeps what was found; nothing found is not kept, as somebody may announce at any moment.
func (f *foundCache) put(c cid.Cid, peers []peer.AddrInfo) {
	if len(peers) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.found) >= maxFound {
		f.shrinkLocked()
	}
	f.found[c] = foundEntry{peers: peers, until: time.Now().Add(f.keep)}
}

// shrinkLocked drops what is too old, or all of it when nothing is.
func (f *foundCache) shrinkLocked() {
	now := time.Now()
	for c, e := range f.found {
		if now.After(e.until) {
			delete(f.found, c)
		}
	}
	if len(f.found) >= maxFound {
		clear(f.found)
	}
}
