package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// toldFull is how long it is not said again that the store is full.
const toldFull = time.Minute

// asFull has the dataset know that the local store is full.
func asFull(err error) error {
	if errors.Is(err, blockcache.ErrFull) {
		return fmt.Errorf("%w: %w", dataset.ErrFull, err)
	}
	return err
}

// fullStore is a dataset's store that tells when it is full.
type fullStore struct{ dataset.Store }

// Put implements dataset.Store.
func (s fullStore) Put(ctx context.Context, mark dataset.Mark, blks []blocks.Block) error {
	return asFull(s.Store.Put(ctx, mark, blks))
}

// Body implements dataset.Store.
func (s fullStore) Body(ctx context.Context, mark dataset.Mark, id dataset.FileID, fileBytes uint64) (dag.Body, error) {
	b, err := s.Store.Body(ctx, mark, id, fileBytes)
	if err != nil {
		return nil, asFull(err)
	}
	return fullBody{b}, nil
}

// Get implements dataset.Store.
func (s fullStore) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	b, err := s.Store.Get(ctx, c)
	return b, asFull(err)
}

// Keep implements dataset.Store.
func (s fullStore) Keep(ctx context.Context, mark dataset.Mark, cids []cid.Cid) error {
	return asFull(s.Store.Keep(ctx, mark, cids))
}

// fullBody is a body that tells when the store is full.
type fullBody struct{ dag.Body }

// Put implements dag.Body.
func (b fullBody) Put(ctx context.Context, offset uint64, blks []blocks.Block) error {
	return asFull(b.Body.Put(ctx, offset, blks))
}

// Commit implements dag.Body.
func (b fullBody) Commit(ctx context.Context, file cid.Cid) error {
	return asFull(b.Body.Commit(ctx, file))
}

// fullSink is a dataset's sink that tells when the store is full, to which it puts the parts of manifests.
type fullSink struct{ dataset.Sink }

// Part implements dataset.Sink.
func (s fullSink) Part(ctx context.Context, id dataset.ManifestID, p erasure.Part) error {
	return asFull(s.Sink.Part(ctx, id, p))
}

// mostPending bounds what of an upload directory waits to be placed: half of the store's quota. The rest is for what
// is read, and for packs in which pinned blocks are as many as others.
func (n *Node) mostPending() int64 { return int64(min(n.cfg.Settings.QuotaBytes, 1<<62) / 2) }

// tellFull logs that the store has no room for what is to be uploaded, once in a while, and when it has again.
func (u *uploadDir) tellFull() {
	err := u.set.Full()
	switch {
	case err != nil && time.Since(u.toldFull) >= toldFull:
		u.toldFull = time.Now()
		u.n.log.Warn("the block store has no room for what is to be uploaded, it waits", "path", u.dir, "error", err)
	case err == nil && !u.toldFull.IsZero() && time.Since(u.toldFull) >= toldFull:
		u.toldFull = time.Time{}
		u.n.log.Info("the block store has room again for what is to be uploaded", "path", u.dir)
	}
}
