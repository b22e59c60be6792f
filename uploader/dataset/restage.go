package dataset

import (
	"context"
	"errors"
	"fmt"
	"path"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/uploader/dag"
)

// restagedAtOnce is how many groups are looked for in all files together.
const restagedAtOnce = 256

// Restage has the live blocks of groups that are lost made and placed anew, in other groups, as far as the staging tree has
// the files and directories that they are of as they were: the others can't be helped, as nobody has the blocks that are
// not live. Groups that are placed are left alone. Work does it, and tells Sink.Restaged. It reads the lists of all files.
func (d *Dataset) Restage(_ context.Context, ids ...GroupID) error {
	for _, id := range ids {
		err := d.commit(func(x *tx) error {
			h, err := x.head(id)
			if err != nil || h == nil || h.state != groupLost {
				return err
			}
			return x.flag(d.key(keyRestage, uint64(id)))
		})
		if err != nil {
			return fmt.Errorf("bring blocks of group %d back: %w", id, err)
		}
	}
	return nil
}

// restage brings the blocks of the groups back for which it was asked, of as many as may wait to be placed.
func (d *Dataset) restage(ctx context.Context) error {
	if !d.mayFill() || d.overBound(d.pending(d.tally())) {
		return nil
	}
	r := &restager{d: d, wanted: make(map[digest]GroupID), ctx: ctx}
	if err := r.choose(); err != nil || len(r.ids) == 0 {
		return err
	}
	d.tried = true
	err := inTurn(ctx, r.files, r.dirs, r.links)
	if errors.Is(err, ErrFull) {
		return d.tolerate(err)
	}
	var left map[GroupID]int
	if err == nil {
		left, err = r.left()
	}
	for _, id := range r.ids {
		if err == nil {
			err = d.cfg.Sink.Restaged(ctx, id, left[id] == 0)
		}
		if err == nil {
			err = d.commit(func(x *tx) error { return x.del(d.key(keyRestage, uint64(id))) })
		}
	}
	return err
}

// restager looks for the blocks of groups.
type restager struct {
	d      *Dataset
	ctx    context.Context
	ids    []GroupID
	wanted map[digest]GroupID // that are live
}

// choose takes groups, and lists their live blocks.
func (r *restager) choose() error {
	bytes := int64(0)
	return r.d.scanKind(keyRestage, func(rest, _ []byte) error {
		id := GroupID(number(rest, 0))
		r.ids = append(r.ids, id)
		err := r.d.view(func(x *tx) error {
			h, err := x.head(id)
			if err != nil || h == nil || h.state != groupLost {
				return err
			}
			bytes += int64(h.liveBytes)
			return x.scan(r.d.key(keyStripes, uint64(id)), func(_, value []byte) error {
				stripes, err := decodeStripes(value)
				for _, s := range stripes {
					for _, b := range s.Data {
						if err == nil {
							err = r.want(x, id, digestOf(b.CID))
						}
					}
				}
				return err
			})
		})
		if err == nil && (len(r.ids) == restagedAtOnce || r.d.overBound(r.d.pending(r.d.tally())+r.d.stored(bytes))) {
			return errStop
		}
		return err
	})
}

// want adds a block, if it is a group's still.
func (r *restager) want(x *tx, id GroupID, h digest) error {
	b, err := x.block(h)
	if err == nil && b.refs > 0 && b.group == id && b.queue == 0 {
		r.wanted[h] = id
	}
	return err
}

// left counts the blocks that were not found, by group.
func (r *restager) left() (map[GroupID]int, error) {
	left := make(map[GroupID]int)
	err := r.d.view(func(x *tx) error {
		for h, id := range r.wanted {
			b, err := x.block(h)
			if err != nil {
				return err
			}
			if b.refs > 0 && b.group == id && b.queue == 0 {
				left[id]++
			}
		}
		return nil
	})
	return left, err
}

// Put implements dag.Sink: what is wanted waits for a stripe. It is called concurrently.
func (r *restager) Put(ctx context.Context, blks []blocks.Block) error {
	var found []blocks.Block
	for _, b := range blks {
		if _, ok := r.wanted[digestOf(b.Cid())]; ok {
			found = append(found, b)
		}
	}
	if err := r.d.putBlocks(ctx, found); err != nil || len(found) == 0 {
		return err
	}
	return r.d.commit(func(x *tx) error {
		for _, blk := range found {
			h := digestOf(blk.Cid())
			b, err := x.block(h)
			if err == nil && b.refs > 0 {
				if err = x.enqueue(h, &b); err == nil {
					err = x.setBlock(h, b)
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Body implements dag.Sink.
func (r *restager) Body(context.Context, uint64) (dag.Body, error) { return restagedBody{r}, nil }

type restagedBody struct{ *restager }

// Commit implements dag.Body.
func (restagedBody) Commit(context.Context, cid.Cid) error { return nil }

// Abort implements dag.Body.
func (restagedBody) Abort() {}

// Put implements dag.Body. The bytes are the caller's.
func (b restagedBody) Put(ctx context.Context, _ uint64, blks []blocks.Block) error {
	var own []blocks.Block
	for _, blk := range blks {
		if _, ok := b.wanted[digestOf(blk.Cid())]; ok {
			c, err := blocks.NewBlockWithCid(append([]byte(nil), blk.RawData()...), blk.Cid())
			if err != nil {
				return err
			}
			own = append(own, c)
		}
	}
	return b.restager.Put(ctx, own)
}

// files reads the files again that have wanted blocks.
func (r *restager) files(ctx context.Context) error {
	return r.d.scan(r.d.key(keyFile), func(rest, value []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		rec, err := decodeFile(value)
		if err != nil {
			return err
		}
		_, has := r.wanted[digestOf(rec.link.CID)]
		if !has {
			if has, err = r.has(rec.owner); err != nil || !has {
				return err
			}
		}
		return r.file(FileID(rest), rec)
	})
}

// has says whether an owner's list has a wanted block.
func (r *restager) has(owner uint64) (has bool, err error) {
	err = r.d.scan(r.d.key(keyList, owner), func(_, value []byte) error {
		list, err := decodeList(value)
		for _, b := range list {
			if _, has = r.wanted[digestOf(b.shard.CID)]; has {
				return errStop
			}
		}
		return err
	})
	return has, err
}

// file reads a file again, if it is in the staging tree as it was imported. What changes meanwhile gives other blocks.
func (r *restager) file(id FileID, rec fileRecord) error {
	f, err := r.d.cfg.Staging.Open(r.ctx, id)
	if errors.Is(err, ErrGone) || errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	err = r.read(f, rec)
	return errors.Join(err, f.Close())
}

func (r *restager) read(f StagedFile, rec fileRecord) error {
	st, err := f.Stat()
	if err != nil || st.Away || st.Version != rec.version {
		return err
	}
	b, err := dag.New(dag.Config{Sink: r, Preserve: true})
	if err != nil {
		return err
	}
	source := &reader{f: f}
	_, err = b.File(r.ctx, source, st.Bytes, meta(rec.mode, rec.modTime))
	if source.err != nil || errors.Is(err, dag.ErrSize) {
		return nil // it was changed, or cannot be read: its import says so
	}
	return err
}

// dirs makes the blocks of directories again.
func (r *restager) dirs(ctx context.Context) error {
	return r.d.scan(r.d.key(keyDir), func(rest, value []byte) error {
		rec, err := decodeDir(value)
		if err != nil {
			return err
		}
		id := number(rest, 0)
		if rec.sharded {
			if err := r.shards(id); err != nil {
				return err
			}
		}
		if !rec.link.CID.Defined() {
			return nil
		}
		if _, ok := r.wanted[digestOf(rec.link.CID)]; !ok {
			return nil
		}
		_, root, err := r.d.dirNode(ctx, id, meta(rec.mode, rec.modTime), rec.sharded)
		if err != nil {
			return err
		}
		return r.Put(ctx, []blocks.Block{root})
	})
}

// shards has the shards of a large directory made anew, if some is wanted: they come to other groups then.
func (r *restager) shards(id uint64) error {
	wanted := false
	err := r.d.scan(r.d.key(keyShard, id), func(_, value []byte) error {
		s, err := decodeShard(value)
		if err != nil {
			return err
		}
		if _, wanted = r.wanted[digestOf(s.link.CID)]; wanted {
			return errStop
		}
		return nil
	})
	if err != nil || !wanted {
		return err
	}
	if err := r.d.dropShards(id); err != nil {
		return err
	}
	return r.d.commit(func(x *tx) error { return x.markDirty(id) })
}

// links makes the blocks of symbolic links again.
func (r *restager) links(ctx context.Context) error {
	return r.d.scan(r.d.key(keyEntry), func(rest, value []byte) error {
		e, err := decodeEntry(value)
		if err != nil || e.kind != Symlink {
			return err
		}
		if _, ok := r.wanted[digestOf(e.link.CID)]; !ok {
			return nil
		}
		var dir string
		err = r.d.view(func(x *tx) (err error) {
			dir, _, err = x.pathOf(number(rest, 0))
			return err
		})
		if err != nil {
			return err
		}
		there, err := r.d.cfg.Staging.Stat(ctx, path.Join(dir, string(rest[16:])))
		if errors.Is(err, ErrGone) || err == nil && there.Kind != Symlink {
			return nil
		}
		if err != nil {
			return err
		}
		_, blks, err := symlinkBlock(ctx, there)
		if err != nil {
			return err
		}
		return r.Put(ctx, blks)
	})
}
