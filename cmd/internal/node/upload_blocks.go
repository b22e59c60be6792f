package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"path"
	"sync"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

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

// keeps are names that look temporary and are none: of evicted files, and of directories, which were renamed to them.
// Without a place in the dataset what they have at providers would be released.
type keeps struct {
	store ds.Datastore
	key   ds.Key

	mu    sync.Mutex // guards names
	names map[string]bool
}

func openKeeps(ctx context.Context, store ds.Datastore, key ds.Key) (*keeps, error) {
	k := &keeps{store: store, key: key, names: make(map[string]bool)}
	results, err := store.Query(ctx, query.Query{Prefix: key.String()})
	if err != nil {
		return nil, fmt.Errorf("read names that are kept: %w", err)
	}
	defer results.Close()
	for r := range results.Next() {
		if r.Error != nil {
			return nil, fmt.Errorf("read names that are kept: %w", r.Error)
		}
		k.names[string(r.Value)] = true
	}
	return k, nil
}

// temporary says whether a name waits for its rename.
func (k *keeps) temporary(name string) bool {
	if !temporary(name) {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.names[name]
}

// add has a name not be temporary. It is durable when add returns.
func (k *keeps) add(ctx context.Context, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.names[name] {
		return nil
	}
	key := k.key.ChildString(hex.EncodeToString([]byte(name)))
	if err := k.store.Put(ctx, key, []byte(name)); err != nil {
		return err
	}
	k.names[name] = true
	return k.store.Sync(ctx, key)
}

// keepName sees to it that what a name has at providers stays there when it gets another.
func (u *uploadDir) keepName(ctx context.Context, to string, dir bool) {
	name := path.Base(to)
	if !u.keeps.temporary(name) || !dir && !u.evictedAt(to) {
		return
	}
	if err := u.keeps.add(ctx, name); err != nil {
		u.n.log.Error("what has a temporary name now is not uploaded", "path", path.Join(u.dir, to), "error", err)
	}
}

// evictedAt says whether the file at a path is evicted, or cannot be looked at.
func (u *uploadDir) evictedAt(p string) bool {
	f, err := u.root.OpenFile(p, restingFlags, 0)
	if err != nil {
		return true
	}
	defer f.Close()
	_, evicted, err := fs.Evicted(f)
	return evicted || err != nil
}
