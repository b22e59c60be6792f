package dataset

import (
	"context"
	"errors"
	"fmt"
)

// standing is what was told of groups and is still in the journal: for each the last of it.
type standing map[GroupID]noted

// take notes changes that came to the journal and such that left it.
func (s standing) take(news, done []noted) {
	for _, c := range news {
		if c.Kind == changePlaced || c.Kind == changeUnplaced {
			s[GroupID(c.Change.number)] = c
		}
	}
	for _, c := range done {
		if id := GroupID(c.Change.number); (c.Kind == changePlaced || c.Kind == changeUnplaced) && s[id].number == c.number {
			delete(s, id)
		}
	}
}

// recoverStanding reads what the journal says of groups.
func (d *Dataset) recoverStanding() error {
	d.standing = make(standing)
	return d.scan(d.key(keyJournal), func(rest, value []byte) error {
		c, err := decodeChange(value)
		d.standing.take([]noted{{c, number(rest, 0)}}, nil)
		return err
	})
}

// Placed says that all columns of a group are with providers. It may be told as often as anybody likes.
func (d *Dataset) Placed(_ context.Context, id GroupID) error {
	return d.noteGroup(changePlaced, id)
}

// Unplaced takes Placed back: providers have not all columns of a group any more. Its blocks count as placed again when
// Placed is told again. A group that never was placed stays as it is.
func (d *Dataset) Unplaced(_ context.Context, id GroupID) error {
	return d.noteGroup(changeUnplaced, id)
}

// noteGroup notes what was told of a group, unless that is known.
func (d *Dataset) noteGroup(kind ChangeKind, id GroupID) error {
	c := Change{Kind: kind, number: uint64(id)}
	err := d.commit(func(x *tx) error {
		known := d.standing[id].Kind
		if known == 0 {
			h, err := x.head(id)
			if err != nil || h == nil || h.state == groupReleasing {
				return err
			}
			if known = changeUnplaced; h.state == groupPlaced {
				known = changePlaced
			}
		}
		if known == kind {
			return nil
		}
		return x.journal(c)
	})
	if err != nil {
		return fmt.Errorf("note how group %d is doing: %w", id, err)
	}
	return nil
}

// ManifestPlaced says that a manifest's parts are with providers. It counts as placed if all groups that it names were
// placed, which are told of before; otherwise it is to be told again.
func (d *Dataset) ManifestPlaced(_ context.Context, id ManifestID) error {
	var placed manifestRecord
	err := d.view(func(x *tx) (err error) {
		placed, err = x.manifest(keyPlaced)
		return err
	})
	if err != nil || placed.ID == id {
		return err
	}
	return d.note(Change{Kind: changeManifest, number: uint64(id)})
}

// awaits says whether a manifest names a group that never was placed.
func (d *Dataset) awaits(id ManifestID) (waits bool, err error) {
	err = d.scanKind(keyUnplaced, func(rest, _ []byte) error {
		err := d.view(func(x *tx) error {
			h, err := x.head(GroupID(number(rest, 0)))
			if err == nil && h != nil {
				waits = h.bornAfter < uint64(id) && (h.liveBlocks > 0 || uint64(id) <= h.diedAt)
			}
			return err
		})
		if err == nil && waits {
			return errStop
		}
		return err
	})
	return waits, err
}

// applyUnplaced takes that a group is not placed any more.
func (d *Dataset) applyUnplaced(id GroupID) error {
	return d.commit(func(x *tx) error {
		h, err := x.head(id)
		if err == nil && h != nil && h.state == groupPlaced {
			h.state = groupLost
		}
		return err
	})
}

// LostGroups calls yield with each group that was placed and is not any more, as long as it returns true.
func (d *Dataset) LostGroups(ctx context.Context, yield func(GroupID) bool) error {
	return d.groupsOf(ctx, keyLost, yield)
}

// UnplacedGroups calls yield with each group that never was placed, as long as it returns true.
func (d *Dataset) UnplacedGroups(ctx context.Context, yield func(GroupID) bool) error {
	return d.groupsOf(ctx, keyUnplaced, yield)
}

func (d *Dataset) groupsOf(ctx context.Context, kind byte, yield func(GroupID) bool) error {
	err := d.scanKind(kind, func(rest, _ []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if !yield(GroupID(number(rest, 0))) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
