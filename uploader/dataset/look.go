package dataset

import (
	"context"
	"errors"
	"path"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

// look says how to take what is found at a path.
type look struct {
	closed bool // the file was told of as Closed, so that its name does not matter
	moved  bool // nothing there is no removal: whatever took it away is still to come
}

// touch brings the record of a path up to what is there.
func (d *Dataset) touch(ctx context.Context, p string, closed bool) error {
	return d.lookAt(ctx, p, look{closed: closed})
}

// lookAt is touch.
func (d *Dataset) lookAt(ctx context.Context, p string, how look) error {
	if p == "" {
		return d.makeDirty(rootDir)
	}
	s, parent, found, err := d.parentOf(ctx, p)
	if err != nil || !found {
		return err
	}
	e, err := d.cfg.Staging.Stat(ctx, p)
	gone := errors.Is(err, ErrGone)
	if err != nil && !gone {
		return err
	}
	// The directory may have moved away: what is at the path now says nothing about what is in the directory.
	if same, err := d.sameDir(ctx, path.Dir(p), s.dir); err != nil || !same {
		if err == nil {
			err = d.commit(func(x *tx) error { return x.flag(d.key(keyRelist, s.dir)) })
		}
		return err
	}
	if gone && how.moved {
		return nil
	}
	if gone {
		e = Entry{}
	}
	e.Name = s.name
	err = d.take(ctx, p, s, e, how.closed)
	if errors.Is(err, ErrFull) {
		err = d.missed(s.dir, err)
	}
	if err != nil {
		return err
	}
	// A directory's time changes with its names; it is asked for when it is built.
	return d.makeDirty(parent)
}

// makeDirty has a directory built, with no write if it is to be built anyway.
func (d *Dataset) makeDirty(id uint64) error {
	var noted []byte
	err := d.view(func(x *tx) error {
		r, found, err := x.dir(id)
		if err != nil || !found {
			return err
		}
		noted, err = x.get(d.key(keyDirty, r.parent, id))
		return err
	})
	if err != nil || noted != nil {
		return err
	}
	return d.commit(func(x *tx) error { return x.markDirty(id) })
}

// parentOf finds the directory that a path is in, and takes those on the way in that are not known yet.
func (d *Dataset) parentOf(ctx context.Context, p string) (s spot, parent uint64, found bool, err error) {
	names := split(p)
	for i := range names {
		sub := path.Join(names[:i+1]...)
		err := d.view(func(x *tx) (err error) {
			s, found, err = x.spotOfPath(sub)
			return err
		})
		if err != nil || !found || i == len(names)-1 {
			return s, s.dir, found, err
		}
		var known bool
		err = d.view(func(x *tx) (err error) {
			var r entryRecord
			r, known, err = x.entry(s)
			known = known && r.kind == Directory
			return err
		})
		if err == nil && !known {
			err = d.lookAt(ctx, sub, look{})
		}
		if err != nil {
			return s, 0, false, err
		}
	}
	return s, 0, false, nil
}

// sameDir says whether a directory is at a path.
func (d *Dataset) sameDir(ctx context.Context, p string, id uint64) (bool, error) {
	if id == rootDir {
		return true, nil
	}
	var r dirRecord
	err := d.view(func(x *tx) (err error) {
		r, _, err = x.dir(id)
		return err
	})
	if err != nil {
		return false, err
	}
	e, err := d.cfg.Staging.Stat(ctx, p)
	if errors.Is(err, ErrGone) {
		return false, nil
	}
	return err == nil && e.Kind == Directory && e.ID == r.ident, err
}

// wanted says whether an entry belongs into a dataset. A file under a temporary name does once it was told of as Closed.
func (d *Dataset) wanted(e Entry, told bool) bool {
	switch {
	case dag.CheckName(e.Name) != nil:
		return false
	case e.Kind == Regular && !told && d.cfg.Temporary(e.Name):
		return false
	case e.Kind == Symlink:
		return e.Target != ""
	}
	return (e.Kind == Regular || e.Kind == Directory) && e.ID != FileID{}
}

// take makes the record of an entry say what e says; a zero kind says that nothing is there.
func (d *Dataset) take(ctx context.Context, p string, s spot, e Entry, closed bool) error {
	var was entryRecord
	var had bool
	var ident FileID
	var link dag.Link
	told := closed
	err := d.view(func(x *tx) (err error) {
		if was, had, err = x.entry(s); err != nil {
			return err
		}
		if had && was.kind == Directory {
			var r dirRecord
			if r, _, err = x.dir(was.dir); err != nil {
				return err
			}
			ident = r.ident
		}
		if e.Kind == Regular {
			if link, err = x.fileLink(e.ID); err == nil && !told {
				told, err = x.told(e.ID)
			}
			told = told || had && was.kind == Regular && was.file == e.ID
		}
		return err
	})
	if err != nil {
		return err
	}
	if !d.wanted(e, told) {
		e.Kind = Special
	}
	switch {
	case e.Kind == Special && !had:
		return nil
	case e.Kind == Directory && had && was.kind == Directory && ident == e.ID:
		return d.takeMeta(was.dir, e)
	case e.Kind == Directory:
		return d.adopt(ctx, p, s, e)
	case e.Kind == Symlink:
		return d.takeSymlink(ctx, s, was, had, e)
	}
	now := entryRecord{}
	if e.Kind == Regular {
		now = entryRecord{kind: Regular, file: e.ID, link: link}
	}
	if had && was == now {
		return d.awaitImport(now)
	}
	if err := d.commit(func(x *tx) error { return x.put(s, now, false) }); err != nil {
		return err
	}
	return d.dropDoomed()
}

// awaitImport sees to it that the file of an entry that is not shown is to be imported, with no write if it is.
func (d *Dataset) awaitImport(r entryRecord) error {
	if r.kind != Regular || r.link.CID.Defined() {
		return nil
	}
	var noted []byte
	err := d.view(func(x *tx) (err error) {
		noted, err = x.get(d.fileKey(keyClosed, r.file))
		return err
	})
	if err != nil || noted != nil {
		return err
	}
	return d.commit(func(x *tx) error { return x.awaitImport(r) })
}

// takeMeta notes a directory's metadata.
func (d *Dataset) takeMeta(id uint64, e Entry) error {
	var r dirRecord
	err := d.view(func(x *tx) (err error) {
		r, _, err = x.dir(id)
		return err
	})
	if err != nil || r.mode == e.Mode && r.modTime == e.ModTime {
		return err
	}
	return d.commit(func(x *tx) error {
		r.mode, r.modTime = e.Mode, e.ModTime
		if err := x.setDir(id, r); err != nil {
			return err
		}
		return x.markDirty(id)
	})
}

func (d *Dataset) takeSymlink(ctx context.Context, s spot, was entryRecord, had bool, e Entry) error {
	link, err := d.symlink(ctx, e)
	if err != nil {
		return err
	}
	now := entryRecord{kind: Symlink, link: link, modTime: e.ModTime}
	if had && was == now {
		return nil
	}
	err = d.commit(func(x *tx) error {
		if !had || was.kind != Symlink || was.link != link {
			if err := x.refer(erasure.Shard{CID: link.CID, Bytes: int(link.Bytes)}, 1); err != nil {
				return err
			}
		}
		return x.put(s, now, false)
	})
	if err != nil {
		return err
	}
	return d.dropDoomed()
}

// adopt takes a directory in that was not known, with all below it.
func (d *Dataset) adopt(ctx context.Context, p string, s spot, e Entry) error {
	var id uint64
	err := d.commit(func(x *tx) (err error) {
		if id, err = x.next(); err != nil {
			return err
		}
		r := dirRecord{parent: s.dir, name: s.name, ident: e.ID, mode: e.Mode, modTime: e.ModTime}
		if err := x.setDir(id, r); err != nil {
			return err
		}
		// Until it is listed, a stop must not make it look whole.
		if err := x.flag(d.key(keyRelist, id)); err != nil {
			return err
		}
		if err := x.put(s, entryRecord{kind: Directory, dir: id}, false); err != nil {
			return err
		}
		return x.markDirty(id)
	})
	if err == nil {
		err = d.dropDoomed()
	}
	if err != nil {
		return err
	}
	return d.relist(ctx, p, id)
}

// relist brings all of a directory up to what is there, if it is there; what is below its directories only where they
// are new.
func (d *Dataset) relist(ctx context.Context, p string, id uint64) error {
	same, err := d.sameDir(ctx, p, id)
	if err != nil || !same {
		return err // whatever took it away is still to come, and finds the flag
	}
	if e, err := d.cfg.Staging.Stat(ctx, p); err == nil {
		if err := d.takeMeta(id, e); err != nil {
			return err
		}
	}
	there := make(map[uint64]struct{}) // by the hash of the name
	err = d.cfg.Staging.List(ctx, p, func(e Entry) error {
		s := spotIn(id, e.Name)
		there[s.hash] = struct{}{}
		return d.take(ctx, path.Join(p, e.Name), s, e, false)
	})
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err == nil {
		same, err = d.sameDir(ctx, p, id)
	}
	if err != nil || !same {
		return err
	}
	err = d.scan(d.key(keyEntry, id), func(rest, _ []byte) error {
		s := spot{dir: id, hash: number(rest, 0), name: string(rest[8:])}
		if _, ok := there[s.hash]; ok {
			return nil
		}
		return d.take(ctx, path.Join(p, s.name), s, Entry{Name: s.name}, false)
	})
	if err != nil {
		return err
	}
	return d.commit(func(x *tx) error { return x.del(d.key(keyRelist, id)) })
}

// relistMissed lists the directories in which something may have been missed.
func (d *Dataset) relistMissed(ctx context.Context) error {
	err := d.scanKind(keyRelist, func(rest, _ []byte) error {
		id := number(rest, 0)
		var p string
		var found bool
		err := d.view(func(x *tx) (err error) {
			p, found, err = x.pathOf(id)
			return err
		})
		if err != nil || !found {
			return err
		}
		return d.relist(ctx, p, id)
	})
	return d.tolerate(err)
}

// Scan brings the whole tree up to what is staged, as at a start. Files whose content changed are not noticed: they are
// told of as Closed.
func (d *Dataset) Scan(ctx context.Context) error {
	d.work.Lock()
	defer d.work.Unlock()
	d.activity.Add(1)
	if err := d.workOff(ctx); err != nil {
		return err
	}
	return d.scanDir(ctx, "", rootDir)
}

func (d *Dataset) scanDir(ctx context.Context, p string, id uint64) error {
	err := d.relist(ctx, p, id)
	if errors.Is(err, ErrFull) {
		err = d.missed(id, err)
	}
	if err != nil {
		return err
	}
	return d.scan(d.key(keyEntry, id), func(rest, value []byte) error {
		r, err := decodeEntry(value)
		if err != nil || r.kind != Directory {
			return err
		}
		return d.scanDir(ctx, path.Join(p, string(rest[8:])), r.dir)
	})
}
