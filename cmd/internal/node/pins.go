package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// getter is a way to a block: with the network or without.
type getter func(context.Context, unixfs.Want) (blocks.Block, error)

// progressEvery is how often a pin says how far it has come.
const progressEvery = 200 * time.Millisecond

// Pin fetches a DAG and keeps it. What has come stays pinned when it fails, so that the next try goes on.
func (n *Node) Pin(ctx context.Context, r api.Read, progress func(api.Progress)) (api.Pin, error) {
	p, err := n.pin(ctx, r, progress)
	return p, answer(err)
}

func (n *Node) pin(ctx context.Context, r api.Read, progress func(api.Progress)) (api.Pin, error) {
	manifest := r.CID
	root, err := n.mayRead(ctx, r.CID, r.Spending)
	if err != nil {
		return api.Pin{}, err
	}
	r.CID = root
	if err := n.fetchFirst(ctx, r); err != nil { // before anything is pinned
		return api.Pin{}, err
	}
	fetching, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d, err := n.exchange.Download(fetching, exchange.Want{CID: r.CID, Dataset: r.CID}, exchange.DownloadOptions{})
	if err != nil {
		return api.Pin{}, err
	}
	defer d.Cancel()
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		n.watch(fetching, cancel, d, n.timeout(r), progress)
	}()
	fresh := n.sweeper.Newcomers()
	count, err := n.pinTreeInto(fetching, r.CID, n.blocks.Get, fresh)
	if err == nil {
		err = d.Wait(fetching)
	}
	if cause := context.Cause(fetching); err != nil && cause != nil {
		err = cause
	}
	cancel(nil)
	<-quiet
	if err != nil {
		return api.Pin{}, err
	}
	if err := n.store.Sync(ctx); err != nil {
		return api.Pin{}, err
	}
	n.announceRoot(context.WithoutCancel(ctx), r.CID)
	n.sweeper.Pinned(ctx, fresh.All()...)
	if !manifest.Equals(root) {
		if err := n.keepManifest(ctx, manifest); err != nil {
			return api.Pin{}, err
		}
	}
	return api.Pin{CID: r.CID.String(), Blocks: count, Complete: true}, nil
}

func (n *Node) fetchFirst(ctx context.Context, r api.Read) error {
	ctx, cancel := context.WithTimeout(ctx, n.timeout(r))
	defer cancel()
	_, err := n.blocks.Get(ctx, unixfs.Want{CID: r.CID, Dataset: r.CID})
	return err
}

// watch reports a download's progress and gives up when it stands still for longer than quiet.
func (n *Node) watch(ctx context.Context, giveUp context.CancelCauseFunc, d *exchange.Download, quiet time.Duration, progress func(api.Progress)) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	last, moved := d.Progress(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p := d.Progress()
		if p.Done {
			return
		}
		if p.Blocks != last.Blocks || p.FoundBlocks != last.FoundBlocks {
			last, moved = p, time.Now()
		} else if time.Since(moved) > quiet {
			giveUp(fmt.Errorf("%w: no block came for %v, %d of the %d known so far are here", exchange.ErrTimeout, quiet, p.Blocks, p.FoundBlocks))
			return
		}
		if progress != nil {
			progress(api.Progress{Blocks: p.Blocks, Bytes: p.Bytes, TotalBytes: p.TotalBytes})
		}
	}
}

// pinTree pins every block of the DAG below root, all of which are here, and returns how many there are.
func (n *Node) pinTree(ctx context.Context, root cid.Cid, get getter) (uint64, error) {
	fresh := n.sweeper.Newcomers()
	count, err := n.pinTreeInto(ctx, root, get, fresh)
	if err == nil {
		n.sweeper.Pinned(ctx, fresh.All()...)
	}
	return count, err
}

// pinTreeInto pins every block of the DAG below root and returns how many there are. It reads inner nodes alone, by
// get; leaves need not be here yet. What is pinned is added to fresh.
func (n *Node) pinTreeInto(ctx context.Context, root cid.Cid, get getter, fresh *exchange.Newcomers) (uint64, error) {
	w := &treeWalk{get: get, seen: cid.NewSet()}
	w.visit = func(ctx context.Context, batch []cid.Cid) error {
		fresh.Add(batch...)
		return n.store.Pin(ctx, root, batch)
	}
	if err := w.run(ctx, root); err != nil {
		return 0, fmt.Errorf("pin %s: %w", root, err)
	}
	return uint64(w.count), n.store.FinishPin(ctx, root)
}

// checkTree fails with blockcache.ErrNotFound unless every block below root is in the store.
func (n *Node) checkTree(ctx context.Context, root cid.Cid) error {
	w := &treeWalk{get: n.blocks.Local, seen: cid.NewSet()}
	w.visit = func(ctx context.Context, batch []cid.Cid) error {
		for _, c := range batch {
			if isIdentity(c) {
				continue
			}
			if _, err := n.store.SizeOf(ctx, c); err != nil {
				return err
			}
		}
		return nil
	}
	return w.run(ctx, root)
}

// treeWalk hands out every block of a DAG in batches. It reads inner nodes alone, by get.
type treeWalk struct {
	get   getter
	visit func(context.Context, []cid.Cid) error
	seen  *cid.Set // inner nodes: leaves may be too many
	batch []cid.Cid
	count int
}

func (w *treeWalk) run(ctx context.Context, root cid.Cid) error {
	if err := w.walk(ctx, []unixfs.Want{{CID: root, Dataset: root}}); err != nil {
		return err
	}
	return w.flush(ctx)
}

// walk hands out wants and what is below them.
func (w *treeWalk) walk(ctx context.Context, wants []unixfs.Want) error {
	for _, want := range wants {
		w.batch = append(w.batch, want.CID)
		w.count++
		if len(w.batch) >= pinBatch {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
	}
	for _, want := range wants {
		if isRaw(want.CID) || !w.seen.Visit(want.CID) {
			continue
		}
		b, err := w.get(ctx, want)
		if err != nil {
			return err
		}
		children, err := unixfs.Links(want, b)
		if err != nil {
			return err
		}
		if len(children) > 0 {
			if err := w.walk(ctx, children); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *treeWalk) flush(ctx context.Context) error {
	if len(w.batch) == 0 {
		return nil
	}
	err := w.visit(ctx, w.batch)
	w.batch = w.batch[:0]
	return err
}

// Unpin lets a root go.
func (n *Node) Unpin(ctx context.Context, c cid.Cid) error {
	err := n.store.Unpin(ctx, c)
	if errors.Is(err, blockcache.ErrNotFound) {
		return &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("%s is not pinned", c), Advice: "holdfast pins lists what is"}
	}
	if err == nil {
		err = n.store.Sync(ctx)
	}
	if err == nil {
		err = n.announce.Withdraw(ctx, c)
	}
	return answer(err)
}

// Pins lists the pinned roots, by CID.
func (n *Node) Pins(ctx context.Context) ([]api.Pin, error) {
	pins, err := n.store.Pins(ctx)
	if err != nil {
		return nil, answer(err)
	}
	out := []api.Pin{}
	for _, p := range pins {
		if !isImport(p.Root) && !isUploadMark(p.Root) {
			out = append(out, api.Pin{CID: p.Root.String(), Blocks: uint64(p.Blocks), Complete: p.Complete})
		}
	}
	slices.SortFunc(out, func(a, b api.Pin) int { return strings.Compare(a.CID, b.CID) })
	return out, nil
}

// GC drops what nobody keeps.
func (n *Node) GC(ctx context.Context) (api.GCResult, error) {
	res, err := n.store.GC(ctx)
	return api.GCResult{Blocks: uint64(res.Blocks), Bytes: uint64(res.Bytes)}, answer(err)
}
