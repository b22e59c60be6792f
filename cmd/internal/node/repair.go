package node

import (
	"context"
	"fmt"
	"sync"

	blocks "github.com/ipfs/go-block-format"

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
	before := n.recovery.Stats().Rebuilt
	if err := v.stripes(ctx, m, rep.stripe); err != nil {
		return api.Repaired{}, answer(err)
	}
	rep.repaired.Root, rep.repaired.Manifest = v.report.Root, v.report.Manifest
	rep.repaired.Rebuilt = min(rep.repaired.Fetched, n.recovery.Stats().Rebuilt-before)
	rep.repaired.Fetched -= rep.repaired.Rebuilt
	if rep.repaired.Lost == 0 {
		if _, err := n.pinTree(ctx, v.root, n.blocks.Local); err != nil {
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
	lost, fetched := 0, 0
	for _, d := range s.Data {
		if here, err := r.here(ctx, d.CID); err != nil || here {
			if err != nil {
				return err
			}
			continue
		}
		if err := r.fetch(ctx, d); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r.n.log.Warn("block not repaired", "cid", d.CID, "error", err)
			lost++
			continue
		}
		fetched++
	}
	made := 0
	if lost == 0 {
		var err error
		if made, err = r.parity(ctx, s); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repaired.Fetched += uint64(fetched)
	r.repaired.Lost += uint64(lost)
	r.repaired.Parity += uint64(made)
	r.repaired.Blocks += uint64(len(s.Data))
	for _, d := range s.Data {
		r.report.Bytes += uint64(d.Bytes)
	}
	if r.told != nil {
		r.told(api.Progress{Blocks: r.repaired.Blocks, Bytes: r.report.Bytes})
	}
	return nil
}

func (r *repairer) fetch(ctx context.Context, d erasure.Shard) error {
	ctx, cancel := context.WithTimeout(ctx, r.n.cfg.Settings.Timeout)
	defer cancel()
	_, err := r.n.blocks.Get(ctx, unixfs.Want{CID: d.CID, Dataset: r.root})
	return err
}

// parity makes what nobody has of a stripe's parity, whose blocks are all here.
func (r *repairer) parity(ctx context.Context, s erasure.Stripe) (made int, err error) {
	missing := false
	for _, p := range s.Parity {
		found, err := r.find(ctx, p.CID)
		if err != nil {
			return 0, err
		}
		missing = missing || found == absent
	}
	if !missing {
		return 0, nil
	}
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
		b, err := blocks.NewBlockWithCid(parity[i], p.CID)
		if err != nil {
			return 0, err
		}
		entries = append(entries, blockcache.Entry{Block: b})
	}
	return len(entries), r.n.store.Put(ctx, entries)
}
