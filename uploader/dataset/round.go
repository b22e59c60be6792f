package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

const (
	roundGroups = 4       // full groups that are waited for before some are made
	roundBytes  = 1 << 28 // or so many bytes
	roundBlocks = 1 << 15 // blocks taken from the queue at once
	codeBytes   = 32 << 20
	putBytes    = 8 << 20 // of data whose parity is put into the store at once
)

// fullBytes is how much has to wait before groups are made without a pause in the changes.
func (d *Dataset) fullBytes() int64 {
	one := int64(d.cfg.Data) * erasure.MaxChunk
	most := max(one, min(roundGroups*one, roundBytes))
	if d.cfg.MostPending > 0 {
		most = min(most, d.dataOf(max(d.unit(), d.cfg.MostPending/4)))
	}
	return most
}

// makeGroups makes groups if enough blocks wait; with all of whatever waits. No file is being imported meanwhile.
func (d *Dataset) makeGroups(ctx context.Context, all bool) (formed bool, err error) {
	for {
		t := d.tally()
		due := d.roundDue(t) || all && t.queuedBlocks > 0 && d.room(t) > 0
		if !due || !d.mayCode() {
			break
		}
		d.tried = true
		if err := d.closeMark(); err != nil {
			return formed, err
		}
		d.rounds.Lock()
		some, err := d.roundOfFull(ctx, all)
		d.rounds.Unlock()
		formed = formed || some
		if err := d.tolerateCode(err); err != nil {
			return formed, err
		}
		if !some {
			break
		}
	}
	return formed, d.releaseMarks(ctx)
}

// roundWhileCounting makes groups of a file's blocks while more of them are counted, if nobody makes any already.
func (d *Dataset) roundWhileCounting(ctx context.Context) error {
	if !d.roundDue(d.tally()) || !d.mayCode() || !d.rounds.TryLock() {
		return nil
	}
	defer d.rounds.Unlock()
	formed, err := d.roundOfFull(ctx, false)
	if err = d.tolerateCode(err); err != nil || !formed {
		return err
	}
	return d.give(ctx) // these are on their way while the next are made
}

// roundOfFull makes full groups, or such as are not if none becomes full or some block would wait too long.
func (d *Dataset) roundOfFull(ctx context.Context, all bool) (formed bool, err error) {
	if all || d.stale >= staleRounds {
		d.stale = 0
		return d.round(ctx, true)
	}
	head, err := d.firstOf(keyQueue)
	if err == nil {
		formed, err = d.round(ctx, false)
	}
	if err == nil && !formed {
		return d.round(ctx, true) // blocks of so many sizes wait that no group became full
	}
	if err != nil || d.cfg.MostPending == 0 {
		return formed, err
	}
	now, err := d.firstOf(keyQueue)
	if d.stale++; !bytes.Equal(head, now) {
		d.stale = 0
	}
	return formed, err
}

// protectAll makes groups of all blocks that wait, as far as there is room.
func (d *Dataset) protectAll(ctx context.Context) error {
	d.rounds.Lock()
	defer d.rounds.Unlock()
	for d.room(d.tally()) > 0 && d.mayCode() {
		formed, err := d.round(ctx, true)
		if err := d.tolerateCode(err); err != nil || !formed {
			return err
		}
	}
	return nil
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
	var n uint64
	if n, err = d.newMark(1); err != nil { // of parity, which is of no use without its group: nothing waits for it
		return false, err
	}
	defer func() { err = errors.Join(err, d.dropMark(context.WithoutCancel(ctx), n)) }()
	return d.roundOf(ctx, items, waitMark(n), final)
}

// roundOf is a round of these blocks, whose parity is kept under a mark.
func (d *Dataset) roundOf(ctx context.Context, items []erasure.Shard, mark Mark, final bool) (formed bool, err error) {
	r := &round{d: d, ctx: ctx, mark: mark}
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
		if err == nil {
			err = planner.Add(s)
		}
	}
	if err == nil && final {
		err = planner.Close()
	}
	if err == nil {
		err = r.code()
	}
	if full := errors.Is(err, ErrFull); full || err == nil && final { // when something of what was made is placed, there is room
		err = errors.Join(err, r.grouper.Flush())
	}
	return r.formed, err
}

// waitingBlocks takes the head of the queue.
func (d *Dataset) waitingBlocks() (items []erasure.Shard, err error) {
	var bytes int64
	most := 2 * d.fullBytes()
	if room := d.room(d.tally()); room < math.MaxInt64 {
		most = min(most, d.dataOf(room))
	}
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

// code makes the parity of the stripes that wait, and adds them in their order. If there is no room for all of it, it
// is for less.
func (r *round) code() error {
	for most := len(r.waiting); len(r.waiting) > 0; {
		most = min(most, len(r.waiting))
		stripes, err := r.protect(r.waiting[:most])
		if errors.Is(err, ErrFull) && most > 1 {
			most = (most + 1) / 2
			continue
		}
		if err != nil {
			return err
		}
		r.waiting = r.waiting[most:]
		for _, s := range stripes {
			if err := r.grouper.Add(s); err != nil {
				return err
			}
		}
	}
	r.waiting, r.bytes = nil, 0
	return nil
}

// protect makes the parity of stripes on all cores, and puts it into the store: while one core waits for that, others
// make more.
func (r *round) protect(waiting [][]erasure.Shard) ([]erasure.Stripe, error) {
	stripes := make([]erasure.Stripe, len(waiting))
	parts := apart(waiting)
	err := erasure.Parallel(len(parts)-1, func(i int) error {
		var blks []blocks.Block
		for at := parts[i]; at < parts[i+1]; at++ {
			s, parity, err := r.protectOne(waiting[at])
			if err != nil {
				return err
			}
			stripes[at], blks = s, append(blks, parity...)
		}
		if len(blks) == 0 {
			return nil
		}
		if err := r.d.cfg.Store.Put(r.ctx, r.mark, blks); err != nil {
			return fmt.Errorf("put parity: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return stripes, nil
}

// apart cuts stripes into runs of about putBytes of data, and returns where each begins, and the end.
func apart(waiting [][]erasure.Shard) []int {
	at, bytes := []int{0}, 0
	for i, stripe := range waiting {
		for _, s := range stripe {
			bytes += s.Bytes
		}
		if bytes >= putBytes && i+1 < len(waiting) {
			at, bytes = append(at, i+1), 0
		}
	}
	return append(at, len(waiting))
}

// protectOne makes the parity of one stripe.
func (r *round) protectOne(waiting []erasure.Shard) (s erasure.Stripe, blks []blocks.Block, err error) {
	data := make([][]byte, len(waiting))
	for j, w := range waiting {
		if data[j], err = r.d.cfg.Store.Get(r.ctx, w.CID); err != nil {
			return s, nil, fmt.Errorf("read block %s to protect it: %w", w.CID, err)
		}
	}
	s, parity, err := r.codec.Protect(waiting, data, nil)
	if err != nil {
		return s, nil, err
	}
	for j, p := range s.Parity {
		b, err := blocks.NewBlockWithCid(parity[j], p.CID)
		if err != nil {
			return s, nil, err
		}
		blks = append(blks, b)
	}
	return s, blks, nil
}

// form makes a group of stripes the one that protects their blocks.
func (r *round) form(g erasure.Group) error {
	d := r.d
	r.formed = true
	d.formed++
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
		ctx := context.WithoutCancel(r.ctx)
		return errors.Join(fmt.Errorf("keep group %d: %w", id, err), d.cfg.Store.Release(ctx, groupMark(id)), d.forgetGroup(id))
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
