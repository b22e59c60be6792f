package unixfs

import (
	"sync"

	"github.com/ipfs/go-cid"
)

// paces remembers how far the last listings had come when they ended early, so that one that goes on at the same place,
// as a mount's do, need not begin with few fetches at once again.
type paces struct {
	mu    sync.Mutex
	ended [32]pace
	next  int
}

type pace struct {
	root  cid.Cid
	at    Cursor
	taken int // shards the listing came to
}

// leave notes where a listing ended.
func (p *paces) leave(root cid.Cid, at Cursor, taken int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended[p.next] = pace{root, at, taken}
	p.next = (p.next + 1) % len(p.ended)
}

// resume returns what a listing that ended at this place had taken, or 0.
func (p *paces) resume(root cid.Cid, at Cursor) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := 0
	for _, e := range p.ended {
		if e.at == at && e.root == root {
			taken = max(taken, e.taken)
		}
	}
	return taken
}
