package dataset

import (
	"context"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

const (
	roundGroups = 4       // full groups that are waited for before some are made
	roundBytes  = 1 << 28 // or so many bytes
	roundBlocks = 1 << 15 // blocks taken from the queue at once
	codeBytes   = 32 << 20
)

// fullBytes is how much has to wait before groups are made without a pause in the changes.
func (d *Dataset) fullBytes() int64 {
	one := int64(d.cfg.Data) * erasure.MaxChunk
	return max(one, min(roundGroups*one, roundBytes))
}

// roundIfFull makes groups if enough blocks wait, and nobody does so already.
func (d *Dataset) roundIfFull(ctx context.Context) error {
	if t := d.tally(); t.queuedBytes < d.fullBytes() && t.queuedBlocks < roundBlocks {
		return nil
	}
	if !d.rounds.TryLock() {
		return nil
	}
	defer d.rounds.Unlock()
	formed, err := d.round(ctx, false)
	if err == nil && !formed {
		_, err = d.round(ctx, true) // blocks of so many sizes wait that no group became full
	}
	return err
}

// protectAll makes groups of all blocks that wait.
func (d *Dataset) protectAll(ctx context.Context) error {
	d.rounds.Lock()
	defer d.rounds.Unlock()
	for {
		if formed, err := d.round(ctx, true); err != nil || !formed {
			return err
		}
	}
}

// round plans, codes and groups the blocks that wait longest. Unless it is final, only what makes full groups.
type round struct {
	d       *Dataset
	ctx     context.Context
	codec   *erasure.Codec
	grouper *erasure.Grouper
	waiting [][]erasure.Shard
	bytes   int64
	mark    Mark
	formed  bool
}

// distinct is an erasure.Seen: the queue has no block twice.
type distinct struct{}

func (distinct) Add(cid.Cid) (bool, error) { return false, nil }

func (d *Dataset) round(ctx context.Context, final bool) (formed bool, err error) {
	items, err := d.waitingBlocks()
	if err != nil || len(items) == 0 {
		return false, err
	}
	r := &round{d: d, ctx: ctx}
	if r.mark, err = d.waitMark(); err != nil {
		return false, err
	}
	if r.codec, err = erasure.New(d.cfg.Data, d.cfg.Parity); err != nil {
		return false, err
	}
	if r.grouper, err = erasure.NewGrouper(d.cfg.Data, d.cfg.Parity, r.form); err != nil {
		return false, err
	}
	planner, err := erasure.NewPlanner(d.cfg.Data, distinct{}, r.plan)
	if err != nil {
		return false, err
	}
	for _, s := range items {
		if err := planner.Add(s); err != nil {
			return false, err
		}
	}
	if final {
		err = planner.Close()
	}
	if err == nil {
		err = r.code()
	}
	if err == nil && final {
		err = r.grouper.Flush()
	}
	return r.formed, err
}

// waitingBlocks takes the head of the queue.
func (d *Dataset) waitingBlocks() (items []erasure.Shard, err error) {
	var bytes int64
	most := 2 * d.fullBytes()
	err = d.scanKind(keyQueue, func(_, value []byte) error {
		s, err := decodeQueueItem(value)
		if err != nil {
			return err
		}
		items = append(items, s)
		if bytes += int64(s.Bytes); bytes >= most || len(items) == roundBlocks {
			return errStop
		}
		return nil
	})
	return items, err
}

func (r *round) plan(data []erasure.Shard) error {
	width := 0
	for _, s := range data {
		width = max(width, s.Bytes)
	}
	r.waiting = append(r.waiting, data)
	if r.bytes += int64(width) * int64(len(data)+r.codec.Parity()); r.bytes < codeBytes {
		return nil
	}
	return r.code()
}

// code makes the parity of the stripes that wait, on all cores, and adds them in their order.
func (r *round) code() error {
	stripes := make([]erasure.Stripe, len(r.waiting))
	parity := make([][][]byte, len(r.waiting))
	err := erasure.Parallel(len(r.waiting), func(i int) (err error) {
		data := make([][]byte, len(r.waiting[i]))
		for j, s := range r.waiting[i] {
			if data[j], err = r.d.cfg.Store.Get(r.ctx, s.CID); err != nil {
				return fmt.Errorf("read block %s to protect it: %w", s.CID, err)
			}
		}
		stripes[i], parity[i], err = r.codec.Protect(r.waiting[i], data, nil)
		return err
	})
	if err != nil {
		return err
	}
	r.waiting, r.bytes = nil, 0
	var blks []blocks.Block
	for i, s := range stripes {
		for j, p := range s.Parity {
			b, err := blocks.NewBlockWithCid(parity[i][j], p.CID)
			if err != nil {
				return err
			}
			blks = append(blks, b)
		}
	}
	if len(blks) > 0 {
		if err := r.d.cfg.Store.Put(r.ctx, r.mark, blks); err != nil {
			return fmt.Errorf("put parity: %w", err)
		}
	}
	for _, s := range stripes {
		if err := r.grouper.Add(s); err != nil {
			return err
		}
	}
	return nil
}

// form makes a group of stripes the one that protects their blocks.
func (r *round) form(g erasure.Group) error {
	d := r.d
	r.formed = true
	head := groupHead{state: groupWriting}
	for _, s := range g.Stripes {
		for _, b := range s.Data {
			head.blocks++
			head.bytes += uint64(b.Bytes)
			head.stored += uint64(b.Bytes)
		}
		head.stored += uint64(s.Width()) * uint64(len(s.Parity))
	}
	pieces := encodeStripes(g.Stripes)
	head.stripesKeys = uint64(len(pieces))
	var id GroupID
	err := d.commit(func(x *tx) error {
		n, err := x.next()
		if err != nil {
			return err
		}
		latest, err := x.latest()
		if err != nil {
			return err
		}
		id, head.bornAfter = GroupID(n), uint64(latest.ID)
		x.keepHead(id, &head, groupHead{})
		return nil
	})
	if err != nil {
		return err
	}
	for i, p := range pieces {
		err := d.commit(func(x *tx) error { return x.set(d.key(keyStripes, uint64(id), uint64(i)), p) })
		if err != nil {
			return err
		}
	}
	if err := d.cfg.Store.Keep(r.ctx, groupMark(id), cids(g)); err != nil {
		return fmt.Errorf("keep group %d: %w", id, err)
	}
	err = d.commit(func(x *tx) error {
		h, err := x.head(id)
		if err == nil {
			h.state = groupForming
		}
		return err
	})
	if err != nil {
		return err
	}
	return d.assign(id)
}

// assign makes the blocks of a group that is forming its own.
func (d *Dataset) assign(id GroupID) error {
	err := d.scan(d.key(keyStripes, uint64(id)), func(_, value []byte) error {
		stripes, err := decodeStripes(value)
		if err != nil {
			return err
		}
		return d.commit(func(x *tx) error {
			for _, s := range stripes {
				for _, b := range s.Data {
					if err := x.assign(id, b); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return d.commit(func(x *tx) error {
		h, err := x.head(id)
		if err != nil {
			return err
		}
		h.state = groupFormed
		if err := x.flag(d.key(keyChanged)); err != nil {
			return err
		}
		x.tally.groups++
		x.tally.storedBytes += int64(h.stored)
		return x.flag(d.key(keyGive, uint64(id)))
	})
}

// assign moves a block to a group from the one that it was in. It may have died since it was planned.
func (x *tx) assign(id GroupID, s erasure.Shard) error {
	h := digestOf(s.CID)
	b, err := x.block(h)
	if err != nil || b.group == id {
		return err
	}
	now, err := x.head(id)
	if err != nil {
		return err
	}
	if b.refs > 0 {
		now.liveBlocks++
		now.liveBytes += b.bytes
	}
	if b.group != 0 {
		was, err := x.head(b.group)
		if err != nil {
			return err
		}
		if was != nil && b.refs > 0 {
			was.liveBlocks--
			was.liveBytes -= b.bytes
		}
		if err := x.flag(x.d.key(keyWaits, uint64(b.group), uint64(id))); err != nil {
			return err
		}
		if err := x.flag(x.d.key(keyAwaited, uint64(id), uint64(b.group))); err != nil {
			return err
		}
	}
	if err := x.dequeue(&b); err != nil {
		return err
	}
	b.group, b.bytes, b.codec = id, uint64(s.Bytes), s.CID.Prefix().Codec
	return x.setBlock(h, b)
}
