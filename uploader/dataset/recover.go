package dataset

import (
	"context"
	"encoding/binary"
)

// recover finishes what a stop interrupted.
func (d *Dataset) recover(ctx context.Context) error {
	if err := d.readSeq(); err != nil {
		return err
	}
	if err := d.checkCode(ctx); err != nil {
		return err
	}
	if err := d.count(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		func(context.Context) error { return d.recoverStanding() },
		func(context.Context) error { return d.makeRoot() },
		func(context.Context) error { return d.dropDoomed() },
		func(context.Context) error { return d.dropOwners() },
		d.recoverGroups,
		func(context.Context) error { return d.endMarks() },
		func(context.Context) error { return d.giveAgain() },
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dataset) readSeq() error {
	return d.view(func(x *tx) error {
		d.seq, d.lent = rootDir+1, rootDir+1
		v, err := x.get(d.key(keySeq))
		if v == nil || err != nil {
			return err
		}
		if len(v) != 8 {
			return corrupt("read numbers")
		}
		d.seq = binary.BigEndian.Uint64(v)
		d.lent = d.seq
		return nil
	})
}

// count adds up what is there.
func (d *Dataset) count() error {
	var t tally
	err := d.scan(d.key(keyGroup), func(_, value []byte) error {
		h, err := decodeHead(value)
		if err == nil && h.state >= groupFormed {
			t.groups++
			t.storedBytes += int64(h.stored)
		}
		if err == nil && h.state == groupFormed {
			t.unplacedBytes += int64(h.stored)
		}
		return err
	})
	if err == nil {
		err = d.scan(d.key(keyBlock), func(_, value []byte) error {
			b, err := decodeBlock(value)
			if b.refs > 0 {
				t.liveBlocks++
				t.liveBytes += int64(b.bytes)
			}
			if b.queue != 0 {
				t.queuedBlocks++
				t.queuedBytes += int64(b.bytes)
			}
			return err
		})
	}
	d.totals = t
	return err
}

// makeRoot makes the record of the root.
func (d *Dataset) makeRoot() error {
	return d.commit(func(x *tx) error {
		_, found, err := x.dir(rootDir)
		if err != nil || found {
			return err
		}
		if err := x.setDir(rootDir, dirRecord{}); err != nil {
			return err
		}
		return x.markDirty(rootDir)
	})
}

// recoverGroups finishes groups that were being formed or moved, and has the Sink told again of those not placed.
func (d *Dataset) recoverGroups(ctx context.Context) error {
	err := d.scan(d.key(keyGroup), func(rest, value []byte) error {
		id := GroupID(number(rest, 0))
		h, err := decodeHead(value)
		if err != nil {
			return err
		}
		switch h.state {
		case groupWriting:
			if err := d.cfg.Store.Release(ctx, groupMark(id)); err != nil {
				return err
			}
			return d.forgetGroup(id)
		case groupForming:
			return d.assign(id)
		case groupFormed:
			return d.commit(func(x *tx) error { return x.flag(d.key(keyGive, uint64(id))) })
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.scan(d.key(keyMoving), func(rest, _ []byte) error { return d.moveBlocks(GroupID(number(rest, 0))) })
}

// resume finishes what a stop or an error left.
func (d *Dataset) resume(ctx context.Context) error {
	if err := d.dropDoomed(); err != nil || d.resumed {
		return err
	}
	if err := d.finishManifest(ctx); err != nil {
		return err
	}
	if err := d.finishReleases(ctx); err != nil {
		return err
	}
	d.resumed = true
	return nil
}

// finishReleases tells again of groups whose release was interrupted.
func (d *Dataset) finishReleases(ctx context.Context) error {
	return d.scan(d.key(keyGroup), func(rest, value []byte) error {
		h, err := decodeHead(value)
		if err != nil || h.state != groupReleasing {
			return err
		}
		return d.finishRelease(ctx, GroupID(number(rest, 0)))
	})
}

// endMarks ends the marks that were in use: what waits under them is in the queue by now, or never will be.
func (d *Dataset) endMarks() error {
	return d.scanKind(keyMark, func(rest, value []byte) error {
		r := decoder{rest: value}
		if until := r.num(); until != 0 {
			return r.end("mark")
		}
		return d.commit(func(x *tx) error { return x.endMark(number(rest, 0)) })
	})
}
