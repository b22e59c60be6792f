package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange"
)

// flightKey names a stripe of a manifest by its first shard.
type flightKey struct{ manifest, first cid.Cid }

// flight is one stripe being rebuilt, for all who wait for any of its blocks.
type flight struct {
	waiters int // guarded by the Recovery's lock
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when data or err is set
	data    [][]byte      // the stripe's blocks; those that were neither lost nor needed are nil
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
		f = &flight{done: make(chan struct{})}
		r.flights[key] = f
		fctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		f.cancel = cancel
		r.work.Go(func() { r.fly(fctx, key, f, m, found) })
	}
	f.waiters++
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.data, f.err
	case <-ctx.Done():
		r.leave(key, f)
		return nil, context.Cause(ctx)
	}
}

// leave takes a waiter away; with the last one the flight ends.
func (r *Recovery) leave(key flightKey, f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiters--; f.waiters == 0 && r.flights[key] == f {
		delete(r.flights, key)
		f.cancel(errNobodyWaits)
	}
}

// fly rebuilds one stripe.
func (r *Recovery) fly(ctx context.Context, key flightKey, f *flight, m *erasure.Manifest, found erasure.Found) {
	began := time.Now()
	f.data, f.err = r.rebuild(ctx, m, found)
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
	if r.counts.stripes.Add(1) == 1 {
		r.log.Info("lost blocks are rebuilt from their stripes", "dataset", m.Root(), "manifest", key.manifest)
	}
	r.log.Debug("stripe rebuilt", "manifest", key.manifest, "stripe", key.first, "took", time.Since(began))
}

// rebuild gathers shards, decodes what is lost of the stripe's blocks, checks and keeps it.
func (r *Recovery) rebuild(ctx context.Context, m *erasure.Manifest, found erasure.Found) ([][]byte, error) {
	s := found.Stripe
	codec, err := codecOf(m)
	if err != nil {
		return nil, err
	}
	n := int64(s.Width()) * int64(len(s.Data)+len(s.Parity))
	if n > r.cfg.Bytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	if err := r.memory.Acquire(ctx, n); err != nil {
		return nil, context.Cause(ctx)
	}
	defer r.memory.Release(n)
	g := newGathering(r, m, found)
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
	if err := r.keep(ctx, s.Data, g.shards, lost); err != nil {
		return nil, err
	}
	return g.shards[:len(s.Data)], nil
}

func codecOf(m *erasure.Manifest) (*erasure.Codec, error) {
	k, parity := m.Code()
	return erasure.New(k, parity)
}

// keep checks the blocks that were lost and puts them into the store. A store that refuses them is no reason to withhold
// them from their readers.
func (r *Recovery) keep(ctx context.Context, data []erasure.Shard, shards, before [][]byte) error {
	var arrivals []exchange.Arrival
	for i, d := range data {
		if len(before[i]) > 0 || d.Bytes == 0 {
			continue
		}
		b, err := verified(d.CID, shards[i])
		if err != nil {
			return fmt.Errorf("block %s of it: %w", d.CID, err)
		}
		arrivals = append(arrivals, exchange.Arrival{Block: b})
		r.counts.bytes.Add(uint64(d.Bytes))
	}
	r.counts.rebuilt.Add(uint64(len(arrivals)))
	if err := r.cfg.Store.Put(ctx, arrivals); err != nil && ctx.Err() == nil {
		r.log.Warn("rebuilt blocks are not kept", "blocks", len(arrivals), "err", err)
	}
	return nil
}

// gathering fetches as many shards of a stripe as it takes. One goroutine, that of run, uses it.
type gathering struct {
	r       *Recovery
	root    cid.Cid
	stripe  erasure.Stripe
	all     []erasure.Shard
	shards  [][]byte // as Reconstruct takes them
	have    int      // shards that are here, those of no bytes included
	need    int
	next    []int // candidates that are not asked for yet, best first
	flying  int
	missing map[int]struct{} // of those flying that nobody is known to have
	landed  []bool
	arrived chan arrival
	absent  chan int // a candidate that nobody seems to have; room for each once
}

type arrival struct {
	shard int
	block blocks.Block
	err   error
}

func newGathering(r *Recovery, m *erasure.Manifest, found erasure.Found) *gathering {
	all := found.Stripe.Shards()
	return &gathering{r: r, root: m.Root(), stripe: found.Stripe, all: all, shards: make([][]byte, len(all)), need: len(found.Stripe.Data),
		arrived: make(chan arrival, len(all)), absent: make(chan int, len(all)), missing: make(map[int]struct{}), landed: make([]bool, len(all)),
		next: order(found)}
}

// order is that in which shards are asked for: the stripe's other blocks, then parity, and the lost block itself last.
func order(found erasure.Found) (out []int) {
	for i := range len(found.Stripe.Data) + len(found.Stripe.Parity) {
		if i != found.Shard {
			out = append(out, i)
		}
	}
	return append(out, found.Shard)
}

// run returns when enough shards are here.
func (g *gathering) run(ctx context.Context) error {
	if err := g.local(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() { // fetches end with ctx: nobody is left behind
		cancel()
		for ; g.flying > 0; g.flying-- {
			<-g.arrived
		}
	}()
	more := time.NewTimer(g.r.cfg.MoreAfter)
	defer more.Stop()
	for g.have < g.need {
		for g.have+g.flying-len(g.missing) < g.need && g.launch(ctx) {
		}
		select {
		case a := <-g.arrived:
			g.flying--
			delete(g.missing, a.shard)
			g.landed[a.shard] = true
			if a.err != nil { // it can't come: another one takes its place
				if ctx.Err() == nil {
					g.r.log.Debug("shard not fetched", "shard", g.all[a.shard].CID, "err", a.err)
				}
				if g.flying == 0 && len(g.next) == 0 && g.have < g.need {
					return fmt.Errorf("%w: %d of %d: %w", erasure.ErrTooFew, g.have, g.need, a.err)
				}
				continue
			}
			g.take(a.shard, a.block)
			more.Reset(g.r.cfg.MoreAfter)
		case i := <-g.absent:
			if !g.landed[i] {
				g.missing[i] = struct{}{}
			}
		case <-more.C:
			g.launch(ctx)
			more.Reset(g.r.cfg.MoreAfter)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// local takes the shards that are in the store, and those that have no bytes.
func (g *gathering) local(ctx context.Context) error {
	var rest []int
	for _, i := range g.next {
		if g.all[i].Bytes == 0 {
			g.have++
			continue
		}
		if g.have >= g.need {
			break
		}
		b, err := g.r.cfg.Store.Get(ctx, g.all[i].CID)
		switch {
		case err == nil:
			g.take(i, b)
		case errors.Is(err, exchange.ErrNotFound):
			rest = append(rest, i)
		default:
			return err
		}
	}
	g.next = rest
	return nil
}

// take keeps a shard. One of another length than the manifest says is of no use.
func (g *gathering) take(i int, b blocks.Block) {
	if len(b.RawData()) == g.all[i].Bytes && g.shards[i] == nil {
		g.shards[i] = b.RawData()
		g.have++
	}
}

// launch asks for the next candidate; false says that there is none.
func (g *gathering) launch(ctx context.Context) bool {
	if len(g.next) == 0 {
		return false
	}
	i := g.next[0]
	g.next = g.next[1:]
	g.flying++
	g.r.counts.shards.Add(1)
	told := false
	missing := func() { // from one goroutine
		if !told {
			told = true
			g.absent <- i
		}
	}
	g.r.work.Go(func() {
		b, err := g.r.cfg.Engine.FetchPlain(ctx, exchange.Want{CID: g.all[i].CID, Dataset: g.root}, missing)
		g.arrived <- arrival{i, b, err}
	})
	return true
}
