package dataset

import (
	"context"

	"github.com/dgraph-io/badger/v4"
	blocks "github.com/ipfs/go-block-format"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

const (
	shardWidth = 256
	maxLevels  = 8  // of 8 bits each, of a hash of 64
	shardBatch = 64 // shards put and written together
)

// shardRecord is a shard below a directory's root block. It is there only while it is as it should be.
type shardRecord struct {
	link  dag.Link
	bytes uint64 // of the block
}

func (s shardRecord) encode() []byte {
	var e encoder
	e.cid(s.link.CID)
	e.num(s.link.Bytes)
	e.num(s.bytes)
	return e
}

func decodeShard(v []byte) (shardRecord, error) {
	d := decoder{rest: v}
	s := shardRecord{link: dag.Link{CID: d.cid(), Bytes: d.num()}, bytes: d.num()}
	return s, d.end("shard")
}

// shardBuilder builds what is missing of one directory's HAMT. A shard depends on the names below it alone, which are
// neighbours in the database; so are the shards of a level. Shards that are there are linked to without a look below.
type shardBuilder struct {
	d       *Dataset
	ctx     context.Context
	x       *tx
	it      *badger.Iterator // over the directory's entries
	prefix  []byte           // of the entries
	dir     uint64
	pending []pendingShard
}

type pendingShard struct {
	key   []byte
	rec   shardRecord
	block blocks.Block
}

// buildShards builds a directory's HAMT and returns its root block.
func (d *Dataset) buildShards(ctx context.Context, id uint64, m dag.Meta) (link dag.Link, root blocks.Block, err error) {
	err = d.view(func(x *tx) error {
		b := &shardBuilder{d: d, ctx: ctx, x: x, dir: id, prefix: d.key(keyEntry, id)}
		b.it = x.t.NewIterator(badger.IteratorOptions{Prefix: b.prefix})
		defer b.it.Close()
		kids, err := b.kids(0, 0)
		if err == nil {
			err = b.flush()
		}
		if err == nil {
			root, link.Bytes = shardNode(kids, m)
			link.CID = root.Cid()
		}
		return err
	})
	return link, root, err
}

// at moves the iterator to the first entry shown from a hash on, of those that share its first levels bytes.
func (b *shardBuilder) at(hash uint64, levels int) (s spot, link dag.Link, ok bool, err error) {
	b.it.Seek(b.d.key(keyEntry, b.dir, hash))
	return b.shown(hash, levels)
}

// shown skips what is not shown.
func (b *shardBuilder) shown(hash uint64, levels int) (s spot, link dag.Link, ok bool, err error) {
	for ; b.it.ValidForPrefix(b.prefix); b.it.Next() {
		if err := context.Cause(b.ctx); err != nil {
			return s, link, false, err
		}
		rest := b.it.Item().Key()[len(b.prefix):]
		s = spot{dir: b.dir, hash: number(rest, 0), name: string(rest[8:])}
		if levels > 0 && s.hash>>(64-8*levels) != hash>>(64-8*levels) {
			return s, link, false, nil
		}
		var r entryRecord
		err := b.it.Item().Value(func(v []byte) (err error) {
			r, err = decodeEntry(v)
			return err
		})
		if err != nil || r.link.CID.Defined() {
			return s, r.link, err == nil, err
		}
	}
	return s, link, false, nil
}

// kids lists the links of the shard at a level on the way to hash, whose later bytes are zero.
func (b *shardBuilder) kids(level int, hash uint64) ([]shardKid, error) {
	var kids []shardKid
	low := 64 - 8*(level+1)
	for at := hash; ; {
		s, link, ok, err := b.at(at, level)
		if err != nil {
			return nil, err
		}
		if !ok {
			return kids, nil
		}
		first := s.hash >> low << low
		kid, err := b.kid(level+1, first, s, link)
		if err != nil {
			return nil, err
		}
		kid.index = int(s.hash>>low) & (shardWidth - 1)
		kids = append(kids, kid)
		if kid.index == shardWidth-1 {
			return kids, nil
		}
		at = first + 1<<low
	}
}

// kid makes the link for all entries that share hash's first level bytes, of which s is the first.
func (b *shardBuilder) kid(level int, hash uint64, s spot, link dag.Link) (shardKid, error) {
	entry := shardKid{name: s.name, link: link}
	if level == maxLevels {
		return entry, nil // names with equal hashes have no form: the first is shown
	}
	key := b.d.shardKey(b.dir, level, hash)
	v, err := b.x.get(key)
	if err != nil {
		return entry, err
	}
	if v != nil {
		rec, err := decodeShard(v)
		return shardKid{link: rec.link}, err
	}
	b.it.Next()
	if _, _, more, err := b.shown(hash, level); err != nil || !more {
		return entry, err
	}
	kids, err := b.kids(level, hash)
	if err != nil {
		return entry, err
	}
	if len(kids) == 1 && level == maxLevels-1 && kids[0].name != "" {
		return kids[0], nil
	}
	blk, size := shardNode(kids, dag.Meta{})
	rec := shardRecord{link: dag.Link{CID: blk.Cid(), Bytes: size}, bytes: uint64(len(blk.RawData()))}
	b.pending = append(b.pending, pendingShard{key, rec, blk})
	if len(b.pending) >= shardBatch {
		err = b.flush()
	}
	return shardKid{link: rec.link}, err
}

// flush puts and records the shards that are done.
func (b *shardBuilder) flush() error {
	if len(b.pending) == 0 {
		return nil
	}
	blks := make([]blocks.Block, len(b.pending))
	for i, p := range b.pending {
		blks[i] = p.block
	}
	if err := b.d.putBlocks(b.ctx, blks); err != nil {
		return err
	}
	err := b.d.commit(func(x *tx) error {
		for _, p := range b.pending {
			if err := x.refer(erasure.Shard{CID: p.rec.link.CID, Bytes: int(p.rec.bytes)}, 1); err != nil {
				return err
			}
			if err := x.set(p.key, p.rec.encode()); err != nil {
				return err
			}
		}
		return nil
	})
	b.pending = b.pending[:0]
	return err
}
