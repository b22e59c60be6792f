package node

import (
	"context"
	"errors"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// What an upload directory's manifest may protect beside what is in the tree now: as much as that again and more, until it
// is striped anew.
const (
	deadFactor = 4
	deadBlocks = 4096
)

// errNotCovered says that a manifest of a peer is not what it says.
var errNotCovered = errors.New("it does not protect all of the content, or much else")

// askManifest asks connected peers for a manifest that protects a dataset, which a verifier has found somebody for; nil if
// nobody has one that holds. It is not remembered: nothing has been rebuilt with it yet.
func (v *verifier) askManifest(ctx context.Context) (*erasure.Manifest, error) {
	if _, err := v.find(ctx, v.root); err != nil { // now somebody who has it is connected, if there is anybody
		return nil, err
	}
	told, err := v.n.network.Manifests(ctx, v.root)
	if err != nil {
		return nil, err
	}
	for _, c := range told {
		m, err := v.openTold(ctx, c)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		v.n.log.Info("a peer's manifest is not used", "manifest", c, "cid", v.root, "error", err)
	}
	return nil, nil
}

// openTold opens a manifest that a peer told of, and checks that it is for the dataset, and protects every block of it that
// can be come to: who verifies by it would otherwise hear what the peer likes.
func (v *verifier) openTold(ctx context.Context, c cid.Cid) (*erasure.Manifest, error) {
	m, err := erasure.OpenManifest(ctx, c, func(ctx context.Context, part cid.Cid) ([]byte, error) {
		b, err := v.block(ctx, unixfs.Want{CID: part, Dataset: c})
		if err != nil {
			return nil, err
		}
		return b.RawData(), nil
	})
	if err != nil {
		return nil, err
	}
	if !m.Root().Equals(v.root) {
		return nil, fmt.Errorf("it is for %s: %w", m.Root(), erasure.ErrNotFound)
	}
	walk := &treeWalk{get: v.block, seen: cid.NewSet()}
	walk.visit = func(ctx context.Context, batch []cid.Cid) error {
		for _, block := range batch {
			if isIdentity(block) {
				continue
			}
			if _, err := m.Find(ctx, block); err != nil {
				return fmt.Errorf("block %s: %w: %w", block, errNotCovered, err)
			}
		}
		return nil
	}
	err = walk.run(ctx, v.root)
	if err == nil && m.Blocks() > deadFactor*int64(walk.count)+deadBlocks {
		err = fmt.Errorf("%d blocks of %d: %w", m.Blocks(), walk.count, errNotCovered)
	}
	if err != nil && !errors.Is(err, errNotCovered) && ctx.Err() == nil {
		err = walk.flush(ctx) // a node can't be had. It is in the manifest, which says what becomes of it.
	}
	return m, err
}

// block reads a block, wherever it is.
func (v *verifier) block(ctx context.Context, w unixfs.Want) (blocks.Block, error) {
	ctx, cancel := context.WithTimeout(ctx, v.n.cfg.Settings.Timeout)
	defer cancel()
	return v.n.blocks.Get(ctx, w)
}
