package node

import (
	"context"
	"errors"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

const (
	// codeBytes is how many bytes of stripes are read and coded at once, at least one stripe.
	codeBytes = 48 << 20
	// putBytes is how many bytes of parity are put at once.
	putBytes = 16 << 20
)

// protector writes the parity and the manifest of one dataset into the store, whose blocks are all there. One goroutine
// uses it; stripes are coded on all cores.
type protector struct {
	n        *Node
	ctx      context.Context
	held     *held
	codec    *erasure.Codec
	manifest *erasure.ManifestWriter
	waiting  [][]erasure.Shard // stripes to be coded, in order
	bytes    int64             // of those and their parity
	entries  []blockcache.Entry
	queued   int // bytes of entries
}

// protect makes parity and manifest of the dataset below root, and pins them under the manifest, which it returns.
func (n *Node) protect(ctx context.Context, root cid.Cid, k, m int) (_ cid.Cid, err error) {
	held, err := n.holdImport(ctx)
	if err != nil {
		return cid.Undef, err
	}
	defer func() { err = errors.Join(err, held.release(context.WithoutCancel(ctx))) }()
	p := &protector{n: n, ctx: ctx, held: held}
	if p.codec, err = erasure.New(k, m); err != nil {
		return cid.Undef, err
	}
	if p.manifest, err = erasure.NewManifestWriter(root, k, m, p.part); err != nil {
		return cid.Undef, err
	}
	c, err := p.run(root, k)
	if err != nil {
		return cid.Undef, n.lost(fmt.Errorf("protect %s: %w", root, err))
	}
	n.sweeper.Stored(ctx, held.fresh.All()...)
	n.sweeper.Pinned(ctx, held.fresh.All()...)
	return c, nil
}

func (p *protector) run(root cid.Cid, k int) (cid.Cid, error) {
	planner, err := erasure.NewPlanner(k, nil, p.plan)
	if err != nil {
		return cid.Undef, err
	}
	walk := &treeWalk{get: p.n.blocks.Local, seen: cid.NewSet()}
	walk.visit = func(ctx context.Context, batch []cid.Cid) error {
		for _, c := range batch {
			if isIdentity(c) {
				continue
			}
			size, err := p.n.store.SizeOf(ctx, c)
			if err != nil {
				return err
			}
			if err := planner.Add(erasure.Shard{CID: c, Bytes: size}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk.run(p.ctx, root); err != nil {
		return cid.Undef, err
	}
	if err := planner.Close(); err != nil {
		return cid.Undef, err
	}
	if err := p.code(); err != nil {
		return cid.Undef, err
	}
	c, err := p.manifest.Close()
	if err == nil {
		err = p.put()
	}
	if err == nil {
		err = p.held.flush()
	}
	if err != nil {
		return cid.Undef, err
	}
	return c, p.n.pinManifest(p.ctx, c)
}

// plan takes a stripe's blocks from the planner.
func (p *protector) plan(data []erasure.Shard) error {
	width := 0
	for _, d := range data {
		width = max(width, d.Bytes)
	}
	p.waiting = append(p.waiting, data)
	if p.bytes += int64(width) * int64(len(data)+p.codec.Parity()); p.bytes < codeBytes {
		return nil
	}
	return p.code()
}

// code reads and codes the stripes that wait, all cores at work, and writes them down in their order.
func (p *protector) code() error {
	type coded struct {
		stripe erasure.Stripe
		parity [][]byte
	}
	done := make([]coded, len(p.waiting))
	err := erasure.Parallel(len(p.waiting), func(i int) error {
		data, err := p.read(p.waiting[i])
		if err != nil {
			return err
		}
		done[i].stripe, done[i].parity, err = p.codec.Protect(p.waiting[i], data, nil)
		return err
	})
	if err != nil {
		return err
	}
	p.waiting, p.bytes = p.waiting[:0], 0
	for _, d := range done {
		for i, s := range d.stripe.Parity {
			if err := p.queue(s.CID, d.parity[i]); err != nil {
				return err
			}
		}
		if err := p.manifest.Add(d.stripe); err != nil {
			return err
		}
	}
	return nil
}

// read reads a stripe's blocks from the store.
func (p *protector) read(shards []erasure.Shard) ([][]byte, error) {
	wants := make([]blockcache.Want, len(shards))
	for i, s := range shards {
		wants[i].CID = s.CID
	}
	found, err := p.n.store.GetMany(p.ctx, wants)
	if err != nil {
		return nil, err
	}
	data := make([][]byte, len(found))
	for i, b := range found {
		if b == nil {
			return nil, fmt.Errorf("block %s: %w", shards[i].CID, blockcache.ErrNotFound)
		}
		data[i] = b.RawData()
	}
	return data, nil
}

func (p *protector) part(part erasure.Part) error { return p.queue(part.CID, part.Data) }

// queue has a block put, which nothing evicts before the manifest is pinned.
func (p *protector) queue(c cid.Cid, data []byte) error {
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		return err
	}
	p.held.visit(c)
	p.entries = append(p.entries, blockcache.Entry{Block: b})
	if p.queued += len(data); p.queued < putBytes {
		return nil
	}
	return p.put()
}

func (p *protector) put() error {
	err := p.n.store.Put(p.ctx, p.entries)
	var arrived []cid.Cid
	for _, e := range p.entries {
		arrived = append(arrived, e.Block.Cid())
	}
	p.n.network.NotifyNewBlocks(arrived...)
	clear(p.entries)
	p.entries, p.queued = p.entries[:0], 0
	return err
}

// pinManifest keeps a manifest, its parts and its parity until the manifest is unpinned.
func (n *Node) pinManifest(ctx context.Context, c cid.Cid) error {
	m, err := erasure.OpenManifest(ctx, c, n.localPart)
	if err != nil {
		return err
	}
	batch := []cid.Cid{c}
	add := func(more ...cid.Cid) error {
		if batch = append(batch, more...); len(batch) < pinBatch {
			return nil
		}
		err := n.store.Pin(ctx, c, batch)
		batch = batch[:0]
		return err
	}
	for part, err := range m.Parts(ctx) {
		if err == nil {
			err = add(part)
		}
		if err != nil {
			return err
		}
	}
	for s, err := range m.Stripes(ctx) {
		for _, parity := range s.Parity {
			if err == nil {
				err = add(parity.CID)
			}
		}
		if err != nil {
			return err
		}
	}
	if err := n.store.Pin(ctx, c, batch); err != nil {
		return err
	}
	return n.store.FinishPin(ctx, c)
}

func (n *Node) localPart(ctx context.Context, c cid.Cid) ([]byte, error) {
	b, err := n.blocks.Local(ctx, unixfs.Want{CID: c})
	if err != nil {
		return nil, err
	}
	return b.RawData(), nil
}

// isManifest says whether a CID may be that of a manifest.
func isManifest(c cid.Cid) bool { return c.Defined() && c.Prefix().Codec == cid.DagCBOR }

// manifestOf opens a manifest, wherever it is, and remembers what it protects.
func (n *Node) manifestOf(ctx context.Context, c cid.Cid) (*erasure.Manifest, error) {
	m, err := erasure.OpenManifest(ctx, c, func(ctx context.Context, part cid.Cid) ([]byte, error) {
		b, err := n.blocks.Get(ctx, unixfs.Want{CID: part, Dataset: c})
		if err != nil {
			return nil, err
		}
		return b.RawData(), nil
	})
	if errors.Is(err, erasure.ErrMalformed) {
		return nil, &api.Error{Code: api.CodeUnsupported, Message: fmt.Sprintf("%s is neither file, directory nor manifest: %v", c, err)}
	}
	if err != nil {
		return nil, err
	}
	return m, n.register.Add(ctx, m.Root(), c)
}

// rootOf is the root that a CID names: its own, or that of the dataset which a manifest protects.
func (n *Node) rootOf(ctx context.Context, c cid.Cid) (cid.Cid, error) {
	if !isManifest(c) {
		return c, nil
	}
	m, err := n.manifestOf(ctx, c)
	if err != nil {
		return cid.Undef, err
	}
	return m.Root(), nil
}

// keepManifest fetches the parts of a manifest, which are few, and keeps them until it is unpinned. Parity is kept
// where it is: here what it would bring back is pinned.
func (n *Node) keepManifest(ctx context.Context, c cid.Cid) error {
	m, err := n.manifestOf(ctx, c)
	if err != nil {
		return err
	}
	batch := []cid.Cid{c}
	for part, err := range m.Parts(ctx) {
		if err == nil {
			err = n.fetchPart(ctx, part, c)
		}
		if err != nil {
			return err
		}
		batch = append(batch, part)
	}
	for len(batch) > 0 {
		next := batch[:min(len(batch), pinBatch)]
		if err := n.store.Pin(ctx, c, next); err != nil {
			return err
		}
		batch = batch[len(next):]
	}
	return n.store.FinishPin(ctx, c)
}

func (n *Node) fetchPart(ctx context.Context, part, manifest cid.Cid) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Settings.Timeout)
	defer cancel()
	_, err := n.blocks.Get(ctx, unixfs.Want{CID: part, Dataset: manifest})
	return err
}
