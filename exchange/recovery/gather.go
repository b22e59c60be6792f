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

// gathering fetches as many shards of a stripe as it takes. One goroutine, that of run, uses it.
//
// Shards are held in memory while enough of them are here or known to come. A gathering that waits for shards which
// nobody is known to have is parked: it lets go of what it holds, so that hopeless stripes never keep others out of
// memory. When there is hope it is read from the store, or fetched, again.
type gathering struct {
	r      *Recovery
	root   cid.Cid
	all    []erasure.Shard
	shards [][]byte // as Reconstruct takes them
	need   int
	have   int   // shards that are here, those of no bytes included
	next   []int // candidates that are not asked for yet, best first

	flying  int
	missing map[int]struct{} // of those flying that nobody is known to have
	landed  []bool
	arrived chan arrival
	absent  chan int // a candidate that nobody seems to have

	memory int64 // bytes to be acquired
	holds  bool  // they are
	parked []int // shards that were let go of
	more   *time.Timer
	giveUp *time.Timer
	chunks []cid.Cid // of the shards
	lost   int       // the shard that is asked for
}

type arrival struct {
	shard int
	block blocks.Block
	err   error
}

func newGathering(r *Recovery, m *erasure.Manifest, found erasure.Found) *gathering {
	all := found.Stripe.Shards()
	return &gathering{r: r, root: m.Root(), all: all, shards: make([][]byte, len(all)), need: len(found.Stripe.Data), chunks: found.Chunks, lost: found.Shard,
		arrived: make(chan arrival, len(all)), absent: make(chan int, 4*len(all)), missing: make(map[int]struct{}), landed: make([]bool, len(all)),
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

// run returns when enough shards are here, and memory is held for them.
func (g *gathering) run(ctx context.Context) error {
	if err := g.begin(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() { // fetches end with ctx: nobody is left behind
		cancel()
		for ; g.flying > 0; g.flying-- {
			<-g.arrived
		}
	}()
	now := make(chan struct{})
	close(now)
	g.searchChunk(ctx, g.lost, now) // it may only not be found
	g.more, g.giveUp = time.NewTimer(g.r.cfg.MoreAfter), time.NewTimer(g.r.cfg.GiveUp)
	defer g.more.Stop()
	defer g.giveUp.Stop()
	for {
		for g.hopes() < g.need && g.launch(ctx) {
		}
		switch {
		case g.have >= g.need:
			return nil
		case g.hopes() >= g.need && !g.holds:
			if err := g.begin(ctx); err != nil { // what was let go of may be gone from the store
				return err
			}
			continue
		case g.hopes() < g.need:
			g.park()
		}
		if err := g.wait(ctx); err != nil {
			return err
		}
	}
}

// hopes is how many shards are here or may come, as far as is known.
func (g *gathering) hopes() int { return g.have + len(g.parked) + g.flying - len(g.missing) }

// wait takes in the next thing that happens.
func (g *gathering) wait(ctx context.Context) error {
	select {
	case a := <-g.arrived:
		g.land(ctx, a)
		if a.err != nil && g.flying == 0 && len(g.next) == 0 && g.hopes() < g.need {
			return g.tooFew()
		}
	case i := <-g.absent:
		if !g.landed[i] {
			g.missing[i] = struct{}{}
		}
	case <-g.more.C:
		g.launch(ctx)
		g.more.Reset(g.r.cfg.MoreAfter)
	case <-g.giveUp.C:
		if !g.holds {
			return g.tooFew()
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (g *gathering) tooFew() error {
	return fmt.Errorf("%w: %d of %d", erasure.ErrTooFew, g.have+len(g.parked), g.need)
}

// land takes in how a fetch has ended.
func (g *gathering) land(ctx context.Context, a arrival) {
	g.flying--
	delete(g.missing, a.shard)
	g.landed[a.shard] = true
	switch {
	case a.err != nil && ctx.Err() == nil: // it can't come: another one takes its place
		g.r.log.Debug("shard not fetched", "shard", g.all[a.shard].CID, "err", a.err)
	case a.err != nil:
	case g.holds:
		g.take(a.shard, a.block)
		g.more.Reset(g.r.cfg.MoreAfter)
	case len(a.block.RawData()) == g.all[a.shard].Bytes:
		g.parked = append(g.parked, a.shard)
	}
}

// park lets go of all that is held.
func (g *gathering) park() {
	if !g.holds {
		return
	}
	for i, s := range g.shards {
		if len(s) > 0 {
			g.shards[i] = nil
			g.parked = append(g.parked, i)
			g.have--
		}
	}
	g.release()
	g.giveUp.Reset(g.r.cfg.GiveUp)
}

func (g *gathering) release() {
	if g.holds {
		g.holds = false
		g.r.memory.Release(g.memory)
	}
}

// begin takes memory, the shards that are in the store, and those that have no bytes.
func (g *gathering) begin(ctx context.Context) error {
	if err := g.r.memory.Acquire(ctx, g.memory); err != nil {
		return context.Cause(ctx)
	}
	g.holds = true
	candidates := append(g.parked, g.next...)
	g.parked, g.next = nil, nil
	for at, i := range candidates {
		if g.all[i].Bytes == 0 {
			g.have++
			continue
		}
		if g.have >= g.need {
			g.next = append(g.next, candidates[at:]...)
			break
		}
		b, err := g.r.cfg.Store.Get(ctx, g.all[i].CID)
		switch {
		case err == nil:
			g.take(i, b)
		case errors.Is(err, exchange.ErrNotFound):
			g.next = append(g.next, i)
		default:
			return err
		}
	}
	return nil
}

// take keeps a shard. One of another length than the manifest says is of no use.
func (g *gathering) take(i int, b blocks.Block) {
	if len(b.RawData()) == g.all[i].Bytes && g.shards[i] == nil {
		g.shards[i] = b.RawData()
		g.have++
	}
}

// searchChunk looks for who keeps a shard's chunk, once nobody known has the shard. Whoever waits for the shard gets it.
func (g *gathering) searchChunk(ctx context.Context, i int, lacking <-chan struct{}) {
	if i >= len(g.chunks) || !g.chunks[i].Defined() {
		return
	}
	want := exchange.Want{CID: g.all[i].CID, Dataset: g.chunks[i], Passing: i >= g.need}
	g.r.work.Go(func() {
		select {
		case <-lacking:
		case <-ctx.Done():
			return
		}
		if _, err := g.r.cfg.Engine.FetchPlain(ctx, want, nil); err != nil && ctx.Err() == nil {
			g.r.log.Debug("shard not found by its chunk", "cid", want.CID, "chunk", want.Dataset, "err", err)
		}
	})
}

// launch asks for the next candidate; false says that there is none.
func (g *gathering) launch(ctx context.Context) bool {
	if len(g.next) == 0 {
		return false
	}
	i := g.next[0]
	g.next = g.next[1:]
	g.flying++
	g.landed[i] = false
	g.r.counts.shards.Add(1)
	told, lacking := false, make(chan struct{})
	missing := func() { // from one goroutine
		if told {
			return
		}
		told = true
		close(lacking)
		select {
		case g.absent <- i:
		default: // so often as this it was lost and found; it is waited for
		}
	}
	g.searchChunk(ctx, i, lacking)
	want := exchange.Want{CID: g.all[i].CID, Dataset: g.root, Passing: i >= g.need} // parity is of no use here afterwards
	g.r.work.Go(func() {
		b, err := g.r.cfg.Engine.FetchPlain(ctx, want, missing)
		g.arrived <- arrival{i, b, err}
	})
	return true
}
