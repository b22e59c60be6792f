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

// Restage has the blocks of groups be in the Store again, as far as the staging tree has the files and directories that
// they are of as they were: until the group is placed. Groups that are placed are left alone. Work does it, and tells
// Sink.Restaged. It reads the lists of all files.
func (d *Dataset) Restage(_ context.Context, ids ...GroupID) error {
	for _, id := range ids {
		err := d.commit(func(x *tx) error {
			h, err := x.head(id)
			if err != nil || h == nil || h.state != groupFormed && h.state != groupLost {
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

// restage brings the blocks of the groups back for which it was asked.
func (d *Dataset) restage(ctx context.Context) error {
	var ids []GroupID
	err := d.scanKind(keyRestage, func(rest, _ []byte) error {
		ids = append(ids, GroupID(number(rest, 0)))
		if len(ids) == restagedAtOnce {
			return errStop
		}
		return nil
	})
	if err != nil || len(ids) == 0 || !d.mayFill() {
		return err
	}
	r := &restager{d: d, ctx: ctx, wanted: make(map[digest]GroupID)}
	err = inTurn(ctx, func(context.Context) error { return r.want(ids) }, r.files, r.dirs, r.links)
	if errors.Is(err, ErrFull) {
		d.tried = true
		return d.tolerate(err)
	}
	for _, id := range ids {
		if err == nil {
			err = d.cfg.Sink.Restaged(ctx, id)
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
	wanted map[digest]GroupID // that were not found yet
}

// want lists the live blocks of groups.
func (r *restager) want(ids []GroupID) error {
	for _, id := range ids {
		err := r.d.view(func(x *tx) error {
			h, err := x.head(id)
			if err != nil || h == nil || h.state != groupFormed && h.state != groupLost {
				return err
			}
			return x.scan(r.d.key(keyStripes, uint64(id)), func(_, value []byte) error {
				stripes, err := decodeStripes(value)
				for _, s := range stripes {
					for _, b := range s.Data {
						r.wanted[digestOf(b.CID)] = id
					}
				}
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Put implements dag.Sink: it keeps what is wanted.
func (r *restager) Put(ctx context.Context, blks []blocks.Block) error {
	for _, b := range blks {
		id, ok := r.wanted[digestOf(b.Cid())]
		if !ok {
			continue
		}
		if err := r.d.cfg.Store.Put(ctx, groupMark(id), []blocks.Block{b}); err != nil {
			return err
		}
	}
	return nil
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
