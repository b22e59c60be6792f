package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange"
)

// flightKey names a stripe of a manifest by its first shard.
type flightKey struct{ manifest, first cid.Cid }

// flight is one stripe being rebuilt, for all who wait for any of its blocks.
type flight struct {
	waiters int   // guarded by the Recovery's lock
	wanted  []int // how many of them wait for each block; guarded by the same
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when data or err is set
	data    [][]byte      // the stripe's blocks; those that were neither lost nor needed are nil
	rebuilt int           // how many of them were computed: none where what was lost came after all
	err     error
}

var errNobodyWaits = errors.New("nobody waits for it any more")

// stripe rebuilds a stripe, or waits for who does, and returns its blocks.
func (r *Recovery) stripe(ctx context.Context, m *erasure.Manifest, found erasure.Found) ([][]byte, error) {
	key := flightKey{m.CID(), found.Stripe.Data[0].CID}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, exchange.ErrClosed
	}
	f := r.flights[key]
	if f == nil {
		f = &flight{done: make(chan struct{}), wanted: make([]int, len(found.Stripe.Data))}
		r.flights[key] = f
		fctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		f.cancel = cancel
		r.work.Go(func() { r.fly(fctx, key, f, m, found) })
	}
	f.waiters++
	f.wanted[found.Shard]++
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.data, f.err
	case <-ctx.Done():
		r.leave(key, f, found.Shard)
		return nil, context.Cause(ctx)
	}
}

// leave takes a waiter away; with the last one the flight ends.
func (r *Recovery) leave(key flightKey, f *flight, shard int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.wanted[shard]--
	if f.waiters--; f.waiters == 0 && r.flights[key] == f {
		delete(r.flights, key)
		f.cancel(errNobodyWaits)
	}
}

// fly rebuilds one stripe.
func (r *Recovery) fly(ctx context.Context, key flightKey, f *flight, m *erasure.Manifest, found erasure.Found) {
	began := time.Now()
	f.data, f.err = r.rebuild(ctx, f, m, found)
	f.cancel(errNobodyWaits)
	r.mu.Lock()
	if r.flights[key] == f {
		delete(r.flights, key)
	}
	r.mu.Unlock()
	close(f.done)
	if f.err != nil {
		r.log.Debug("stripe not rebuilt", "manifest", key.manifest, "stripe", key.first, "err", f.err)
		return
	}
	if f.rebuilt > 0 && r.counts.stripes.Add(1) == 1 {
		r.log.Info("lost blocks are rebuilt from their stripes", "dataset", m.Root(), "manifest", key.manifest)
	}
	r.log.Debug("stripe rebuilt", "manifest", key.manifest, "stripe", key.first, "took", time.Since(began))
}

// rebuild gathers shards, decodes what is lost of the stripe's blocks, checks and keeps it.
func (r *Recovery) rebuild(ctx context.Context, f *flight, m *erasure.Manifest, found erasure.Found) ([][]byte, error) {
	s := found.Stripe
	codec, err := codecOf(m)
	if err != nil {
		return nil, err
	}
	n := int64(s.Width()) * int64(len(s.Data)+len(s.Parity))
	if n > r.cfg.Stripe {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	g := newGathering(r, m, found)
	g.memory = min(n, r.cfg.Bytes)
	defer g.release()
	if err := g.run(ctx); err != nil {
		return nil, err
	}
	want := make([]bool, len(g.shards))
	for i := range s.Data {
		want[i] = len(g.shards[i]) == 0
	}
	lost := append([][]byte(nil), g.shards[:len(s.Data)]...)
	if err := codec.Reconstruct(g.shards, s.Lengths(), want); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if err := r.keep(ctx, f, s.Data, g.shards, lost); err != nil {
		return nil, err
	}
	return g.shards[:len(s.Data)], nil
}

func codecOf(m *erasure.Manifest) (*erasure.Codec, error) {
	k, parity := m.Code()
	return erasure.New(k, parity)
}

// keep checks the blocks that were lost, and puts those into the store that nobody waits for: of the others it is known
// to who waits where they belong. A store that refuses them is no reason to withhold them from their readers.
func (r *Recovery) keep(ctx context.Context, f *flight, data []erasure.Shard, shards, before [][]byte) error {
	var arrivals []exchange.Arrival
	for i, d := range data {
		if len(before[i]) > 0 || d.Bytes == 0 {
			continue
		}
		b, err := verified(d.CID, shards[i])
		if err != nil {
			return fmt.Errorf("block %s of it: %w", d.CID, err)
		}
		f.rebuilt++
		r.counts.bytes.Add(uint64(d.Bytes))
		r.mu.Lock()
		wanted := f.wanted[i] > 0
		r.mu.Unlock()
		if !wanted {
			arrivals = append(arrivals, exchange.Arrival{Block: b})
		}
	}
	r.counts.rebuilt.Add(uint64(f.rebuilt))
	if len(arrivals) == 0 {
		return nil
	}
	if err := r.cfg.Store.Put(ctx, arrivals); err != nil && ctx.Err() == nil {
		r.log.Warn("rebuilt blocks are not kept", "blocks", len(arrivals), "err", err)
	}
	return nil
}
