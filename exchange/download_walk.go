package exchange

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// walkWorkers is how many goroutines of a download look into the store.
const walkWorkers = 4

// walk goes over a DAG. Links not yet followed are kept in frames, one a node, and taken breadth first.
//
// Memory is bounded by Limits.DownloadLinks: while half as many links wait they are taken depth first,
// and nodes that arrive while all of them wait are not expanded but set aside, by their CID alone, and
// read from the store again when there is room. So a walk holds that many links, plus those of one
// node, plus half as many CIDs a level of the DAG, whatever the DAG's size.
type walk struct {
	e     *Exchange
	t     *transfer
	limit int

	frames  [][]Want
	waiting int // links in frames
	aside   []Want
	seen    map[[2]uint64]struct{} // inner nodes that were taken
	seeds   [2]maphash.Seed
	under   int    // wants under way
	begun   bool   // a block came from a peer
	watch   func() // for tests: called after every outcome

	checks   chan step
	outcomes chan outcome // has room for all that is under way, so that nobody blocks on it

	// mu guards open, the requests that are not answered.
	mu   sync.Mutex
	open map[intentID]struct{}
}

// step is a want to be taken. again says that it was here already, and was set aside then.
type step struct {
	want  Want
	again bool
}

// outcome is what became of a step.
type outcome struct {
	step
	bytes    int
	local    bool
	fresh    blocks.Block // it came from a peer; its links are yet to be followed
	children []Want
	err      error
}

func newWalk(e *Exchange, t *transfer) *walk {
	return &walk{
		e: e, t: t, limit: e.limits.DownloadLinks,
		seen:     make(map[[2]uint64]struct{}),
		seeds:    [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		checks:   make(chan step, e.limits.DownloadWants),
		outcomes: make(chan outcome, e.limits.DownloadWants),
		open:     make(map[intentID]struct{}),
	}
}

// run returns nil once every block of the DAG is in the store.
func (w *walk) run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range walkWorkers {
		workers.Go(func() { w.work(ctx) })
	}
	err := w.drive(ctx)
	close(w.checks)
	workers.Wait()
	w.mu.Lock()
	open := slices.Collect(maps.Keys(w.open))
	w.mu.Unlock()
	for _, id := range open {
		w.e.forget(id)
	}
	return err
}

// drive keeps as many wants under way as allowed until none is left.
func (w *walk) drive(ctx context.Context) error {
	w.grow([]Want{w.t.root})
	w.t.publish(func(p *Progress) { p.FoundBlocks = 1 })
	for {
		for w.under < cap(w.outcomes) {
			next, ok := w.next()
			if !ok {
				break
			}
			w.under++
			w.checks <- next // there is room for all that may be under way
		}
		w.tell()
		if w.under == 0 {
			return nil
		}
		select {
		case o := <-w.outcomes:
			if err := w.took(o); err != nil {
				return err
			}
			if w.watch != nil {
				w.watch()
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tell lets others know how much of its limits the walk uses.
func (w *walk) tell() {
	w.t.under.Store(int64(w.under))
	w.t.links.Store(int64(w.waiting))
	w.t.nodes.Store(int64(len(w.seen)))
}

// took takes in what became of a step.
func (w *walk) took(o outcome) error {
	w.under--
	if o.fresh != nil {
		w.expand(&o, o.fresh)
	}
	if o.err != nil {
		return o.err
	}
	if o.fresh != nil && !w.begun {
		w.begun = true
		w.e.downloads.began(w.t)
	}
	if len(o.children) > 0 {
		if w.waiting >= w.limit {
			w.aside = append(w.aside, o.want)
		} else {
			w.grow(o.children)
		}
	}
	if o.again {
		return nil
	}
	w.t.publish(func(p *Progress) {
		p.Blocks++
		p.Bytes += uint64(o.bytes)
		p.FoundBlocks += uint64(len(o.children))
		if o.local {
			p.LocalBlocks++
			p.LocalBytes += uint64(o.bytes)
		}
	})
	return nil
}

// grow adds a node's links.
func (w *walk) grow(links []Want) {
	w.frames = append(w.frames, links)
	w.waiting += len(links)
}

// next returns the next step, or false when nothing can be taken now.
func (w *walk) next() (step, bool) {
	for {
		if n := len(w.aside); n > 0 && w.waiting < w.limit/2 {
			s := step{w.aside[n-1], true}
			w.aside = w.aside[:n-1]
			return s, true
		}
		if len(w.frames) == 0 {
			return step{}, false
		}
		s := step{want: w.pop()}
		if w.first(s.want.CID) {
			return s, true
		}
		w.t.publish(func(p *Progress) { p.FoundBlocks-- })
	}
}

// pop takes the next link: of the oldest node while few links wait, of the newest otherwise.
func (w *walk) pop() Want {
	i := 0
	if w.waiting+len(w.aside) > w.limit/2 {
		i = len(w.frames) - 1
	}
	link := w.frames[i][0]
	w.waiting--
	switch w.frames[i] = w.frames[i][1:]; {
	case len(w.frames[i]) > 0:
	case i == 0:
		w.frames = w.frames[1:]
	default:
		w.frames = w.frames[:i]
	}
	return link
}

// first says whether c is to be taken: leaves always, as they lead nowhere; inner nodes once, or a DAG
// that links itself over and over would take forever. Nodes are told apart by 128 bits of a seeded
// hash; past Limits.DownloadNodes further ones are taken as often as they are met.
func (w *walk) first(c cid.Cid) bool {
	if c.Prefix().Codec == cid.Raw {
		return true
	}
	key := [2]uint64{maphash.String(w.seeds[0], c.KeyString()), maphash.String(w.seeds[1], c.KeyString())}
	if _, ok := w.seen[key]; ok {
		return false
	}
	if len(w.seen) < w.e.limits.DownloadNodes {
		w.seen[key] = struct{}{}
	}
	return true
}

// work takes steps until there are no more. After ctx has ended they are drained.
func (w *walk) work(ctx context.Context) {
	for s := range w.checks {
		if ctx.Err() != nil {
			continue
		}
		o, here := w.look(ctx, s)
		if here {
			w.outcomes <- o
			continue
		}
		w.fetch(ctx, s)
	}
}

// look answers a step from the store, if the block is there.
func (w *walk) look(ctx context.Context, s step) (o outcome, here bool) {
	o = outcome{step: s, local: true}
	c := s.want.CID
	b, err := answerLocally(c)
	switch {
	case b != nil || err != nil:
	case c.Prefix().Codec == cid.Raw:
		o.bytes, err = w.e.cfg.Store.SizeOf(ctx, c)
	default:
		b, err = w.e.cfg.Store.Get(ctx, c)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return outcome{}, false
	case err != nil:
		o.err = fmt.Errorf("look for block %s: %w", c, err)
	case b != nil:
		w.expand(&o, b)
	}
	return o, true
}

// fetch asks peers for a step's block. The outcome follows.
func (w *walk) fetch(ctx context.Context, s step) {
	id := w.e.newIntent()
	w.mu.Lock()
	w.open[id] = struct{}{}
	w.mu.Unlock()
	deliver := func(b blocks.Block, err error) {
		w.mu.Lock()
		delete(w.open, id)
		w.mu.Unlock()
		w.outcomes <- w.fetched(s, b, err)
	}
	err := w.e.request(ctx, wantEvent{intent: id, want: s.want, bulk: true, rescue: true}, caller{deliver: deliver})
	if err != nil {
		w.outcomes <- outcome{step: s, err: fetchError(s.want.CID, err)}
	}
}

// fetched is the outcome of a request. A download is for the store: a block that can't be kept fails it.
func (w *walk) fetched(s step, b blocks.Block, err error) outcome {
	o := outcome{step: s}
	switch {
	case b == nil:
		o.err = fetchError(s.want.CID, err)
		return o
	case err != nil:
		o.err = fmt.Errorf("keep block %s: %w", s.want.CID, err)
		return o
	}
	o.fresh = b
	return o
}

// expand takes a block's links in.
func (w *walk) expand(o *outcome, b blocks.Block) {
	o.bytes = len(b.RawData())
	if o.want.CID.Prefix().Codec == cid.Raw || w.t.part.rootOnly {
		return
	}
	if o.children, o.err = w.e.cfg.Links(o.want, b); o.err == nil && w.t.part != wholeDAG {
		o.children, o.err = w.within(o.children)
	}
	if o.err != nil {
		o.err = fmt.Errorf("follow links of block %s: %w", o.want.CID, o.err)
	}
}

// within returns those of a file node's links that hold bytes of the part. What is said to be empty has no
// place in a file, and nor has anything in a directory.
func (w *walk) within(links []Want) ([]Want, error) {
	base := w.t.root.Place.Offset
	var in []Want
	file := len(links) == 0
	for _, c := range links {
		p := c.Place
		if !p.File.Defined() || p.Offset < base {
			continue
		}
		file = true
		if at := p.Offset - base; at < w.t.part.end && at+p.Bytes > w.t.part.start {
			in = append(in, c)
		}
	}
	if !file {
		return nil, fmt.Errorf("%w: bytes from %d of what is not a file", ErrInvalid, w.t.part.start)
	}
	return in, nil
}
