package fs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastfs/holdfast/fs/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

const (
	// lostFor is how long a block that was waited for in vain is not waited for again. When readahead of a range
	// fails, the kernel asks at once for the page that its reader wants, and would make the reader wait twice.
	lostFor = time.Second

	// lostKept bounds the blocks remembered so.
	lostKept = 1024
)

// guarded is Blocks as the mount's reader sees them: errors tell which block they are about, and a block just waited
// for in vain fails at once.
type guarded struct {
	Blocks
	gets, misses atomic.Uint64

	// mu guards lost.
	mu   sync.Mutex
	lost map[cid.Cid]lostBlock
}

type lostBlock struct {
	err   error
	until time.Time
}

func newGuarded(b Blocks) *guarded {
	return &guarded{Blocks: b, lost: make(map[cid.Cid]lostBlock)}
}

// Get gets a block or a *BlockError.
func (g *guarded) Get(ctx context.Context, w unixfs.Want) (blocks.Block, error) {
	g.gets.Add(1)
	if err := g.justLost(w.CID); err != nil {
		return nil, &BlockError{Want: w, Err: err}
	}
	b, err := g.Blocks.Get(ctx, w)
	if err == nil {
		return b, nil
	}
	g.misses.Add(1)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		g.lose(w.CID, err)
	}
	return nil, &BlockError{Want: w, Err: err}
}

func (g *guarded) justLost(c cid.Cid) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.lost) == 0 {
		return nil
	}
	l, ok := g.lost[c]
	if !ok {
		return nil
	}
	if time.Now().After(l.until) {
		delete(g.lost, c)
		return nil
	}
	return l.err
}

func (g *guarded) lose(c cid.Cid, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.lost) >= lostKept {
		clear(g.lost)
	}
	g.lost[c] = lostBlock{err: err, until: time.Now().Add(lostFor)}
}
