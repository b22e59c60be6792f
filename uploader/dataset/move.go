package dataset

import (
	"context"
	"fmt"
)

const movedAtOnce = 64 // groups whose live blocks wait for others at a time

// regroup has the live blocks of groups that are under half live, or many and small, wait for others: of as many as
// there may be made of them now.
func (d *Dataset) regroup() (moved bool, err error) {
	m := mover{d: d, room: d.dataOf(d.room(d.tally()))}
	err = d.scan(d.key(keySparse), func(rest, _ []byte) error { return m.add(GroupID(number(rest, 0)), 1) })
	for class := uint64(0); class < smallClasses && err == nil && m.more(); class++ {
		begun, room := len(m.ids), m.room
		err = d.scan(d.key(keySmall, class), func(rest, _ []byte) error { return m.add(GroupID(number(rest, 0)), begun+smallMost) })
		if len(m.ids) < begun+smallMost {
			m.ids, m.room = m.ids[:begun], room
		}
	}
	if err != nil {
		return false, err
	}
	for _, id := range m.ids {
		if err := d.moveBlocks(id); err != nil {
			return true, err
		}
	}
	return len(m.ids) > 0, nil
}

// mover collects groups whose blocks are to be moved.
type mover struct {
	d    *Dataset
	ids  []GroupID
	room int64 // bytes of live blocks that there is room for
}

func (m *mover) more() bool { return len(m.ids) < movedAtOnce && m.room > 0 }

// add takes a group, the first least of all even if there is no room left; errStop after the last.
func (m *mover) add(id GroupID, least int) error {
	err := m.d.view(func(x *tx) error {
		h, err := x.head(id)
		if err == nil && h != nil {
			m.room -= int64(h.liveBytes)
		}
		return err
	})
	m.ids = append(m.ids, id)
	if err == nil && len(m.ids) >= least && !m.more() {
		err = errStop
	}
	return err
}

// moveBlocks has a group's live blocks wait for another. A stop on the way is made up for at the start.
func (d *Dataset) moveBlocks(id GroupID) error {
	err := d.commit(func(x *tx) error {
		h, err := x.head(id)
		if err == nil && h != nil {
			h.moving = true
		}
		return err
	})
	if err != nil {
		return err
	}
	return d.scan(d.key(keyStripes, uint64(id)), func(_, value []byte) error {
		stripes, err := decodeStripes(value)
		if err != nil {
			return err
		}
		return d.commit(func(x *tx) error {
			for _, s := range stripes {
				for _, shard := range s.Data {
					h := digestOf(shard.CID)
					b, err := x.block(h)
					if err != nil {
						return err
					}
					if b.group != id || b.refs == 0 || b.queue != 0 {
						continue
					}
					if err := x.enqueue(h, &b); err != nil {
						return err
					}
					if err := x.setBlock(h, b); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

// applyPlaced takes that a group is placed: those whose blocks it took no longer wait for it.
func (d *Dataset) applyPlaced(id GroupID) error {
	err := d.commit(func(x *tx) error {
		h, err := x.head(id)
		if err == nil && h != nil && (h.state == groupFormed || h.state == groupLost) {
			h.state = groupPlaced
		}
		return err
	})
	if err == nil {
		err = d.stopWaiting(id)
	}
	if err != nil {
		return err
	}
	d.ease()
	return d.cfg.Store.Release(context.Background(), groupMark(id))
}

func (d *Dataset) stopWaiting(id GroupID) error {
	return d.drain(d.key(keyAwaited, uint64(id)), 64, func(x *tx, rest, _ []byte) error {
		return x.del(d.key(keyWaits, number(rest, 0), uint64(id)))
	})
}

// named says whether a manifest names a group that has no live block.
func (h groupHead) named(id ManifestID) bool {
	return h.bornAfter < uint64(id) && uint64(id) <= h.diedAt
}

// releasable says whether nothing needs a group without live blocks. One that is not placed cannot be waited for: what
// it is made of may be gone. A manifest on its way that names it is to be replaced then.
func (d *Dataset) releasable(id GroupID) (ok, breaks bool, err error) {
	waits, err := d.first(d.key(keyWaits, uint64(id)))
	if err != nil || waits != nil {
		return false, false, err
	}
	err = d.view(func(x *tx) error {
		h, err := x.head(id)
		if err != nil || h == nil {
			return err
		}
		latest, err := x.latest()
		if err != nil {
			return err
		}
		placed, err := x.manifest(keyPlaced)
		if err != nil {
			return err
		}
		if placed.ID != 0 && h.named(placed.ID) {
			return nil
		}
		inFlight := latest.ID != 0 && latest.ID != placed.ID && h.named(latest.ID)
		breaks = inFlight && h.state == groupFormed
		ok = !inFlight || breaks
		return nil
	})
	return ok, breaks, err
}

// releaseEmpty releases the groups that nothing needs.
func (d *Dataset) releaseEmpty(ctx context.Context) error {
	var ids []GroupID
	err := d.scanKind(keyEmpty, func(rest, _ []byte) error {
		id := GroupID(number(rest, 0))
		ok, breaks, err := d.releasable(id)
		if err != nil || !ok {
			return err
		}
		ids = append(ids, id)
		return d.commit(func(x *tx) error {
			h, err := x.head(id)
			if err != nil {
				return err
			}
			h.state = groupReleasing
			if breaks {
				if err := x.flag(d.key(keyBroken)); err != nil {
					return err
				}
			}
			return x.del(d.key(keyGive, uint64(id)))
		})
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	if err := d.cfg.Flush(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		if err := d.finishRelease(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// finishRelease tells that a group is released, and forgets it.
func (d *Dataset) finishRelease(ctx context.Context, id GroupID) error {
	if err := d.cfg.Sink.Released(ctx, id); err != nil {
		return fmt.Errorf("release group %d: %w", id, err)
	}
	if err := d.cfg.Store.Release(ctx, groupMark(id)); err != nil {
		return err
	}
	d.ease()
	if err := d.stopWaiting(id); err != nil {
		return err
	}
	return d.forgetGroup(id)
}

// forgetGroup removes the records of a group and of the blocks that nothing else knows.
func (d *Dataset) forgetGroup(id GroupID) error {
	err := d.drain(d.key(keyStripes, uint64(id)), 1, func(x *tx, _, value []byte) error {
		stripes, err := decodeStripes(value)
		if err != nil {
			return err
		}
		for _, s := range stripes {
			for _, shard := range s.Data {
				h := digestOf(shard.CID)
				b, err := x.block(h)
				if err != nil {
					return err
				}
				if b.group != id {
					continue
				}
				if b.refs > 0 {
					return corrupt("released group %d has live block %s", id, shard.CID)
				}
				b.group = 0
				if err := x.setBlock(h, b); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.commit(func(x *tx) error {
		h, err := x.head(id)
		if err != nil || h == nil {
			return err
		}
		if h.state != groupWriting {
			x.tally.groups--
			x.tally.storedBytes -= int64(h.stored)
		}
		delete(x.heads, id)
		if err := x.del(d.key(keyRestage, uint64(id))); err != nil {
			return err
		}
		return x.del(d.key(keyGroup, uint64(id)))
	})
}

// give tells the Sink of the groups that it does not know.
func (d *Dataset) give(ctx context.Context) error {
	if rest, err := d.firstOf(keyGive); rest == nil || err != nil {
		return err
	}
	if err := d.cfg.Flush(ctx); err != nil {
		return err
	}
	return d.scanKind(keyGive, func(rest, _ []byte) error {
		id := GroupID(number(rest, 0))
		g, err := d.group(id)
		if err != nil {
			return err
		}
		out, err := columns(id, g)
		if err != nil {
			return err
		}
		if err := d.cfg.Sink.Group(ctx, out); err != nil {
			return fmt.Errorf("give group %d: %w", id, err)
		}
		return d.commit(func(x *tx) error { return x.del(d.key(keyGive, uint64(id))) })
	})
}
