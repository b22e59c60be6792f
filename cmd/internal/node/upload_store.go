package node

import (
	"context"
	"errors"
	"strings"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/holdfastfs/holdfast/uploader/dag"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// uploadMark begins the names under which an upload directory's blocks are kept until they are with providers.
const uploadMark = "holdfast upload "

// uploadStore is the local store as a dataset sees it. Marks are pins.
type uploadStore struct{ u *uploadDir }

var _ dataset.Store = uploadStore{}

// pin is the pinned root that stands for a mark.
func (s uploadStore) pin(mark dataset.Mark) (cid.Cid, error) {
	digest, err := multihash.Sum([]byte(uploadMark+s.u.req.Name+" "+string(mark)), multihash.IDENTITY, -1)
	if err != nil {
		return cid.Undef, err
	}
	return cid.NewCidV1(cid.Raw, digest), nil
}

// isUploadMark says whether a pin is none of a user's, but stands for a mark.
func isUploadMark(c cid.Cid) bool {
	d, err := multihash.Decode(c.Hash())
	return err == nil && d.Code == multihash.IDENTITY && strings.HasPrefix(string(d.Digest), uploadMark)
}

// Put implements dataset.Store.
func (s uploadStore) Put(ctx context.Context, mark dataset.Mark, blks []blocks.Block) error {
	cids := make([]cid.Cid, 0, len(blks))
	for _, b := range blks {
		cids = append(cids, b.Cid())
	}
	if err := s.Keep(ctx, mark, cids); err != nil { // before they are there, so that nothing drops them
		return err
	}
	return (&sink{store: s.u.n.store, arrived: s.u.n.network.NotifyNewBlocks}).Put(ctx, blks)
}

// Body implements dataset.Store. A file in staging is read where it lies.
func (s uploadStore) Body(ctx context.Context, mark dataset.Mark, id dataset.FileID, fileBytes uint64) (dag.Body, error) {
	b, err := s.u.n.lender.body(ctx, s.u, fs.FileID(id), fileBytes)
	if b == nil && err == nil {
		b, err = (&sink{store: s.u.n.store}).Body(ctx, fileBytes)
	}
	if err != nil {
		return nil, err
	}
	return &markedBody{Body: b, store: s, mark: mark}, nil
}

// markedBody keeps the leaves that it takes.
type markedBody struct {
	dag.Body
	store uploadStore
	mark  dataset.Mark
}

// Put implements dag.Body.
func (b *markedBody) Put(ctx context.Context, offset uint64, blks []blocks.Block) error {
	cids := make([]cid.Cid, 0, len(blks))
	for _, blk := range blks {
		cids = append(cids, blk.Cid())
	}
	if err := b.store.Keep(ctx, b.mark, cids); err != nil {
		return err
	}
	return b.Body.Put(ctx, offset, blks)
}

// Get implements dataset.Store.
func (s uploadStore) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	b, err := (&served{store: s.u.n.store}).Get(ctx, c)
	if errors.Is(err, exchange.ErrNotFound) { // it was uploaded, and may have to be rebuilt
		ctx, cancel := context.WithTimeout(ctx, s.u.n.cfg.Settings.Timeout)
		defer cancel()
		b, err = uploadBlocks{s.u.n.blocks, s.u}.Get(ctx, unixfs.Want{CID: c})
	}
	if err != nil {
		return nil, err
	}
	return b.RawData(), nil
}

// Keep implements dataset.Store.
func (s uploadStore) Keep(ctx context.Context, mark dataset.Mark, cids []cid.Cid) error {
	c, err := s.pin(mark)
	if err != nil || len(cids) == 0 {
		return err
	}
	return s.u.n.store.Pin(ctx, c, cids)
}

// Release implements dataset.Store.
func (s uploadStore) Release(ctx context.Context, mark dataset.Mark) error {
	c, err := s.pin(mark)
	if err != nil {
		return err
	}
	if err := s.u.n.store.Unpin(ctx, c); !errors.Is(err, blockcache.ErrNotFound) {
		return err
	}
	return nil
}
