package blockcache

import (
	"context"
	"sync"
	"sync/atomic"
)

// prefetchGuess is what a prefetch is taken to bring, in bytes, as long as nothing is known of it.
const prefetchGuess = 1 << 20

// minGuess is the least that a prefetch counts: its goroutine and what it asks for take room, too.
const minGuess = 16 << 10

// budget bounds the bytes of prefetches in flight.
type budget struct {
	dropped atomic.Int64

	mu   sync.Mutex
	left int64 // guarded by mu
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < n {
		b.dropped.Add(1)
		return false
	}
	b.left -= n
	return true
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.left += n
	b.mu.Unlock()
}

// Prefetch begins to bring blocks into memory and returns at once. It is a hint: what does not fit
// the bound on prefetches is dropped, errors are not told. When ctx ends, what is not here yet is
// withdrawn, unless somebody else waits for it.
func (c *Cache) Prefetch(ctx context.Context, ws []Want) {
	for _, w := range ws {
		if checkCID(w.CID) != nil || ctx.Err() != nil {
			continue
		}
		if _, ok := inline(w.CID); ok {
			continue
		}
		if _, ok := c.mem.get(w.CID); ok || c.flights.has(key(w.CID)) {
			continue
		}
		if c.enter() != nil {
			return
		}
		n := w.guess()
		if !c.prefetch.take(n) {
			c.exit()
			continue
		}
		go func() {
			defer c.exit()
			defer c.prefetch.give(n)
			if _, err := c.Get(ctx, w); err != nil {
				c.log.Debug("prefetch came to nothing", "cid", w.CID, "err", err)
			}
		}()
	}
}

// guess is the most bytes that a want is likely to bring.
func (w Want) guess() int64 { return max(minGuess, w.says()) }

func (w Want) says() int64 {
	if w.Place.Bytes > 0 {
		return int64(min(prefetchGuess, w.Place.Bytes))
	}
	if w.Place.File.Defined() && w.Place.Offset < w.Place.FileBytes {
		return int64(min(prefetchGuess, w.Place.FileBytes-w.Place.Offset))
	}
	return prefetchGuess
}
