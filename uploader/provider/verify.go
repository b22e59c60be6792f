package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// complete verifies a copy whose segments are all here, unless its blocks were checked as they came, syncs and indexes
// it. The copy's lock is held. Where the blocks are not those of the descriptor the writer has lied: its links end.
func (p *Provider) complete(ctx context.Context, h *held, checked erasure.Chunk) error {
	if checked != nil {
		if err := p.syncFile(h); err != nil {
			return err
		}
		return p.index(h, checked)
	}
	if err := p.verifiers.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait to verify: %w", err)
	}
	defer p.verifiers.Release(1)
	var chunk erasure.Chunk
	var lie error
	var g errgroup.Group
	g.Go(func() error { return p.syncFile(h) }) // the disk works meanwhile
	g.Go(func() (err error) {
		chunk, lie, err = p.verify(ctx, h)
		return err
	})
	err := g.Wait()
	if errors.Is(err, errDamaged) {
		return errors.Join(err, p.distrust(h))
	}
	if err != nil {
		return err
	}
	if lie != nil {
		p.counts.lies.Add(1)
		return errors.Join(seal.Refuse(seal.RefusedMismatch, "%v", lie), p.endAll(h, 0))
	}
	return p.index(h, chunk)
}

// verify compares every block of a copy with its CID. A lie is the writer's; errDamaged is the disk's.
func (p *Provider) verify(ctx context.Context, h *held) (chunk erasure.Chunk, lie, err error) {
	f, err := p.open(h)
	if err != nil {
		return nil, nil, err
	}
	chunk, err = readChunk(f, h.rec)
	if err != nil {
		return nil, nil, err
	}
	buf := make([]byte, longest(chunk))
	key, off := keyOf(h.rec), int64(0)
	for i, s := range chunk {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		b := buf[:s.Bytes]
		if err := readAll(f, b, off); err != nil {
			return nil, nil, fmt.Errorf("read block %d of the chunk: %w", i, err)
		}
		key.XORAt(b, b, off)
		if !isBlock(s.CID, b) {
			return nil, fmt.Errorf("block %d of the chunk is not %s", i, s.CID), p.compare(h, f)
		}
		off += int64(s.Bytes)
	}
	return chunk, nil, nil
}

func longest(chunk erasure.Chunk) int {
	n := 0
	for _, s := range chunk {
		n = max(n, s.Bytes)
	}
	return n
}

// compare returns errDamaged where the file is not what its map says.
func (p *Provider) compare(h *held, f file) error {
	good, err := p.goodSegments(h, f, seal.AllSegments(segmentsOf(h.rec)))
	if err == nil && good.Count() != segmentsOf(h.rec) {
		err = errDamaged
	}
	return err
}

// goodSegments hashes the segments of a set and returns those that fit the map.
func (p *Provider) goodSegments(h *held, f file, set seal.Bitmap) (good seal.Bitmap, err error) {
	m, err := p.readMap(h)
	if err != nil {
		return seal.Bitmap{}, err
	}
	buf := make([]byte, seal.SegmentBytes)
	for i := set.Next(0); i >= 0; i = set.Next(i + 1) {
		b := buf[:seal.SegmentLen(m.Bytes, i)]
		err := readAll(f, b, int64(i)*seal.SegmentBytes)
		if err != nil && !errors.Is(err, errDamaged) {
			return seal.Bitmap{}, err
		}
		if err == nil && m.CheckSegment(i, b) == nil {
			good.Set(i)
		}
	}
	return good, nil
}

// readChunk reads a copy's descriptor and checks it against the chunk's ID.
func readChunk(f file, r *pb.Copy) (erasure.Chunk, error) {
	b := make([]byte, r.DescriptorBytes)
	if err := readAll(f, b, descriptorAt(r)); err != nil {
		return nil, fmt.Errorf("read descriptor: %w", err)
	}
	id, err := chunkOf(r)
	if err != nil {
		return nil, err
	}
	if !isBlock(id, b) {
		return nil, fmt.Errorf("read descriptor: %w", errDamaged)
	}
	chunk, err := erasure.DecodeChunk(b)
	if err != nil {
		return nil, fmt.Errorf("read descriptor: %w", err)
	}
	return chunk, nil
}

// readAll fills b; a file that is too short is damaged.
func readAll(f file, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return errDamaged
	}
	return err
}

// isBlock says whether b is what c names.
func isBlock(c cid.Cid, b []byte) bool { return hashesTo(c.Hash(), b) }

func hashesTo(hash mh.Multihash, b []byte) bool {
	if len(hash) == 34 && hash[0] == mh.SHA2_256 && hash[1] == sha256.Size {
		sum := sha256.Sum256(b)
		return string(sum[:]) == string(hash[2:])
	}
	d, err := mh.Decode(hash)
	if err != nil || d.Code == mh.IDENTITY {
		return false
	}
	sum, err := mh.Sum(b, d.Code, d.Length)
	return err == nil && bytes.Equal(sum, hash)
}

// batchBlocks is how many index entries are written in one transaction.
const batchBlocks = 500

// index writes where each block lies, and with the last of that that the copy is whole.
func (p *Provider) index(h *held, chunk erasure.Chunk) error {
	all := seal.AllSegments(segmentsOf(h.rec))
	var off int64
	for len(chunk) > batchBlocks {
		part := chunk[:batchBlocks]
		err := p.change(h, func(r *pb.Copy) { r.Indexing = true }, func(txn *badger.Txn) error {
			return p.putBlocks(txn, h.id, part, off)
		})
		if err != nil {
			return err
		}
		off += part.Bytes()
		chunk = chunk[batchBlocks:]
	}
	err := p.change(h, func(r *pb.Copy) {
		r.Whole, r.Indexing, r.Have, r.Epoch = true, true, all[:], p.epoch
		p.progress(r, p.now())
	}, func(txn *badger.Txn) error { return p.putBlocks(txn, h.id, chunk, off) })
	if err != nil {
		return err
	}
	h.have = all
	p.counts.stored.Add(1)
	return nil
}

// putBlocks writes index entries of blocks that lie one after the other from off.
func (p *Provider) putBlocks(txn *badger.Txn, id copyID, blocks erasure.Chunk, off int64) error {
	for _, s := range blocks {
		v := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(off)), uint64(s.Bytes))
		if err := txn.Set(p.blockKey(s.CID.Hash(), id), v); err != nil {
			return err
		}
		off += int64(s.Bytes)
	}
	return nil
}

// trust hashes a copy's file if that was not done since the last stop that was not clean. Afterwards
// the bitmap names only what is surely there. The copy's lock is held, and its record may change: a
// copy without a pledge whose file is gone ends, and the error says that the link is unknown.
func (p *Provider) trust(h *held) error {
	if h.rec.Epoch == p.epoch || h.rec.Damaged {
		return nil
	}
	p.counts.rehashed.Add(1)
	good, err := p.rehash(h)
	switch {
	case isMissing(err) || errors.Is(err, errDamaged):
		good = seal.Bitmap{}
		if !pledged(h.rec) {
			return p.restart(h, isMissing(err))
		}
	case err != nil:
		return err
	}
	set := h.have
	if h.rec.Whole {
		set = seal.AllSegments(segmentsOf(h.rec))
	}
	if lost := set.Count() - good.Count(); lost > 0 {
		p.counts.damagedSegments.Add(int64(lost))
		p.log.Warn("chunk file lost segments", keyChunk, h.id.name(), "segments", lost)
	}
	err = p.change(h, func(r *pb.Copy) {
		r.Epoch, r.Have = p.epoch, good[:]
		switch {
		case good == set:
		case pledged(r):
			r.Damaged = true
		default:
			r.Whole = false
		}
	}, nil)
	if err == nil {
		h.have = good
	}
	return err
}

// rehash returns which segments of those that should be there are.
func (p *Provider) rehash(h *held) (seal.Bitmap, error) {
	f, err := p.open(h)
	if err != nil {
		return seal.Bitmap{}, err
	}
	if _, err := readChunk(f, h.rec); err != nil {
		return seal.Bitmap{}, err
	}
	if len(h.rec.Root) == 0 {
		return seal.Bitmap{}, nil
	}
	set := haveOf(h.rec)
	if h.rec.Whole {
		set = seal.AllSegments(segmentsOf(h.rec))
	}
	h.have = set
	return p.goodSegments(h, f, set)
}

// restart ends the links of a copy that nothing was signed for and whose file can't be used.
func (p *Provider) restart(h *held, gone bool) error {
	p.log.Warn("drop unfinished chunk after an unclean stop", keyChunk, h.id.name(), "missing", gone)
	if err := p.endAll(h, 0); err != nil {
		return err
	}
	return seal.Refuse(seal.RefusedUnknownLink, "what was here of the link was lost")
}

// distrust makes the next look at a copy hash its file.
func (p *Provider) distrust(h *held) error {
	return p.change(h, func(r *pb.Copy) { r.Epoch = 0 }, nil)
}

func pledged(r *pb.Copy) bool {
	for _, l := range r.Links {
		if len(l.Pledge) > 0 {
			return true
		}
	}
	return false
}
