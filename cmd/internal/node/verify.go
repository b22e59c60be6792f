package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

const (
	// verifyStripes is how many stripes are looked at in parallel; each waits for peers to answer.
	verifyStripes = 32
	// probePatience is how long it may take to find somebody who has a block, and all who have any of the dataset.
	probePatience = 5 * time.Second
	// maxProblems is how many stripes with losses a report names.
	maxProblems = 1000
)

// standing is where a block was found.
type standing uint8

const (
	absent standing = iota
	local
	reachable
)

// verifier looks for every block of a dataset.
type verifier struct {
	n    *Node
	root cid.Cid
	deep bool // read and fetch every block, rather than ask who has it
	wait time.Duration

	searching context.Context // ends when those who have any of the dataset had time to be found

	mu     sync.Mutex // guards what follows
	report api.Verified
	told   func(api.Progress)
}

// Verify finds out which blocks of content are here, at peers, recoverable, or lost.
func (n *Node) Verify(ctx context.Context, r api.Read, deep bool, progress func(api.Progress)) (api.Verified, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, m, err := n.verifier(ctx, r, deep, progress)
	if err != nil {
		return api.Verified{}, answer(err)
	}
	if m == nil {
		err = v.tree(ctx)
	} else {
		err = v.stripes(ctx, m, v.stripe)
	}
	return v.report, answer(err)
}

// verifier begins a report on what r names, and opens a manifest that protects it, if one is known here or to a peer.
func (n *Node) verifier(ctx context.Context, r api.Read, deep bool, progress func(api.Progress)) (*verifier, *erasure.Manifest, error) {
	if r.Path != "" {
		return nil, nil, &api.Error{Code: api.CodeUsage, Message: "a CID alone is wanted, without a path"}
	}
	root, err := n.mayRead(ctx, r.CID, r.Spending)
	if err != nil {
		return nil, nil, err
	}
	v := &verifier{n: n, root: root, deep: deep, wait: min(n.timeout(r), probePatience), told: progress}
	if deep {
		v.wait = n.timeout(r)
	}
	searching, cancel := context.WithTimeout(ctx, min(v.wait, probePatience))
	context.AfterFunc(ctx, cancel)
	v.searching = searching
	v.report.Root = root.String()
	m, err := v.manifest(ctx, r.CID)
	if err != nil {
		return nil, nil, err
	}
	if m != nil {
		v.report.Manifest = m.CID().String()
		v.report.K, v.report.M = m.Code()
	}
	return v, m, nil
}

// manifest opens the manifest that c is, or one that protects c: which is known here, or which a peer tells of.
func (v *verifier) manifest(ctx context.Context, c cid.Cid) (*erasure.Manifest, error) {
	if !c.Equals(v.root) {
		return v.n.manifestOf(ctx, c)
	}
	known, err := v.n.register.Of(ctx, v.root)
	if err != nil {
		return nil, err
	}
	if len(known) == 0 {
		return v.askManifest(ctx)
	}
	return v.n.manifestOf(ctx, known[0])
}

// stripes calls do for every stripe, several at a time.
func (v *verifier) stripes(ctx context.Context, m *erasure.Manifest, do func(context.Context, uint64, erasure.Stripe) error) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(verifyStripes)
	var number uint64
	var failed error
	for s, err := range m.Stripes(ctx) {
		if err != nil {
			failed = err
			break
		}
		n := number
		number++
		work.Go(func() error { return do(ctx, n, s) })
	}
	return errors.Join(work.Wait(), failed)
}

// stripe looks at one stripe and adds it to the report.
func (v *verifier) stripe(ctx context.Context, number uint64, s erasure.Stripe) error {
	found, err := v.look(ctx, s)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.count(number, s, found)
	return nil
}

// look finds where the shards of a stripe are.
func (v *verifier) look(ctx context.Context, s erasure.Stripe) ([]standing, error) {
	shards := s.Shards()
	found := make([]standing, len(shards))
	work, ctx := errgroup.WithContext(ctx)
	for i, shard := range shards {
		if shard.Bytes == 0 {
			found[i] = local // nothing of it can be lost
			continue
		}
		work.Go(func() (err error) {
			found[i], err = v.find(ctx, shard.CID)
			return err
		})
	}
	return found, work.Wait()
}

// count adds a stripe to the report. v.mu is held.
func (v *verifier) count(number uint64, s erasure.Stripe, found []standing) {
	r := &v.report
	r.Stripes++
	have := 0
	for _, f := range found {
		if f != absent {
			have++
		}
	}
	enough := have >= len(s.Data)
	problem := api.StripeReport{Stripe: number, Blocks: len(s.Data), Parity: len(s.Parity)}
	for i, f := range found {
		if i >= len(s.Data) {
			add(&r.Parity, f)
			if f == absent {
				problem.LostParity++
				r.Parity.Lost++
			}
			continue
		}
		switch {
		case f != absent:
			add(&r.Data, f)
		case enough:
			r.Data.Recoverable++
			problem.Recoverable++
		default:
			r.Data.Lost++
			problem.Lost = append(problem.Lost, s.Data[i].CID.String())
		}
		r.Bytes += uint64(s.Data[i].Bytes)
	}
	if !enough {
		r.LostStripes++
	} else if have-len(s.Data) < len(s.Parity) {
		r.WeakStripes++
	}
	if have < len(found) && len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, problem)
	}
	v.tell()
}

// add counts a block that was found.
func add(to *api.Found, s standing) {
	switch s {
	case local:
		to.Local++
	case reachable:
		to.Reachable++
	}
}

func (v *verifier) tell() {
	if v.told != nil {
		d := v.report.Data
		v.told(api.Progress{Blocks: d.Local + d.Reachable + d.Recoverable + d.Lost, Bytes: v.report.Bytes})
	}
}

// find says where a block is. Not to find it is no error.
func (v *verifier) find(ctx context.Context, c cid.Cid) (standing, error) {
	if isIdentity(c) {
		return local, nil
	}
	here, err := v.here(ctx, c)
	if err != nil || here {
		return local, err
	}
	limited, cancel := context.WithTimeout(ctx, v.wait)
	defer cancel()
	want := exchange.Want{CID: c, Dataset: v.root}
	missing := func() { context.AfterFunc(v.searching, cancel) }
	if v.deep {
		_, err = v.n.exchange.FetchPlain(limited, want, missing)
	} else {
		err = v.n.exchange.Probe(limited, want, missing)
	}
	switch {
	case err == nil:
		return reachable, nil
	case ctx.Err() != nil:
		return absent, context.Cause(ctx)
	}
	return absent, nil
}

// here says whether a block is in the local store; if deep, and whole.
func (v *verifier) here(ctx context.Context, c cid.Cid) (bool, error) {
	var err error
	if v.deep {
		var got cid.Cid
		b, gerr := v.n.store.Get(ctx, blockcache.Want{CID: c})
		if err = gerr; err == nil {
			if got, err = c.Prefix().Sum(b.RawData()); err == nil && !got.Equals(c) {
				return false, v.n.store.Delete(ctx, []cid.Cid{c})
			}
		}
	} else {
		_, err = v.n.store.SizeOf(ctx, c)
	}
	if errors.Is(err, blockcache.ErrNotFound) || errors.Is(err, blockcache.ErrCorrupt) {
		return false, nil
	}
	return err == nil, err
}

// tree looks at every block of a dataset that no manifest protects. What lies below a lost node is not known.
func (v *verifier) tree(ctx context.Context) error {
	return v.level(ctx, []unixfs.Want{{CID: v.root, Dataset: v.root}}, cid.NewSet())
}

func (v *verifier) level(ctx context.Context, wants []unixfs.Want, seen *cid.Set) error {
	found := make([]standing, len(wants))
	work, wctx := errgroup.WithContext(ctx)
	work.SetLimit(verifyStripes)
	for i, w := range wants {
		work.Go(func() (err error) {
			found[i], err = v.find(wctx, w.CID)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for i, w := range wants {
		v.mu.Lock()
		v.report.Bytes += w.Place.Bytes
		if found[i] == absent {
			v.report.Data.Lost++
		} else {
			add(&v.report.Data, found[i])
		}
		v.tell()
		v.mu.Unlock()
		if found[i] == absent || isRaw(w.CID) || !seen.Visit(w.CID) {
			continue
		}
		children, err := v.children(ctx, w)
		if err != nil {
			return err
		}
		if err := v.level(ctx, children, seen); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) children(ctx context.Context, w unixfs.Want) ([]unixfs.Want, error) {
	b, err := v.block(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", w.CID, err)
	}
	return unixfs.Links(w, b)
}
