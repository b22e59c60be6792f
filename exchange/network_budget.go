package exchange

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// byteBudget bounds bytes in hand; who wants more waits, in order.
type byteBudget struct {
	sem  *semaphore.Weighted
	used atomic.Int64
}

func newByteBudget(n int) *byteBudget {
	return &byteBudget{sem: semaphore.NewWeighted(int64(n))}
}

func (b *byteBudget) take(ctx context.Context, n int) error {
	if err := b.sem.Acquire(ctx, int64(n)); err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	b.used.Add(int64(n))
	return nil
}

func (b *byteBudget) give(n int) {
	b.used.Add(-int64(n))
	b.sem.Release(int64(n))
}

// hold is the room taken for one message, from its length until it was handed on.
type hold struct {
	bytes int
	from  [2]*byteBudget // nil where none was taken
}

const (
	// denseBytes of a message may be nothing but entries or blocks of a few bytes, each of which takes
	// denseFactor times as much once it is decoded.
	denseBytes  = 64 << 10
	denseFactor = 16
	// mostHeld is what the longest message takes.
	mostHeld = maxFrameBytes + denseBytes*denseFactor
)

// held is what a message of so many bytes may take until it was handed on.
func held(bytes int) int { return bytes + min(bytes, denseBytes)*denseFactor }

// hold waits for room for a message: among the peer's own and, unless a session uses the peer,
// among those of all strangers. So strangers that dawdle cannot hold up whoever we fetch from.
func (r *remote) hold(bytes int) (hold, error) {
	bytes = held(bytes)
	h := hold{bytes: bytes}
	if err := r.budget.take(r.ctx, bytes); err != nil {
		return h, err
	}
	h.from[0] = r.budget
	if r.inUse.Load() {
		return h, nil
	}
	if err := r.n.shared.take(r.ctx, bytes); err != nil {
		h.give()
		return h, err
	}
	h.from[1] = r.n.shared
	return h, nil
}

func (h hold) give() {
	for _, b := range h.from {
		if b != nil {
			b.give(h.bytes)
		}
	}
}
