package node

import (
	"context"
	"fmt"
	"slices"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"golang.org/x/sync/errgroup"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// repairer brings everything of a dataset here, and makes its parity anew.
type repairer struct {
	*verifier
	codec  *erasure.Codec
	coding sync.Mutex // one stripe's bytes in memory at a time

	repaired api.Repaired // under the verifier's mu
}

// Repair fetches or rebuilds every block of content that is not here, makes lost parity anew, and keeps all of it.
func (n *Node) Repair(ctx context.Context, r api.Read, progress func(api.Progress)) (api.Repaired, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, m, err := n.verifier(ctx, r, false, progress)
	if err != nil {
		return api.Repaired{}, answer(err)
	}
	if m == nil {
		return api.Repaired{}, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("no manifest is known that protects %s", r.CID),
			Advice: "name the manifest's CID, or fetch what there is with holdfast pin"}
	}
	rep := &repairer{verifier: v}
	if rep.codec, err = codecOf(m); err != nil {
		return api.Repaired{}, answer(err)
	}
	if err := v.stripes(ctx, m, rep.stripe); err != nil {
		return api.Repaired{}, answer(err)
	}
	rep.repaired.Root, rep.repaired.Manifest = v.report.Root, v.report.Manifest
	if rep.repaired.Lost == 0 {
		if _, err := n.pinTree(ctx, v.root, n.blocks.Local); err != nil {
			return rep.repaired, answer(err)
		}
		if err := n.keepManifest(ctx, m.CID()); err != nil { // its index has not been read yet
			return rep.repaired, answer(err)
		}
		if err := n.pinManifest(ctx, m.CID()); err != nil {
			return rep.repaired, answer(err)
		}
	}
	return rep.repaired, answer(n.store.Sync(ctx))
}

func codecOf(m *erasure.Manifest) (*erasure.Codec, error) {
	k, parity := m.Code()
	return erasure.New(k, parity)
}

// stripe brings one stripe's blocks here, and its parity if nobody has it.
func (r *repairer) stripe(ctx context.Context, _ uint64, s erasure.Stripe) error {
	found, err := r.look(ctx, s)
	if err != nil {
		return err
	}
	sum, err := r.fetchAll(ctx, s, found)
	if err == nil && sum.Lost == 0 && slices.Contains(found[len(s.Data):], absent) {
		sum.Parity, err = r.parity(ctx, s, found[len(s.Data):])
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repaired.Fetched += sum.Fetched
	r.repaired.Rebuilt += sum.Rebuilt
	r.repaired.Lost += sum.Lost
	r.repaired.Parity += sum.Parity
	r.repaired.Blocks += uint64(len(s.Data))
	for _, d := range s.Data {
		r.report.Bytes += uint64(d.Bytes)
	}
	if r.told != nil {
		r.told(api.Progress{Blocks: r.repaired.Blocks, Bytes: r.report.Bytes})
	}
	return nil
}

// fetchAll brings those of a stripe's blocks here that are not, as far as they can be had: what nobody has is not waited
// for where too few shards are left.
func (r *repairer) fetchAll(ctx context.Context, s erasure.Stripe, found []standing) (sum api.Repaired, err error) {
	have := 0
	for _, f := range found {
		if f != absent {
			have++
		}
	}
	var mu sync.Mutex // guards sum
	work, wctx := errgroup.WithContext(ctx)
	for i, d := range s.Data {
		if found[i] == local {
			continue
		}
		work.Go(func() error {
			err := erasure.ErrTooFew
			if found[i] == reachable || have >= len(s.Data) {
				err = r.fetch(wctx, d)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				r.n.log.Warn("block not repaired", "cid", d.CID, "error", err)
				sum.Lost++
			case found[i] == reachable:
				sum.Fetched++
			default:
				sum.Rebuilt++
			}
			return nil
		})
	}
	return sum, work.Wait()
}

func (r *repairer) fetch(ctx context.Context, d erasure.Shard) error {
	ctx, cancel := context.WithTimeout(ctx, r.n.cfg.Settings.Timeout)
	defer cancel()
	_, err := r.n.blocks.Get(ctx, unixfs.Want{CID: d.CID, Dataset: r.root})
	return err
}

// parity makes that of a stripe's parity which nobody has. The stripe's blocks are all here.
func (r *repairer) parity(ctx context.Context, s erasure.Stripe, found []standing) (made uint64, err error) {
	r.coding.Lock()
	defer r.coding.Unlock()
	data, err := (&protector{n: r.n, ctx: ctx}).read(s.Data)
	if err != nil {
		return 0, err
	}
	again, parity, err := r.codec.Protect(s.Data, data, nil)
	if err != nil {
		return 0, err
	}
	var entries []blockcache.Entry
	for i, p := range again.Parity {
		if !p.CID.Equals(s.Parity[i].CID) {
			return 0, fmt.Errorf("parity of stripe %s is not what the manifest says: %w", s.Data[0].CID, erasure.ErrMalformed)
		}
		if found[i] != absent {
			continue
		}
		b, err := blocks.NewBlockWithCid(parity[i], p.CID)
		if err != nil {
			return 0, err
		}
		entries = append(entries, blockcache.Entry{Block: b})
	}
	return uint64(len(entries)), r.n.store.Put(ctx, entries)
}
