package dag

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

const (
	levelBits     = 8 // of the hash that a shard of 256 consumes
	maxLevels     = 64 / levelBits
	shardPutBytes = 1 << 20 // shards are put in batches of about this length
)

// shard makes the directory a HAMT. A HAMT depends on its names alone: below a shard, names with the same next eight
// bits of their hash are one child, which is a shard again if they are several. So it is built from the bottom out of
// the entries in the order of their hashes, the root's parts shared out to the workers, and nothing is built twice.
func (d *Dir) shard(ctx context.Context) (child, error) {
	slices.SortFunc(d.entries, func(x, y dirEntry) int { return cmp.Compare(x.hash, y.hash) })
	parts := d.parts(d.entries, 0)
	kids := make([]shardChild, len(parts))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(cap(d.b.workers), len(parts)) {
		wg.Go(func() {
			if err := d.buildParts(ctx, parts, kids, &next); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return child{}, context.Cause(ctx)
	}
	w := shardWriter{d: d}
	root := w.encode(kids, d.meta)
	return child{cid: root.cid, dagBytes: root.tsize}, w.flush(ctx)
}

// buildParts makes kids out of parts, taking the next until none is left.
func (d *Dir) buildParts(ctx context.Context, parts [][]dirEntry, kids []shardChild, next *atomic.Int64) error {
	if err := d.b.enter(ctx); err != nil {
		return err
	}
	defer d.b.leave()
	w := shardWriter{d: d}
	for i := int(next.Add(1)) - 1; i < len(parts); i = int(next.Add(1)) - 1 {
		var err error
		if kids[i], err = w.child(ctx, parts[i], 0); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}

// parts cuts entries, sorted by hash, where the bits of level change.
func (d *Dir) parts(entries []dirEntry, level int) [][]dirEntry {
	var out [][]dirEntry
	for len(entries) > 0 {
		n, index := 1, indexAt(entries[0].hash, level)
		for n < len(entries) && indexAt(entries[n].hash, level) == index {
			n++
		}
		out = append(out, entries[:n])
		entries = entries[n:]
	}
	return out
}

// indexAt is where a hash goes in a shard of level.
func indexAt(h uint64, level int) int { return int(h>>(64-levelBits*(level+1))) & (shardWidth - 1) }

// shardChild is a link of a shard: an entry, or with an empty name a shard.
type shardChild struct {
	index int
	name  string
	cid   cid.Cid
	raw   []byte // instead of cid: an entry's
	tsize uint64
}

// shardWriter builds shards and puts them in batches.
type shardWriter struct {
	d       *Dir
	pending []blocks.Block
	bytes   int
}

// child makes the link for entries that go to one place of a shard of level.
func (w *shardWriter) child(ctx context.Context, entries []dirEntry, level int) (shardChild, error) {
	index := indexAt(entries[0].hash, level)
	if len(entries) == 1 {
		r := w.d.record(entries[0])
		return shardChild{index: index, name: string(r.name), raw: r.cid, tsize: r.tsize}, nil
	}
	level++
	if level == maxLevels {
		return shardChild{}, fmt.Errorf("%w: the hashes of %q and %q are equal", ErrName,
			w.d.record(entries[0]).name, w.d.record(entries[1]).name)
	}
	parts := w.d.parts(entries, level)
	kids := make([]shardChild, len(parts))
	for i, part := range parts {
		var err error
		if kids[i], err = w.child(ctx, part, level); err != nil {
			return shardChild{}, err
		}
	}
	shard := w.encode(kids, Meta{})
	shard.index = index
	if w.bytes >= shardPutBytes {
		return shard, w.flush(ctx)
	}
	return shard, nil
}

// encode makes a shard's block, to be put with the next batch.
func (w *shardWriter) encode(kids []shardChild, m Meta) shardChild {
	const digits = "0123456789ABCDEF"
	var field [shardWidth / 8]byte
	var shard shardChild
	raw := make([]byte, 0, len(kids)*80+80)
	for _, k := range kids {
		field[len(field)-1-k.index/8] |= 1 << (k.index % 8)
		prefix := string([]byte{digits[k.index>>4], digits[k.index&15]})
		c := k.raw
		if c == nil {
			c = k.cid.Bytes()
		}
		raw = appendLink(raw, c, prefix, k.name, k.tsize)
		shard.tsize += k.tsize
	}
	blk := newBlock(cid.DagProtobuf, appendData(raw, shardData(field[:], m)))
	w.d.b.cfg.Visit(blk.Cid())
	w.pending = append(w.pending, blk)
	w.bytes += len(blk.RawData())
	shard.cid = blk.Cid()
	shard.tsize += uint64(len(blk.RawData()))
	return shard
}

// flush puts what is pending.
func (w *shardWriter) flush(ctx context.Context) error {
	if len(w.pending) == 0 {
		return nil
	}
	blks := w.pending
	w.pending, w.bytes = nil, 0
	return w.d.b.cfg.Sink.Put(ctx, blks)
}
