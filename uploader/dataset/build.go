package dataset

import (
	"context"
	"errors"

	blocks "github.com/ipfs/go-block-format"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

// build builds the directories that changed, from the bottom.
func (d *Dataset) build(ctx context.Context) error {
	var dirty []byte
	err := d.view(func(x *tx) (err error) {
		dirty, err = x.get(d.key(keyDirty, 0, rootDir))
		return err
	})
	if dirty == nil || err != nil {
		return err
	}
	return d.buildDir(ctx, 0, rootDir, "")
}

// buildDir builds a directory of which it is noted that something below it changed.
func (d *Dataset) buildDir(ctx context.Context, parent, id uint64, p string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	err := d.scan(d.key(keyDirty, id), func(rest, _ []byte) error {
		child := number(rest, 0)
		var r dirRecord
		var found bool
		err := d.view(func(x *tx) (err error) {
			r, found, err = x.dir(child)
			return err
		})
		if err == nil && !found {
			err = corrupt("directory %d in %q is not there", child, p)
		}
		if err != nil {
			return err
		}
		if p != "" {
			return d.buildDir(ctx, id, child, p+"/"+r.name)
		}
		return d.buildDir(ctx, id, child, r.name)
	})
	if err != nil {
		return err
	}
	return d.buildOne(ctx, parent, id, p)
}

// buildOne builds a directory whose directories are built.
func (d *Dataset) buildOne(ctx context.Context, parent, id uint64, p string) error {
	var r dirRecord
	err := d.view(func(x *tx) (err error) {
		r, _, err = x.dir(id)
		return err
	})
	if err != nil {
		return err
	}
	e, err := d.cfg.Staging.Stat(ctx, p)
	switch {
	case err != nil && !errors.Is(err, ErrGone):
		return err
	case err == nil && e.Kind == Directory && (e.ID == r.ident || id == rootDir):
		r.mode, r.modTime = e.Mode, e.ModTime
	default: // it has moved, and that is still to be told
		if err := d.commit(func(x *tx) error { return x.flag(d.key(keyRelist, id)) }); err != nil {
			return err
		}
	}
	m := meta(r.mode, r.modTime)
	sharded := r.shown+dirDataBytes(m) > shardingBytes
	if sharded && !r.sharded {
		if err := d.setSharded(id); err != nil {
			return err
		}
	}
	link, root, err := d.dirNode(ctx, id, m, sharded)
	if err != nil {
		return err
	}
	if link.CID != r.link.CID {
		if err := d.putBlocks(ctx, []blocks.Block{root}); err != nil {
			return err
		}
	}
	if r.sharded && !sharded {
		if err := d.dropShards(id); err != nil { // a stop here leaves it sharded, with all shards to be made
			return err
		}
	}
	return d.commit(func(x *tx) error { return x.built(parent, id, r, link, root, sharded) })
}

// setSharded notes that from now on shards are there, which changes spoil.
func (d *Dataset) setSharded(id uint64) error {
	return d.commit(func(x *tx) error {
		r, _, err := x.dir(id)
		if err != nil {
			return err
		}
		r.sharded = true
		return x.setDir(id, r)
	})
}

// built records a directory's block.
func (x *tx) built(parent, id uint64, r dirRecord, link dag.Link, root blocks.Block, sharded bool) error {
	if link.CID != r.link.CID {
		bytes := uint64(len(root.RawData()))
		if err := x.refer(erasure.Shard{CID: link.CID, Bytes: int(bytes)}, 1); err != nil {
			return err
		}
		if r.link.CID.Defined() {
			if err := x.forget(digestOf(r.link.CID), 1); err != nil {
				return err
			}
		}
		r.link, r.bytes = link, bytes
		if id == rootDir {
			if err := x.flag(x.d.key(keyChanged)); err != nil {
				return err
			}
		}
	}
	r.sharded = sharded
	if err := x.setDir(id, r); err != nil {
		return err
	}
	if err := x.del(x.d.key(keyDirty, parent, id)); err != nil || id == rootDir {
		return err
	}
	s := spotIn(parent, r.name)
	e, found, err := x.entry(s)
	if err != nil {
		return err
	}
	if !found || e.dir != id {
		return corrupt("directory %q is not in its parent", r.name)
	}
	e.link = link
	return x.put(s, e, false)
}

// dirNode makes a directory's root block, and the shards below it that are missing.
func (d *Dataset) dirNode(ctx context.Context, id uint64, m dag.Meta, sharded bool) (dag.Link, blocks.Block, error) {
	if sharded {
		return d.buildShards(ctx, id, m)
	}
	var c catcher
	b, err := dag.New(dag.Config{Sink: &c, Preserve: true})
	if err != nil {
		return dag.Link{}, nil, err
	}
	dir := b.Dir(m)
	err = d.scan(d.key(keyEntry, id), func(rest, value []byte) error {
		e, err := decodeEntry(value)
		if err != nil || !e.link.CID.Defined() {
			return err
		}
		return dir.Add(string(rest[8:]), e.link)
	})
	if err != nil {
		return dag.Link{}, nil, err
	}
	link, err := dir.Close(ctx)
	if err != nil {
		return link, nil, err
	}
	if len(c.blks) != 1 {
		return link, nil, corrupt("a directory of one block became %d", len(c.blks))
	}
	return link, c.blks[0], nil
}

// symlink makes a symbolic link's block.
func (d *Dataset) symlink(ctx context.Context, e Entry) (dag.Link, error) {
	link, blks, err := symlinkBlock(ctx, e)
	if err == nil {
		err = d.putBlocks(ctx, blks)
	}
	return link, err
}

func symlinkBlock(ctx context.Context, e Entry) (dag.Link, []blocks.Block, error) {
	var c catcher
	b, err := dag.New(dag.Config{Sink: &c, Preserve: true})
	if err != nil {
		return dag.Link{}, nil, err
	}
	link, err := b.Symlink(ctx, e.Target, meta(0, e.ModTime))
	return dag.Link{CID: link.CID, Bytes: link.Bytes}, c.blks, err
}

// catcher is a dag.Sink for what has few blocks.
type catcher struct{ blks []blocks.Block }

func (c *catcher) Put(_ context.Context, blks []blocks.Block) error {
	c.blks = append(c.blks, blks...)
	return nil
}

func (c *catcher) Body(context.Context, uint64) (dag.Body, error) {
	return nil, errors.New("a directory has no body")
}
