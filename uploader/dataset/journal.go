package dataset

import (
	"context"
	"errors"
	"fmt"
)

// ChangeKind is what happened.
type ChangeKind byte

// The kinds of changes.
const (
	// Closed: a version of File is complete, under Path; Version tells which.
	Closed ChangeKind = iota + 1
	// Named: Path was made, removed, or got other attributes.
	Named
	// Renamed: Path is To now, with all below it; what To was before is gone.
	Renamed
	// Swapped: Path and To have changed places.
	Swapped
	// changePlaced and changeManifest: a group or a manifest is placed.
	changePlaced
	changeManifest
	// changeUnplaced: a group is placed no more.
	changeUnplaced
)

// Change is something that happened to the staging tree. Paths are relative to its root.
type Change struct {
	Kind    ChangeKind
	Path    string
	To      string  // Renamed and Swapped
	File    FileID  // Closed; for the others the regular file concerned, if its content is what it was
	Version Version // of File, now; for other kinds than Closed it takes the place of the version told before
	number  uint64  // changePlaced and changeManifest
}

func (c Change) encode() []byte {
	e := encoder{byte(c.Kind)}
	e.text(c.Path)
	e.text(c.To)
	e.raw(c.File[:])
	e.version(c.Version)
	e.num(c.number)
	return e
}

func decodeChange(v []byte) (Change, error) {
	d := decoder{rest: v}
	var c Change
	if b := d.take(1); b != nil {
		c.Kind = ChangeKind(b[0])
	}
	c.Path, c.To, c.File, c.Version, c.number = d.text(), d.text(), d.fileID(), d.version(), d.num()
	return c, d.end("change")
}

// Told takes a change down. Changes of one name or file come in their order. It waits for no other work. After an error
// the tree is scanned before anything else counts as synced, so that the change is not lost; a version that was closed is
// to be told again.
func (d *Dataset) Told(_ context.Context, c Change) error {
	if c.Kind < Closed || c.Kind > Swapped || c.Kind == Closed && c.File == (FileID{}) {
		return errors.New("change of an unknown kind, or of no file")
	}
	return d.note(c)
}

func (d *Dataset) note(c Change) error {
	if c.Kind <= Swapped { // of the tree
		d.activity.Add(1)
	}
	err := d.commit(func(x *tx) error {
		if c.File != (FileID{}) {
			key := d.fileKey(keyTold, c.File)
			known, err := x.get(key)
			if err != nil {
				return err
			}
			if c.Kind == Closed || known != nil {
				var e encoder
				e.version(c.Version)
				if err := x.set(key, e); err != nil {
					return err
				}
			}
		}
		return x.journal(c)
	})
	if err != nil {
		d.miss(c)
		return fmt.Errorf("note change: %w", err)
	}
	return nil
}

// Version returns the version of a file that was told last.
func (d *Dataset) Version(_ context.Context, id FileID) (v Version, known bool, err error) {
	err = d.view(func(x *tx) error {
		b, err := x.get(d.fileKey(keyTold, id))
		if b == nil || err != nil {
			return err
		}
		r := decoder{rest: b}
		v, known = r.version(), true
		return r.end("version")
	})
	return v, known, err
}

// journalBatch is how many changes are taken from the journal, and away from it, together.
const journalBatch = 64

// noted is a change in the journal.
type noted struct {
	Change
	number uint64
}

// workOff works the journal off. What a change says is looked up in the staging tree, which may have changed since: then
// a later change is in the journal, or on its way. So most changes may be applied again after a stop, and leave the
// journal in batches. Moves leave it alone: one that is applied late moves what came to that place since, to be listed
// again.
func (d *Dataset) workOff(ctx context.Context) error {
	for {
		batch, err := d.nextChanges()
		if err != nil || len(batch) == 0 {
			return err
		}
		done := 0
		for i, c := range batch {
			if c.Kind != Closed { // what says that content is the same must know which closed files are still to be read
				if err := d.leave(batch[done:i]); err != nil {
					return err
				}
				done = i
			}
			if err := d.apply(ctx, c.Change); err != nil {
				return fmt.Errorf("work off change of %q: %w", c.Path, err)
			}
			if c.Kind == Renamed || c.Kind == Swapped {
				if err := d.leave(batch[done : i+1]); err != nil {
					return err
				}
				done = i + 1
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
		if err := d.leave(batch[done:]); err != nil {
			return err
		}
	}
}

// nextChanges reads the head of the journal.
func (d *Dataset) nextChanges() (batch []noted, err error) {
	err = d.scanKind(keyJournal, func(rest, value []byte) error {
		c, err := decodeChange(value)
		if batch = append(batch, noted{c, number(rest, 0)}); err == nil && len(batch) == journalBatch {
			err = errStop
		}
		return err
	})
	return batch, err
}

// leave takes changes that were applied out of the journal, and has the files imported that were closed.
func (d *Dataset) leave(batch []noted) error {
	if len(batch) == 0 {
		return nil
	}
	return d.commit(func(x *tx) error {
		for _, c := range batch {
			if c.Kind == Closed {
				if err := x.applyClosed(c.Change); err != nil {
					return err
				}
			}
			if err := x.del(d.key(keyJournal, c.number)); err != nil {
				return err
			}
			x.done = append(x.done, c)
		}
		return nil
	})
}

func (d *Dataset) apply(ctx context.Context, c Change) error {
	switch c.Kind {
	case Closed:
		if err := d.touch(ctx, c.Path, true); err != nil {
			return err
		}
		return d.sameVersion(ctx, c)
	case Named:
		if err := d.sameContent(ctx, c); err != nil {
			return err
		}
		return d.touch(ctx, c.Path, false)
	case Renamed, Swapped:
		if err := d.sameContent(ctx, c); err != nil {
			return err
		}
		return d.applyMove(ctx, c)
	case changePlaced:
		return d.applyPlaced(GroupID(c.number))
	case changeUnplaced:
		return d.applyUnplaced(GroupID(c.number))
	case changeManifest:
		return d.applyManifestPlaced(ManifestID(c.number))
	}
	return corrupt("change of kind %d", c.Kind)
}

// sameVersion is for a close of the version that is recorded.
func (d *Dataset) sameVersion(ctx context.Context, c Change) error {
	var r fileRecord
	err := d.view(func(x *tx) (err error) {
		r, _, err = x.file(c.File)
		return err
	})
	if err != nil || r.version != c.Version {
		return err
	}
	return d.sameContent(ctx, c)
}

// applyClosed has a version imported, unless it is the one that is recorded.
func (x *tx) applyClosed(c Change) error {
	r, found, err := x.file(c.File)
	if err != nil || found && r.version == c.Version {
		return err
	}
	return x.flag(x.d.fileKey(keyClosed, c.File))
}

// applyMove moves the records, then looks whether they are of what is there now.
func (d *Dataset) applyMove(ctx context.Context, c Change) error {
	var from, to spot
	var known, place bool
	err := d.view(func(x *tx) (err error) {
		if _, known, err = x.resolve(c.Path); err != nil {
			return err
		}
		if from, _, err = x.spotOfPath(c.Path); err != nil {
			return err
		}
		to, place, err = x.spotOfPath(c.To)
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case c.Kind == Swapped && known && place:
		err = d.commit(func(x *tx) error { return x.swap(from, to) })
	case c.Kind == Renamed && known && place:
		err = d.commit(func(x *tx) error { return x.move(from, to) })
	}
	if err == nil {
		err = d.dropDoomed()
	}
	if err == nil {
		err = d.lookAt(ctx, c.Path, look{})
	}
	if err == nil {
		err = d.lookAt(ctx, c.To, look{moved: true})
	}
	return err
}
