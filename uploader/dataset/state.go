package dataset

import (
	"context"
	"errors"
	"math"

	"github.com/ipfs/go-cid"
)

// State is how far a dataset is.
type State struct {
	Root     cid.Cid  // of the tree as it was built last; undefined before
	Latest   Manifest // written last; ID 0: none
	Placed   Manifest // placed last
	Synced   bool     // Placed is of all that was told, and providers have all of it
	Given    bool     // Placed is of all that was told, whatever became of some of it since
	Lost     int      // groups that were placed and are not any more
	Unplaced int      // groups that never were placed
	Busy     int      // closed files that are not imported
}

// State returns how far the dataset is. It reads what is not placed yet, no more.
func (d *Dataset) State(context.Context) (s State, err error) {
	waits, overlooked := false, d.overlooked()
	err = d.glance(func(g *glance) error {
		root, _, err := g.dir(rootDir)
		if err != nil {
			return err
		}
		latest, err := g.latest()
		if err != nil {
			return err
		}
		placed, err := g.manifest(keyPlaced)
		if err != nil {
			return err
		}
		s.Root, s.Latest, s.Placed = root.link.CID, latest.Manifest, placed.Manifest
		if s.Unplaced, err = g.count(keyUnplaced, math.MaxInt); err != nil {
			return err
		}
		if s.Lost, err = g.count(keyLost, math.MaxInt); err != nil {
			return err
		}
		if s.Busy, err = g.count(keyClosed, math.MaxInt); err != nil {
			return err
		}
		// What is above a directory that is to be built is to be built too.
		dirty, err := g.get(d.key(keyDirty, 0, rootDir))
		waits = dirty != nil
		for _, kind := range []byte{keyJournal, keyQueue, keyChanged, keyBroken, keyNameless, keyRelist} {
			if waits || err != nil {
				break
			}
			var n int
			n, err = g.count(kind, 1)
			waits = n > 0
		}
		return err
	})
	s.Given = err == nil && !waits && !overlooked && s.Busy == 0 && s.Unplaced == 0 && s.Placed.ID != 0 && s.Placed.ID == s.Latest.ID
	s.Synced = s.Given && s.Lost == 0
	return s, err
}

// File is what is known of a file.
type File struct {
	Version Version // imported last
	CID     cid.Cid
	Closed  bool      // a later version may be waiting to be imported
	Blocks  int64     // of the version; repetitions count
	Placed  int64     // of those, in groups that are placed
	Groups  []GroupID // that have blocks of it, up to maxFileGroups
	Err     error     // why it could not be read, or ErrFull: it waits for room; nil: it could, or was not tried yet
}

// maxFileGroups bounds what File returns.
const maxFileGroups = 1 << 16

// File tells what is known of a file, ErrGone if nothing is. It reads the list of the file's blocks.
func (d *Dataset) File(ctx context.Context, id FileID) (f File, err error) {
	d.trouble.Lock()
	f.Err = d.failures[id]
	full := d.full.err
	d.trouble.Unlock()
	err = d.view(func(x *tx) error {
		closed, err := x.get(d.fileKey(keyClosed, id))
		if err != nil {
			return err
		}
		if f.Closed = closed != nil; f.Closed && f.Err == nil {
			f.Err = full
		}
		r, found, err := x.file(id)
		if err != nil {
			return err
		}
		if !found && closed == nil {
			return ErrGone
		}
		if !found {
			return nil
		}
		f.Version, f.CID, f.Blocks = r.version, r.link.CID, int64(r.blocks)
		groups := make(map[GroupID]bool)
		if err := x.blockOf(&f, groups, digestOf(r.link.CID), 1); err != nil {
			return err
		}
		return x.scan(d.key(keyList, r.owner), func(_, value []byte) error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			list, err := decodeList(value)
			for i := 0; err == nil && i < len(list); i++ {
				err = x.blockOf(&f, groups, digestOf(list[i].shard.CID), int64(list[i].n))
			}
			return err
		})
	})
	return f, err
}

// blockOf notes where a block of a file is.
func (x *tx) blockOf(f *File, groups map[GroupID]bool, h digest, n int64) error {
	b, err := x.block(h)
	if err != nil || b.group == 0 {
		return err
	}
	placed, known := groups[b.group]
	if !known {
		head, err := x.head(b.group)
		if err != nil {
			return err
		}
		placed = head != nil && head.state == groupPlaced
		if len(f.Groups) < maxFileGroups {
			f.Groups = append(f.Groups, b.group)
			groups[b.group] = placed
		}
	}
	if placed {
		f.Placed += n
	}
	return nil
}

// Directory returns the CID of a directory as it is now, or as it was built last if Work is busy; ErrGone if there is
// none at the path.
func (d *Dataset) Directory(ctx context.Context, p string) (cid.Cid, error) {
	if d.work.TryLock() {
		err := d.workOff(ctx)
		if err == nil {
			err = d.tolerate(d.build(ctx))
		}
		d.work.Unlock()
		if err != nil {
			return cid.Undef, err
		}
	}
	var c cid.Cid
	err := d.view(func(x *tx) error {
		r, found, err := x.resolve(p)
		if err == nil && (!found || r.kind != Directory) {
			err = ErrGone
		}
		if err != nil {
			return err
		}
		dir, _, err := x.dir(r.dir)
		c = dir.link.CID
		return err
	})
	if err == nil && !c.Defined() {
		err = errors.Join(ErrGone, errors.New("not built yet"))
	}
	return c, err
}

// Groups calls yield with each group that never was placed, as the Sink was told of it or will be.
func (d *Dataset) Groups(ctx context.Context, yield func(Group) error) error {
	return d.scanKind(keyUnplaced, func(rest, _ []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		id := GroupID(number(rest, 0))
		g, err := d.group(id)
		if err != nil {
			return err
		}
		out, err := columns(id, g)
		if err != nil {
			return err
		}
		return yield(out)
	})
}
