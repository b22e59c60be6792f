package provider

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// place is where a block lies in a copy, in bytes.
type place struct {
	id     copyID
	off, n int64
}

// Get returns a block out of a sealed chunk, or the descriptor of a chunk that is here, as chunk IDs are
// what is announced. It hashes to its CID. The error wraps [ErrNotFound] where no chunk has it. Blocks
// are found by their hash, whatever the CID's codec and version.
func (p *Provider) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.exit()
	places, err := p.places(c)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", c, err)
	}
	for _, pl := range places {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		b, err := p.readBlock(c, pl)
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", c, err)
		}
		if b != nil {
			p.counts.served.Add(int64(len(b)))
			return blocks.NewBlockWithCid(b, c)
		}
	}
	b, err := p.descriptor(c)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", c, err)
	}
	return blocks.NewBlockWithCid(b, c)
}

// SizeOf returns a block's length in bytes. The error wraps [ErrNotFound] where no chunk has it.
func (p *Provider) SizeOf(_ context.Context, c cid.Cid) (int, error) {
	if err := p.enter(); err != nil {
		return 0, err
	}
	defer p.exit()
	places, err := p.places(c)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", c, err)
	}
	for _, pl := range places {
		rec, err := p.lookAt(pl.id)
		if err != nil {
			return 0, fmt.Errorf("size of %s: %w", c, err)
		}
		if serves(rec) {
			return int(pl.n), nil
		}
	}
	_, rec, err := p.anyCopy(c)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", c, err)
	}
	return int(rec.DescriptorBytes), nil
}

// Has says whether a chunk has a block.
func (p *Provider) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := p.SizeOf(ctx, c)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// serves says whether a copy's blocks may be handed out. Each is checked, so damage does not matter.
func serves(r *pb.Copy) bool { return r != nil && r.Whole && !r.Deleting }

// maxPlaces is how many copies are tried for one block.
const maxPlaces = 16

// places returns where a block lies, without a look at the copies.
func (p *Provider) places(c cid.Cid) (all []place, err error) {
	hash := c.Hash()
	if len(hash) == 0 || len(hash) > 255 {
		return nil, nil
	}
	err = p.cfg.DB.View(func(txn *badger.Txn) error {
		return each(txn, p.key(tagBlock, sized(hash)), true, func(item *badger.Item, rest []byte) (bool, error) {
			pl := place{id: copyID(rest)}
			err := item.Value(func(v []byte) error {
				off, n := binary.Uvarint(v)
				length, m := binary.Uvarint(v[max(0, n):])
				if n <= 0 || m <= 0 || off > seal.MaxChunkBytes || length > erasure.MaxBlock {
					return fmt.Errorf("read record %x: no place of a block", item.Key())
				}
				pl.off, pl.n = int64(off), int64(length)
				return nil
			})
			all = append(all, pl)
			return len(all) < maxPlaces, err
		})
	})
	return all, err
}

// lookAt returns a copy's record without its lock; nil where there is none.
func (p *Provider) lookAt(id copyID) (*pb.Copy, error) {
	var rec pb.Copy
	found := false
	err := p.cfg.DB.View(func(txn *badger.Txn) (err error) {
		found, err = get(txn, p.copyKey(id), &rec)
		return err
	})
	if err != nil || !found {
		return nil, err
	}
	return &rec, nil
}

// readBlock returns a block from one place, and nil where that does not have it any more. No lock is
// held while the disk reads.
func (p *Provider) readBlock(c cid.Cid, pl place) ([]byte, error) {
	h, err := p.use(pl.id)
	if err != nil {
		return nil, err
	}
	defer p.drop(h)
	rec := h.rec
	h.mu.Unlock()
	if rec == nil {
		return nil, p.forgetPlace(c, pl.id)
	}
	if !serves(rec) {
		return nil, nil
	}
	b := make([]byte, pl.n)
	f, err := p.open(h)
	if err == nil {
		err = readAll(f, b, pl.off)
	}
	if err == nil {
		keyOf(rec).XORAt(b, b, pl.off)
		if hashesTo(c.Hash(), b) {
			return b, nil
		}
		err = errDamaged
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := p.refresh(h); err != nil || !serves(h.rec) {
		return nil, err
	}
	if isMissing(err) || errors.Is(err, errDamaged) {
		return nil, p.damaged(h, fmt.Errorf("block %s: %w", c, err))
	}
	return nil, err
}

// forgetPlace removes an index entry that points to no copy.
func (p *Provider) forgetPlace(c cid.Cid, id copyID) error {
	return p.commit(func(txn *badger.Txn) error { return txn.Delete(p.blockKey(c.Hash(), id)) })
}

// descriptor returns the descriptor of a chunk that is here.
func (p *Provider) descriptor(chunk cid.Cid) ([]byte, error) {
	id, rec, err := p.anyCopy(chunk)
	if err != nil {
		return nil, err
	}
	h := p.table.take(id)
	defer p.drop(h)
	f, err := p.open(h)
	if isMissing(err) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, rec.DescriptorBytes)
	if err := readAll(f, b, descriptorAt(rec)); err != nil && !errors.Is(err, errDamaged) {
		return nil, err
	}
	if !isBlock(chunk, b) {
		return nil, ErrNotFound
	}
	return b, nil
}

// anyCopy returns a copy of a chunk that is here in full, of any writer, or ErrNotFound.
func (p *Provider) anyCopy(chunk cid.Cid) (id copyID, rec *pb.Copy, err error) {
	if !chunk.Defined() || chunk.ByteLen() > 255 {
		return id, nil, ErrNotFound
	}
	var ids []copyID
	err = p.cfg.DB.View(func(txn *badger.Txn) error {
		return each(txn, p.key(tagChunk, chunkPart(chunk)), false, func(_ *badger.Item, rest []byte) (bool, error) {
			ids = append(ids, copyID(rest[max(0, len(rest)-len(id)):]))
			return len(ids) < maxPlaces, nil
		})
	})
	for _, id := range ids {
		if err != nil {
			break
		}
		if rec, err = p.lookAt(id); err == nil && serves(rec) {
			return id, rec, nil
		}
	}
	if err == nil {
		err = ErrNotFound
	}
	return id, nil, err
}
