package exchange

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
)

const (
	// putBlocks and putBytes bound one call of Store.Put.
	putBlocks = 256
	putBytes  = 8 * mib
)

// stage holds arrivals on their way to the store. The machine bounds it: it asks for no more than
// Limits.TotalBytes, and the loop hears no network while Limits.StoreBytes are here.
type stage struct {
	// mu guards queue.
	mu    sync.Mutex
	queue []Arrival
	some  chan struct{} // has an element when the queue may have one
	busy  atomic.Int64  // workers in Store.Put
}

func newStage() *stage { return &stage{some: make(chan struct{}, 1)} }

// add queues arrivals. It never blocks.
func (s *stage) add(arrivals []Arrival) {
	s.mu.Lock()
	s.queue = append(s.queue, arrivals...)
	s.mu.Unlock()
	s.wake()
}

func (s *stage) wake() {
	select {
	case s.some <- struct{}{}:
	default:
	}
}

// take returns the next batch, or nil if ctx ended first. Files stay together as they arrived.
func (s *stage) take(ctx context.Context) []Arrival {
	for {
		select {
		case <-s.some:
		case <-ctx.Done():
			return nil
		}
		if batch := s.cut(); len(batch) > 0 {
			return batch
		}
	}
}

// cut takes a batch off the queue and wakes another worker if some is left.
func (s *stage) cut() []Arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := 0, 0
	for n < len(s.queue) && n < putBlocks && (n == 0 || bytes < putBytes) {
		bytes += len(s.queue[n].Block.RawData())
		n++
	}
	batch := slices.Clone(s.queue[:n])
	clear(s.queue[:n]) // what was cut off must not be held on to
	s.queue = s.queue[n:]
	if len(s.queue) == 0 {
		s.queue = nil
	} else {
		s.wake()
	}
	return batch
}

// storeArrivals writes batches until ctx ends.
func (e *Exchange) storeArrivals(ctx context.Context) {
	for batch := e.storing.take(ctx); batch != nil; batch = e.storing.take(ctx) {
		e.storing.busy.Add(1)
		var err error
		if kept := slices.DeleteFunc(slices.Clone(batch), func(a Arrival) bool { return a.Passing }); len(kept) > 0 {
			err = e.cfg.Store.Put(ctx, kept)
		}
		e.storing.busy.Add(-1)
		if bad := err != nil && ctx.Err() == nil; e.storeBad.Swap(bad) != bad && bad {
			e.log.Error("fetched blocks can't be kept: they are passed on, and fetched again when needed", "op", "put", "err", err)
		}
		e.tellStored(ctx, batch, err)
	}
}

// tellStored tells the machine, and the network, which may have peers that wait for these blocks.
func (e *Exchange) tellStored(ctx context.Context, batch []Arrival, err error) {
	var all, kept []cid.Cid
	for _, a := range batch {
		all = append(all, a.Block.Cid())
		if !a.Passing {
			kept = append(kept, a.Block.Cid())
		}
	}
	e.answer(ctx, storedEvent{all, err})
	if n, ok := e.cfg.Network.(interface{ NotifyNewBlocks(...cid.Cid) }); ok && err == nil {
		n.NotifyNewBlocks(kept...)
	}
}
