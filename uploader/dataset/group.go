package dataset

import (
	"fmt"
	"math/bits"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

// groupState is how far a group is.
type groupState uint64

const (
	// groupWriting: its stripes are being written. A restart removes it.
	groupWriting groupState = iota + 1
	// groupForming: its stripes are written, its blocks perhaps not yet counted as its own. A restart goes on counting.
	groupForming
	// groupFormed: the Sink may know it and uploads it. A restart tells the Sink again.
	groupFormed
	// groupPlaced: the caller has said that all columns are with providers.
	groupPlaced
	// groupReleasing: nothing needs it. A restart tells the Sink, then forgets it.
	groupReleasing
	// groupLost: it was placed, and the caller has said since that some column is not with providers any more. The Sink
	// knows it. Manifests that name it don't wait for it.
	groupLost
)

// groupHead is what changes of a group, and what it is judged by.
type groupHead struct {
	state       groupState
	moving      bool // its live blocks are in the queue
	blocks      uint64
	bytes       uint64 // of data shards
	stored      uint64 // of all shards
	liveBlocks  uint64
	liveBytes   uint64
	bornAfter   uint64 // the manifest that was the latest when it was formed: only later ones name it
	diedAt      uint64 // the manifest that was the latest when its last block died: only up to that one it is named
	stripesKeys uint64 // pieces its stripes are in
}

func (h groupHead) encode() []byte {
	var e encoder
	e.num(uint64(h.state))
	moving := uint64(0)
	if h.moving {
		moving = 1
	}
	for _, v := range []uint64{moving, h.blocks, h.bytes, h.stored, h.liveBlocks, h.liveBytes, h.bornAfter, h.diedAt, h.stripesKeys} {
		e.num(v)
	}
	return e
}

func decodeHead(v []byte) (groupHead, error) {
	d := decoder{rest: v}
	h := groupHead{
		state: groupState(d.num()), moving: d.num() == 1, blocks: d.num(), bytes: d.num(), stored: d.num(),
		liveBlocks: d.num(), liveBytes: d.num(), bornAfter: d.num(), diedAt: d.num(), stripesKeys: d.num(),
	}
	return h, d.end("group")
}

const (
	smallClasses = 7 // groups up to 8^7 bytes of data, 2 MiB, are small
	smallMost    = 8 // as many of a class are put together
)

// smallClass is the size class of a small group, false for others. A group of very small blocks is full when its entry
// in the manifest is: a piece of its stripes, of which there are 60 or so then, weighs as much as 128 KiB of data.
func (h groupHead) smallClass() (uint64, bool) {
	weight := max(h.bytes, 8*stripePieceBytes*max(h.stripesKeys, 1)-8*stripePieceBytes)
	c := uint64(max(bits.Len64(weight)-1, 0) / 3)
	return c, c < smallClasses
}

// sparse says whether a group is under half live.
func (h groupHead) sparse() bool { return h.liveBlocks > 0 && 2*h.liveBytes < h.bytes }

// writeHeads writes the heads that changed, and the keys by which groups are found that are ripe for something.
func (x *tx) writeHeads() error {
	for id, h := range x.heads {
		was := x.was[id]
		if *h == was {
			continue
		}
		if h.state == groupFormed && was.state != groupFormed {
			x.tally.unplacedBytes += int64(h.stored)
		} else if h.state != groupFormed && was.state == groupFormed {
			x.tally.unplacedBytes -= int64(h.stored)
		}
		if h.liveBlocks == 0 && was.liveBlocks > 0 {
			latest, err := x.latest()
			if err != nil {
				return err
			}
			h.diedAt = uint64(latest.ID)
		}
		if err := x.set(x.d.key(keyGroup, uint64(id)), h.encode()); err != nil {
			return err
		}
		if (h.liveBlocks == 0) != (was.liveBlocks == 0) {
			if err := x.flag(x.d.key(keyChanged)); err != nil {
				return err
			}
		}
		if err := x.indexHead(uint64(id), *h, was); err != nil {
			return err
		}
	}
	return nil
}

func (x *tx) indexHead(id uint64, h, was groupHead) error {
	class, isSmall := h.smallClass()
	type index struct {
		key      []byte
		now, was bool
	}
	ready := func(h groupHead) bool { return h.state == groupPlaced && !h.moving && h.liveBlocks > 0 }
	counted := func(h groupHead) bool {
		return h.state == groupFormed || h.state == groupPlaced || h.state == groupLost
	}
	lost := func(h groupHead) bool { return h.state == groupLost && h.liveBlocks > 0 }
	for _, i := range []index{
		{x.d.key(keyEmpty, id), counted(h) && h.liveBlocks == 0, counted(was) && was.liveBlocks == 0},
		{x.d.key(keySparse, id), ready(h) && h.sparse(), ready(was) && was.sparse()},
		{x.d.key(keySmall, class, id), ready(h) && isSmall, ready(was) && isSmall},
		{x.d.key(keyUnplaced, id), h.state == groupFormed, was.state == groupFormed},
		{x.d.key(keyLost, id), lost(h), lost(was)},
		{x.d.key(keyMoving, id), h.moving && h.liveBlocks > 0, was.moving && was.liveBlocks > 0},
	} {
		var err error
		if i.now && !i.was {
			err = x.flag(i.key)
		} else if !i.now && i.was {
			err = x.del(i.key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// encodeStripe appends a stripe.
func (e *encoder) stripe(s erasure.Stripe) {
	e.num(uint64(len(s.Data)))
	for _, b := range s.Data {
		e.cid(b.CID)
		e.num(uint64(b.Bytes))
	}
	e.num(uint64(len(s.Parity)))
	for _, p := range s.Parity {
		e.cid(p.CID)
	}
}

func (d *decoder) stripe() (s erasure.Stripe) {
	for range min(d.num(), erasure.MaxShards) {
		s.Data = append(s.Data, erasure.Shard{CID: d.cid(), Bytes: int(d.num())})
	}
	width := s.Width()
	for range min(d.num(), erasure.MaxShards) {
		s.Parity = append(s.Parity, erasure.Shard{CID: d.cid(), Bytes: width})
	}
	return s
}

// stripePieceBytes is how much of a group's stripes a record holds, about.
const stripePieceBytes = 16 << 10

// encodeStripes writes a group's stripes as records.
func encodeStripes(stripes []erasure.Stripe) [][]byte {
	var pieces [][]byte
	var e encoder
	for i, s := range stripes {
		e.stripe(s)
		if len(e) >= stripePieceBytes || i == len(stripes)-1 {
			pieces, e = append(pieces, e), nil
		}
	}
	return pieces
}

// group reads a group with its stripes and the IDs of its chunks.
func (d *Dataset) group(id GroupID) (g erasure.Group, err error) {
	err = d.scan(d.key(keyStripes, uint64(id)), func(_, value []byte) error {
		stripes, err := decodeStripes(value)
		g.Stripes = append(g.Stripes, stripes...)
		return err
	})
	if err != nil {
		return g, err
	}
	if len(g.Stripes) == 0 {
		return g, corrupt("group %d has no stripes", id)
	}
	return g, nil
}

func decodeStripes(value []byte) ([]erasure.Stripe, error) {
	var out []erasure.Stripe
	r := decoder{rest: value}
	for len(r.rest) > 0 {
		s := r.stripe()
		if len(s.Data) == 0 {
			r.fail()
			break
		}
		out = append(out, s)
	}
	return out, r.end("stripes")
}

// columns describes a group's chunks.
func columns(id GroupID, g erasure.Group) (Group, error) {
	out := Group{ID: id}
	for _, s := range g.Stripes {
		out.Stripes = append(out.Stripes, len(s.Data))
	}
	for i, c := range g.Columns() {
		chunk, descriptor, err := c.Encode()
		if err != nil {
			return out, fmt.Errorf("describe column %d of group %d: %w", i, id, err)
		}
		out.Columns = append(out.Columns, Column{ID: chunk, Descriptor: descriptor, Shards: c})
	}
	return out, nil
}

// cids lists a group's shards.
func cids(g erasure.Group) []cid.Cid {
	var out []cid.Cid
	for _, s := range g.Stripes {
		for _, b := range s.Shards() {
			out = append(out, b.CID)
		}
	}
	return out
}

func groupMark(id GroupID) Mark { return Mark(fmt.Sprintf("group-%d", id)) }
