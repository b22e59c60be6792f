package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-codec-dagpb"
	"github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

// importMark begins the name under which an import's blocks are kept until it has ended.
const importMark = "holdfast import "

// How many blocks are pinned at once, and how many of an import may be unpinned: so few that they are the last to be
// evicted.
const (
	pinBatch  = 4096
	holdBatch = 256
)

// Add imports a tar stream, or one file's bytes.
func (n *Node) Add(ctx context.Context, r io.Reader, opts api.AddOptions) (_ []api.Added, err error) {
	held, err := n.holdImport(ctx)
	if err != nil {
		return nil, answer(err)
	}
	defer func() { err = answer(errors.Join(err, held.release(context.WithoutCancel(ctx)))) }()
	evicted := n.store.Stats().Evictions
	builder, err := dag.New(dag.Config{Sink: &sink{store: n.store, arrived: n.network.NotifyNewBlocks}, Preserve: opts.Preserve, Visit: held.visit})
	if err != nil {
		return nil, err
	}
	roots, err := importRoots(ctx, builder, r, opts)
	if err != nil {
		return nil, err
	}
	if err := held.flush(); err != nil {
		return nil, err
	}
	var added []api.Added
	manifests := make(map[cid.Cid]cid.Cid)
	for _, root := range roots {
		if opts.Pin {
			if _, err := n.pinTree(ctx, root.Link.CID, n.blocks.Local); err != nil {
				return nil, n.lost(err)
			}
		}
		if n.store.Stats().Evictions != evicted {
			if err := n.checkTree(ctx, root.Link.CID); err != nil {
				return nil, n.lost(err)
			}
		}
		one := api.Added{Name: root.Name, CID: root.Link.CID.String(), Bytes: root.Link.Bytes}
		if p := opts.Protect; p != (api.Protection{}) {
			manifest, err := n.protect(ctx, root.Link.CID, p.K, p.M)
			if err != nil {
				return nil, err
			}
			manifests[root.Link.CID] = manifest
			one.Manifest = manifest.String()
		}
		added = append(added, one)
	}
	if err := n.store.Sync(ctx); err != nil {
		return nil, err
	}
	for root, manifest := range manifests {
		if err := n.register.Add(ctx, root, manifest); err != nil {
			return nil, err
		}
		n.announceRoot(ctx, manifest)
		if opts.Upload {
			if err := n.place(ctx, manifest, root.String(), uploader.Policy{Lifetime: opts.Lifetime}); err != nil {
				return nil, err
			}
		}
	}
	for _, root := range roots {
		n.announceRoot(ctx, root.Link.CID)
	}
	n.sweeper.Stored(ctx, held.fresh.All()...)
	return added, nil
}

// lost says of an import whose own blocks are not here any more what that means.
func (n *Node) lost(err error) error {
	if errors.Is(err, blockcache.ErrNotFound) || errors.Is(err, unixfs.ErrNotLocal) {
		return fmt.Errorf("it drove out its own blocks: %w", blockcache.ErrFull)
	}
	return err
}

func importRoots(ctx context.Context, b *dag.Builder, r io.Reader, opts api.AddOptions) ([]dag.Root, error) {
	if !opts.Raw {
		return b.Tar(ctx, r, dag.TarOptions{Content: opts.Content})
	}
	link, err := b.File(ctx, r, -1, dag.Meta{})
	if err != nil {
		return nil, fmt.Errorf("import a file: %w", err)
	}
	return []dag.Root{{Name: link.CID.String(), Link: link}}, nil
}

// announceRoot makes known that the node has a root. What fails is tried again by itself.
func (n *Node) announceRoot(ctx context.Context, c cid.Cid) {
	if isIdentity(c) {
		return // it is in its name
	}
	if err := n.exchange.Announce(ctx, c); err != nil && ctx.Err() == nil {
		n.log.Warn("not announced", "cid", c, "error", err)
	}
}

// held keeps the blocks of an import from eviction until its roots are pinned.
type held struct {
	n    *Node
	ctx  context.Context
	mark cid.Cid

	mu    sync.Mutex // guards what follows
	batch []cid.Cid
	fresh *exchange.Newcomers
	any   bool
	err   error
}

func (n *Node) holdImport(ctx context.Context) (*held, error) {
	name := fmt.Sprintf("%s%d %d", importMark, n.start.UnixNano(), n.temporary.Add(1))
	digest, err := multihash.Sum([]byte(name), multihash.IDENTITY, -1)
	if err != nil {
		return nil, err
	}
	return &held{n: n, ctx: ctx, mark: cid.NewCidV1(cid.Raw, digest), fresh: n.sweeper.Newcomers()}, nil
}

// visit notes a block that is about to be put.
func (h *held) visit(c cid.Cid) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fresh.Add(c)
	if h.batch = append(h.batch, c); len(h.batch) >= holdBatch {
		h.flushLocked()
	}
}

func (h *held) flush() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flushLocked()
	return h.err
}

func (h *held) flushLocked() {
	if len(h.batch) > 0 && h.err == nil {
		h.any = true
		h.err = h.n.store.Pin(h.ctx, h.mark, h.batch)
	}
	h.batch = h.batch[:0]
}

func (h *held) release(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.any {
		return nil
	}
	return h.n.store.Unpin(ctx, h.mark)
}

// forgetImports lets go of what imports kept that did not come to their end.
func (n *Node) forgetImports(ctx context.Context) error {
	pins, err := n.store.Pins(ctx)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	for _, p := range pins {
		if isImport(p.Root) {
			if err := n.store.Unpin(ctx, p.Root); err != nil {
				return fmt.Errorf("let go of an import: %w", err)
			}
		}
	}
	return nil
}

func isImport(c cid.Cid) bool {
	d, err := multihash.Decode(c.Hash())
	return err == nil && d.Code == multihash.IDENTITY && len(d.Digest) > len(importMark) && string(d.Digest[:len(importMark)]) == importMark
}

// linkBytes adds up what a dag-pb node says about the sizes of its children.
func linkBytes(b blocks.Block) (sum uint64, err error) {
	nb := dagpb.Type.PBNode.NewBuilder()
	if err := dagpb.DecodeBytes(nb, b.RawData()); err != nil {
		return 0, err
	}
	it := nb.Build().(dagpb.PBNode).Links.Iterator()
	for !it.Done() {
		_, l := it.Next()
		if l.Tsize.Exists() {
			sum += uint64(max(0, l.Tsize.Must().Int()))
		}
	}
	return sum, nil
}
