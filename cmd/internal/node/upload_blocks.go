package node

import (
	"context"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// uploadBlocks is where evicted files are read from: blocks of the directory as providers have it, whose manifest says
// where they lie and how they are rebuilt.
type uploadBlocks struct {
	*blocksOf
	u *uploadDir
}

var _ fs.Blocks = uploadBlocks{}

// Get implements fs.Blocks.
func (b uploadBlocks) Get(ctx context.Context, w unixfs.Want) (blocks.Block, error) {
	return b.blocksOf.Get(ctx, b.of(ctx, w))
}

// Prefetch implements fs.Blocks.
func (b uploadBlocks) Prefetch(ctx context.Context, ws []unixfs.Want) {
	of := make([]unixfs.Want, len(ws))
	for i, w := range ws {
		of[i] = b.of(ctx, w)
	}
	b.blocksOf.Prefetch(ctx, of)
}

// of says which dataset a block is of.
func (b uploadBlocks) of(ctx context.Context, w unixfs.Want) unixfs.Want {
	if root := b.u.placedRoot(ctx); root.Defined() {
		w.Dataset = root
	}
	return w
}

// rootFor is how long a root is taken for the one that providers have. An older one serves as well.
const rootFor = 2 * time.Second

// placedRoot is the root of the directory as providers have it; undefined if they never had one.
func (u *uploadDir) placedRoot(ctx context.Context) cid.Cid {
	u.mu.Lock()
	root, at := u.placed, u.placedAt
	u.mu.Unlock()
	if time.Since(at) < rootFor {
		return root
	}
	s, err := u.set.State(ctx)
	if err != nil || s.Placed.ID == 0 {
		return root
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.placed, u.placedAt = s.Placed.Root, time.Now()
	return u.placed
}
