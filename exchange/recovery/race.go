package recovery

import (
	"context"
	"errors"
	"slices"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange"
)

const (
	// maxAsked is how many datasets it is remembered of when peers were asked, and what they said.
	maxAsked = 1024
	// maxTold is how many manifests of a dataset peers are listened to for.
	maxTold = 16
)

// race tries the manifests of a dataset one after the other, and the next one beside those before where they take
// long: any of them may lie, or name shards that never come. One goroutine, that of run, uses it.
type race struct {
	r       *Recovery
	want    exchange.Want
	root    cid.Cid
	next    []cid.Cid // not tried yet, best first
	tried   []cid.Cid
	asked   bool // peers were, or may not be
	running int
	ended   chan attempt
}

// attempt is how one manifest did, or what peers told.
type attempt struct {
	block blocks.Block
	told  []cid.Cid
	err   error
}

func (r *Recovery) rescue(ctx context.Context, w exchange.Want) (blocks.Block, error) {
	root := w.Dataset
	if !root.Defined() {
		root = w.CID
	}
	known, err := r.cfg.Register.Of(ctx, root)
	if err != nil {
		return nil, err
	}
	a := &race{r: r, want: w, root: root, ended: make(chan attempt), asked: r.cfg.Ask == nil}
	a.add(r.order(root, known))
	return a.run(ctx)
}

// order is that in which manifests are tried: what helped last, what is known, and what peers told.
func (r *Recovery) order(root cid.Cid, known []cid.Cid) []cid.Cid {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Concat(known, r.told[root])
	if c, ok := r.helped[root]; ok {
		list = append([]cid.Cid{c}, list...)
	}
	return list
}

// add takes manifests up that were not before.
func (a *race) add(list []cid.Cid) {
	for _, c := range a.r.trusted(list) {
		if !slices.Contains(a.tried, c) && !slices.Contains(a.next, c) {
			a.next = append(a.next, c)
		}
	}
}

// run returns the first block that comes, or why none does.
func (a *race) run(ctx context.Context) (blocks.Block, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() { // attempts end with ctx: nobody is left behind
		cancel()
		for ; a.running > 0; a.running-- {
			<-a.ended
		}
	}()
	var failed error = ErrNoManifest
	pause := time.NewTimer(a.r.cfg.NextAfter)
	defer pause.Stop()
	for a.launch(ctx); a.running > 0; {
		select {
		case e := <-a.ended:
			a.running--
			if e.block != nil {
				return e.block, nil
			}
			if e.err != nil && !errors.Is(e.err, erasure.ErrNotFound) {
				failed = e.err
			}
			a.add(e.told)
		case <-pause.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		pause.Reset(a.r.cfg.NextAfter)
		a.launch(ctx)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, failed
}

// launch tries the next manifest. Where none is left peers are asked for more.
func (a *race) launch(ctx context.Context) {
	switch {
	case len(a.next) > 0:
		c := a.next[0]
		a.next, a.tried = a.next[1:], append(a.tried, c)
		a.begin(func() attempt {
			b, err := a.r.by(ctx, c, a.root, a.want)
			return attempt{block: b, err: err}
		})
	case !a.asked:
		a.asked = true
		if !a.r.mayAsk(a.root) {
			return
		}
		a.begin(func() attempt {
			told, err := a.r.ask(ctx, a.root)
			return attempt{told: told, err: err}
		})
	}
}

func (a *race) begin(do func() attempt) {
	a.running++
	go func() { a.ended <- do() }()
}

// ask asks peers for manifests. Those that are for the dataset are remembered while this node runs; for longer when
// one has helped.
func (r *Recovery) ask(ctx context.Context, root cid.Cid) ([]cid.Cid, error) {
	told, err := r.cfg.Ask(ctx, root)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.told[root]
	for _, c := range told {
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	r.told[root] = list[max(0, len(list)-maxTold):]
	return told, nil
}

// asking is when peers were asked about a dataset, and what Config.News was then.
type asking struct {
	at   time.Time
	news uint64
}

// mayAsk says whether it is time to ask peers about a dataset, and that it is done.
func (r *Recovery) mayAsk(root cid.Cid) bool {
	now := asking{at: time.Now()}
	if r.cfg.News != nil {
		now.news = r.cfg.News()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.asked[root]; ok {
		pause := r.cfg.AskEvery
		if last.news != now.news {
			pause = r.cfg.AskNews
		}
		if now.at.Sub(last.at) < pause {
			return false
		}
	}
	if len(r.asked) >= maxAsked {
		for c, last := range r.asked {
			if now.at.Sub(last.at) >= r.cfg.AskEvery || len(r.asked) >= maxAsked {
				delete(r.asked, c)
				delete(r.told, c)
			}
		}
	}
	r.asked[root] = now
	return true
}

func (r *Recovery) trusted(list []cid.Cid) (out []cid.Cid) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range list {
		if _, lied := r.forged[c]; !lied {
			out = append(out, c)
		}
	}
	return out
}
