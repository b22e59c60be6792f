package provider

import (
	"context"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

// Chunk returns the shards of a chunk that is kept here whole. The error wraps [ErrNotFound] where it is not. It must
// not be called from within an [Announcer].
func (p *Provider) Chunk(ctx context.Context, chunk cid.Cid) (erasure.Chunk, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.exit()
	var ids []copyID
	err := p.cfg.DB.View(func(txn *badger.Txn) error {
		return each(txn, p.key(tagChunk, chunkPart(chunk)), false, func(_ *badger.Item, rest []byte) (bool, error) {
			if n := len(copyID{}); len(rest) >= n {
				ids = append(ids, copyID(rest[len(rest)-n:]))
			}
			return len(ids) < maxPlaces, nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read chunk %s: %w", chunk, err)
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if shards, err := p.shardsOf(id); err == nil && shards != nil {
			return shards, nil
		}
	}
	return nil, fmt.Errorf("read chunk %s: %w", chunk, ErrNotFound)
}

// shardsOf returns what a copy says of its shards, and nil where it is not whole.
func (p *Provider) shardsOf(id copyID) (erasure.Chunk, error) {
	h, err := p.use(id)
	if err != nil {
		return nil, err
	}
	defer p.drop(h)
	rec := h.rec
	h.mu.Unlock()
	if !serves(rec) {
		return nil, nil
	}
	f, err := p.open(h)
	if err != nil {
		return nil, err
	}
	return readChunk(f, rec)
}
