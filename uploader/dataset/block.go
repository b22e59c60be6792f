package dataset

import (
	"context"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

// blockRecord is what is known of a block. It stays while anything refers to the block or its group is there: content
// that comes back finds its stripe again.
type blockRecord struct {
	refs  uint64  // lists and directories that have the block, as often as they have it
	bytes uint64  // its length
	codec uint64  // of its CID
	group GroupID // that protects it; 0: none yet
	queue uint64  // its place in the queue; 0: not there
}

func (b blockRecord) encode() []byte {
	var e encoder
	e.num(b.refs)
	e.num(b.bytes)
	e.num(b.codec)
	e.num(uint64(b.group))
	e.num(b.queue)
	return e
}

func decodeBlock(v []byte) (blockRecord, error) {
	d := decoder{rest: v}
	b := blockRecord{refs: d.num(), bytes: d.num(), codec: d.num(), group: GroupID(d.num()), queue: d.num()}
	return b, d.end("block")
}

// block returns a block's record; the zero record if there is none.
func (x *tx) block(h digest) (blockRecord, error) {
	v, err := x.get(x.d.digestKey(keyBlock, h))
	if v == nil || err != nil {
		return blockRecord{}, err
	}
	return decodeBlock(v)
}

func (x *tx) setBlock(h digest, b blockRecord) error {
	key := x.d.digestKey(keyBlock, h)
	if b.refs == 0 && b.group == 0 {
		return x.del(key)
	}
	return x.set(key, b.encode())
}

// refer counts n more references to a block. One that becomes live waits for a stripe, unless it is in one; and so does
// one whose group is lost, as it was just put into the store.
func (x *tx) refer(s erasure.Shard, n uint64) error {
	h := digestOf(s.CID)
	b, err := x.block(h)
	if err != nil {
		return err
	}
	if b.refs == 0 {
		b.bytes, b.codec = uint64(s.Bytes), s.CID.Prefix().Codec
		if err := x.enliven(h, &b); err != nil {
			return err
		}
	}
	if b.refs > 0 && b.group != 0 && b.queue == 0 { // whoever has it again may have it placed again
		g, err := x.head(b.group)
		if err == nil && g != nil && g.state == groupLost {
			err = x.enqueue(h, &b)
		}
		if err != nil {
			return err
		}
	}
	b.refs += n
	return x.setBlock(h, b)
}

// enliven is for a block that was not live.
func (x *tx) enliven(h digest, b *blockRecord) error {
	x.tally.liveBlocks++
	x.tally.liveBytes += int64(b.bytes)
	if b.group != 0 {
		g, err := x.head(b.group)
		if err != nil {
			return err
		}
		if g == nil {
			return corrupt("block in group %d, which is not there", b.group)
		}
		if g.state == groupReleasing { // too late to have it back
			b.group = 0
			return x.enqueue(h, b)
		}
		g.liveBlocks++
		g.liveBytes += b.bytes
		if !g.moving && g.state != groupLost {
			return nil
		}
	}
	return x.enqueue(h, b)
}

// enqueue has a block wait for a stripe.
func (x *tx) enqueue(h digest, b *blockRecord) (err error) {
	if b.queue != 0 {
		return nil
	}
	if b.queue, err = x.next(); err != nil {
		return err
	}
	x.tally.queuedBlocks++
	x.tally.queuedBytes += int64(b.bytes)
	return x.set(x.d.key(keyQueue, b.queue), queueItem(h, *b))
}

// dequeue ends a block's waiting.
func (x *tx) dequeue(b *blockRecord) error {
	if b.queue == 0 {
		return nil
	}
	x.tally.queuedBlocks--
	x.tally.queuedBytes -= int64(b.bytes)
	key := x.d.key(keyQueue, b.queue)
	b.queue = 0
	return x.del(key)
}

// forget counts n references less.
func (x *tx) forget(h digest, n uint64) error {
	b, err := x.block(h)
	if err != nil {
		return err
	}
	if b.refs < n || n == 0 {
		return corrupt("block with %d references loses %d", b.refs, n)
	}
	if b.refs -= n; b.refs > 0 {
		return x.setBlock(h, b)
	}
	x.tally.liveBlocks--
	x.tally.liveBytes -= int64(b.bytes)
	if err := x.dequeue(&b); err != nil {
		return err
	}
	if b.group != 0 {
		g, err := x.head(b.group)
		if err != nil {
			return err
		}
		if g == nil {
			return corrupt("block in group %d, which is not there", b.group)
		}
		g.liveBlocks--
		g.liveBytes -= b.bytes
	}
	return x.setBlock(h, b)
}

func queueItem(h digest, b blockRecord) []byte {
	var e encoder
	e.cid(makeCID(b.codec, h))
	e.num(b.bytes)
	return e
}

func decodeQueueItem(v []byte) (erasure.Shard, error) {
	d := decoder{rest: v}
	s := erasure.Shard{CID: d.cid(), Bytes: int(d.num())}
	return s, d.end("queue")
}

// countedBlock is a block of a list and how often it is there.
type countedBlock struct {
	shard erasure.Shard
	n     uint64
}

// countBlocks joins the repetitions in a list, which is kept in order.
func countBlocks(list []erasure.Shard) []countedBlock {
	at := make(map[cid.Cid]int, len(list))
	out := make([]countedBlock, 0, len(list))
	for _, s := range list {
		i, ok := at[s.CID]
		if !ok {
			i = len(out)
			at[s.CID] = i
			out = append(out, countedBlock{shard: s})
		}
		out[i].n++
	}
	return out
}

// encodeList writes the piece of a list.
func encodeList(list []countedBlock) []byte {
	var e encoder
	for _, b := range list {
		e.cid(b.shard.CID)
		e.num(uint64(b.shard.Bytes))
		e.num(b.n)
	}
	return e
}

func decodeList(v []byte) ([]countedBlock, error) {
	d := decoder{rest: v}
	var list []countedBlock
	for len(d.rest) > 0 {
		list = append(list, countedBlock{erasure.Shard{CID: d.cid(), Bytes: int(d.num())}, d.num()})
	}
	return list, d.end("list")
}

// putPiece writes a piece of an owner's list and counts its blocks.
func (x *tx) putPiece(owner, piece uint64, list []countedBlock) error {
	for _, b := range list {
		if err := x.refer(b.shard, b.n); err != nil {
			return err
		}
	}
	return x.set(x.d.key(keyList, owner, piece), encodeList(list))
}

// countDrafts makes the pieces of a file that was read pieces of its owner's list, and has their blocks protected when
// there are enough.
func (d *Dataset) countDrafts(ctx context.Context, owner, pieces uint64) error {
	for piece := range pieces {
		err := d.commit(func(x *tx) error {
			key := d.key(keyDraft, owner, piece)
			v, err := x.get(key)
			if err != nil {
				return err
			}
			list, err := decodeList(v)
			if err != nil {
				return err
			}
			if err := x.putPiece(owner, piece, list); err != nil {
				return err
			}
			return x.del(key)
		})
		if err == nil {
			err = d.roundWhileCounting(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropOwner takes an owner's list apart, for which keyOwner is set already.
func (d *Dataset) dropOwner(owner uint64) error {
	if err := d.drain(d.key(keyDraft, owner), pieceBlocks, nil); err != nil {
		return err
	}
	err := d.drain(d.key(keyList, owner), 1, func(x *tx, _, value []byte) error {
		list, err := decodeList(value)
		if err != nil {
			return err
		}
		for _, b := range list {
			if err := x.forget(digestOf(b.shard.CID), b.n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.commit(func(x *tx) error { return x.del(d.key(keyOwner, owner)) })
}
