package dataset

import (
	"context"
	"errors"
	"os"

	blocks "github.com/ipfs/go-block-format"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

// fileRecord is the version of a file that was imported last. Its root block is counted for the record, the others for
// the owner, whose list they are in: a change of metadata replaces the root alone.
type fileRecord struct {
	version Version
	mode    os.FileMode
	modTime int64 // in the root; version may be that of a later change of metadata that was not looked at yet
	link    dag.Link
	root    uint64 // bytes of the root block
	owner   uint64
	blocks  uint64 // of the list, repetitions too, and the root
}

func (r fileRecord) encode() []byte {
	var e encoder
	e.version(r.version)
	e.num(uint64(r.mode))
	e.signed(r.modTime)
	e.cid(r.link.CID)
	for _, v := range []uint64{r.link.Bytes, r.link.FileBytes, r.root, r.owner, r.blocks} {
		e.num(v)
	}
	return e
}

func decodeFile(v []byte) (fileRecord, error) {
	d := decoder{rest: v}
	r := fileRecord{version: d.version(), mode: os.FileMode(d.num()), modTime: d.signed()}
	r.link.CID = d.cid()
	r.link.Bytes, r.link.FileBytes, r.root, r.owner, r.blocks = d.num(), d.num(), d.num(), d.num(), d.num()
	return r, d.end("file")
}

func (x *tx) file(id FileID) (r fileRecord, found bool, err error) {
	v, err := x.get(x.d.fileKey(keyFile, id))
	if v == nil || err != nil {
		return r, false, err
	}
	r, err = decodeFile(v)
	return r, err == nil, err
}

// fileLink is what an entry for a file links to: nothing while it was not imported.
func (x *tx) fileLink(id FileID) (dag.Link, error) {
	r, _, err := x.file(id)
	return dag.Link{CID: r.link.CID, Bytes: r.link.Bytes}, err
}

// told says whether a version of a file was told of as Closed.
func (x *tx) told(id FileID) (bool, error) {
	v, err := x.get(x.d.fileKey(keyTold, id))
	return v != nil, err
}

// linkedAtOnce is how many names of a file change their link in the commit that changes the file.
const linkedAtOnce = 16

// showFile has the names of a file link to what it is now; spots are up to linkedAtOnce+1 of them.
func (x *tx) showFile(id FileID, link dag.Link, spots []spot) error {
	if len(spots) == 0 {
		return x.flag(x.d.fileKey(keyNameless, id))
	}
	if len(spots) > linkedAtOnce {
		return x.flag(x.d.fileKey(keyRelink, id))
	}
	for _, s := range spots {
		r, found, err := x.entry(s)
		if err != nil {
			return err
		}
		if !found || r.file != id {
			return corrupt("name %q of file %x is another's", s.name, id)
		}
		r.link = dag.Link{CID: link.CID, Bytes: link.Bytes}
		if err := x.put(s, r, false); err != nil {
			return err
		}
	}
	return nil
}

// relinkMany brings up all names of the files that have very many.
func (d *Dataset) relinkMany() error {
	return d.eachFile(keyRelink, func(id FileID) error {
		var link dag.Link
		err := d.view(func(x *tx) (err error) {
			link, err = x.fileLink(id)
			return err
		})
		if err != nil {
			return err
		}
		var spots []spot
		flush := func() error {
			err := d.commit(func(x *tx) error { return x.showFile(id, link, spots) })
			spots = spots[:0]
			return err
		}
		err = d.scan(d.fileKey(keyNames, id), func(rest, _ []byte) error {
			if spots = append(spots, spotOf(append([]byte{}, rest...))); len(spots) < linkedAtOnce {
				return nil
			}
			return flush()
		})
		if err == nil && len(spots) > 0 {
			err = flush()
		}
		if err != nil {
			return err
		}
		return d.commit(func(x *tx) error { return x.del(d.fileKey(keyRelink, id)) })
	})
}

// sameContent takes a change of a file that left its content as it was.
func (d *Dataset) sameContent(ctx context.Context, c Change) error {
	if c.File == (FileID{}) || c.Version == (Version{}) {
		return nil
	}
	var r fileRecord
	var found bool
	err := d.view(func(x *tx) (err error) {
		if v, err := x.get(d.fileKey(keyClosed, c.File)); v != nil || err != nil {
			return err // it is imported anyway
		}
		r, found, err = x.file(c.File)
		return err
	})
	if err != nil || !found {
		return err
	}
	r.version = c.Version
	f, err := d.cfg.Staging.Open(ctx, c.File)
	if errors.Is(err, ErrBusy) {
		return d.commit(func(x *tx) error { return x.set(d.fileKey(keyFile, c.File), r.encode()) })
	}
	if errors.Is(err, ErrGone) { // it has moved: its metadata is looked at when it is found
		return d.commit(func(x *tx) error {
			if err := x.set(d.fileKey(keyFile, c.File), r.encode()); err != nil {
				return err
			}
			return x.flag(d.fileKey(keyClosed, c.File))
		})
	}
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if st.Version != c.Version || st.Mode == r.mode && st.ModTime == r.modTime {
		return d.commit(func(x *tx) error { return x.set(d.fileKey(keyFile, c.File), r.encode()) })
	}
	done, err := d.remeta(ctx, c.File, r, st)
	if errors.Is(err, ErrFull) {
		d.filled(err)
	} else if err != nil {
		return err
	}
	if !done {
		err = d.commit(func(x *tx) error { return x.flag(d.fileKey(keyClosed, c.File)) }) // the file has all of it
	}
	return err
}

// remeta gives a file's root other metadata; false if the root is not to be had.
func (d *Dataset) remeta(ctx context.Context, id FileID, r fileRecord, st FileStat) (done bool, err error) {
	node, err := d.cfg.Store.Get(ctx, r.link.CID)
	if err != nil {
		return false, context.Cause(ctx)
	}
	blk, err := withMeta(node, meta(st.Mode, st.ModTime))
	if err == nil {
		err = d.putBlocks(ctx, []blocks.Block{blk})
	}
	if err != nil {
		return false, err
	}
	spots, err := d.names(id, linkedAtOnce+1)
	if err != nil {
		return false, err
	}
	old := r.link.CID
	r.mode, r.modTime = st.Mode, st.ModTime
	r.link.Bytes += uint64(len(blk.RawData())) - r.root
	r.link.CID, r.root = blk.Cid(), uint64(len(blk.RawData()))
	return true, d.commit(func(x *tx) error {
		if err := x.refer(erasure.Shard{CID: r.link.CID, Bytes: int(r.root)}, 1); err != nil {
			return err
		}
		if err := x.forget(digestOf(old), 1); err != nil {
			return err
		}
		if err := x.set(d.fileKey(keyFile, id), r.encode()); err != nil {
			return err
		}
		if err := x.del(d.fileKey(keyClosed, id)); err != nil {
			return err
		}
		return x.showFile(id, r.link, spots)
	})
}

// dropNameless forgets the files that have no name any more. To be called when the journal is empty: a file on its way
// to another name has none in between.
func (d *Dataset) dropNameless() error {
	return d.eachFile(keyNameless, func(id FileID) error {
		spots, err := d.names(id, 1)
		if err != nil {
			return err
		}
		return d.commit(func(x *tx) error {
			if len(spots) == 0 {
				if err := x.dropFile(id); err != nil {
					return err
				}
			}
			return x.del(d.fileKey(keyNameless, id))
		})
	})
}

func (x *tx) dropFile(id FileID) error {
	r, found, err := x.file(id)
	if err != nil {
		return err
	}
	if found {
		if err := x.forget(digestOf(r.link.CID), 1); err != nil {
			return err
		}
		if err := x.flag(x.d.key(keyOwner, r.owner)); err != nil {
			return err
		}
	}
	for _, kind := range []byte{keyFile, keyTold, keyClosed, keyRelink} {
		if err := x.del(x.d.fileKey(kind, id)); err != nil {
			return err
		}
	}
	return nil
}

// dropOwners takes the lists apart that nothing has any more.
func (d *Dataset) dropOwners() error {
	return d.scanKind(keyOwner, func(rest, _ []byte) error { return d.dropOwner(number(rest, 0)) })
}
