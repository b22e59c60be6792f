package dataset

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

const (
	// fullRetry is how long a store that was full is left alone, if nothing makes room in it.
	fullRetry = time.Second
	// staleRounds is how many rounds may leave the block that waits longest: what came with it is kept as long.
	staleRounds = 2
)

// stored is about what data bytes take in groups.
func (d *Dataset) stored(data int64) int64 {
	k, n := int64(d.cfg.Data), int64(d.cfg.Data+d.cfg.Parity)
	return data/k*n + data%k*n/k
}

// dataOf is about how many data bytes are in groups that take so much.
func (d *Dataset) dataOf(stored int64) int64 {
	k, n := int64(d.cfg.Data), int64(d.cfg.Data+d.cfg.Parity)
	return stored/n*k + stored%n*k/n
}

// pending is what waits to be placed: groups that are not, and blocks that will be in groups.
func (d *Dataset) pending(t tally) int64 { return t.unplacedBytes + d.stored(t.queuedBytes) }

// unit is the least that groups are made of while others wait to be placed: small ones are put together again later,
// which costs what they did.
func (d *Dataset) unit() int64 {
	full, least := d.stored(int64(d.cfg.Data)*erasure.MaxChunk), int64(d.cfg.Data+d.cfg.Parity)<<20
	return min(full, max(d.cfg.MostPending/4, least))
}

// room is how many bytes of groups may be made now.
func (d *Dataset) room(t tally) int64 {
	if d.cfg.MostPending == 0 {
		return math.MaxInt64
	}
	room, unit := d.cfg.MostPending-t.unplacedBytes, d.unit()
	switch {
	case t.unplacedBytes == 0:
		return max(room, unit) // else nothing ever would be placed
	case room < unit:
		return 0
	}
	return room
}

// overBound says whether no further file is to be imported.
func (d *Dataset) overBound(pending int64) bool {
	return d.cfg.MostPending > 0 && pending > d.cfg.MostPending
}

// roundDue says whether enough waits for groups to be made, and they may be.
func (d *Dataset) roundDue(t tally) bool {
	enough := t.queuedBytes >= d.fullBytes() || t.queuedBlocks >= roundBlocks || d.overBound(d.pending(t))
	return enough && t.queuedBlocks > 0 && d.room(t) > 0
}

// fullness is what is known of a store that had no room.
type fullness struct {
	err    error     // nil: there was room at last
	at     time.Time // when there was none
	again  bool      // in this pass
	noCode bool      // in this pass, for parity
	eased  bool      // something was placed or released since
	// refused are files that did not fit, with the order in which they were tried; at most maxFailures. Others are
	// imported before.
	refused map[FileID]uint64
	tries   uint64
}

// Full tells why nothing is taken into the store at present; nil: it is.
func (d *Dataset) Full() error {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	return d.full.err
}

// filled notes that the store is full.
func (d *Dataset) filled(err error) {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	d.full.err, d.full.at, d.full.again, d.full.eased = err, d.now, true, false
}

// tolerate notes that the store is full, which ends no pass. Other errors are returned.
func (d *Dataset) tolerate(err error) error {
	if errors.Is(err, ErrFull) {
		d.filled(err)
		return nil
	}
	return err
}

// ease notes that there may be room now.
func (d *Dataset) ease() {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	d.full.eased = true
}

// mayFill says whether it makes sense to put blocks into the store.
func (d *Dataset) mayFill() bool {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	f := &d.full
	return f.err == nil || !f.again && (f.eased || !d.now.Before(f.at.Add(fullRetry)))
}

// mayCode says whether it makes sense to make parity: a file that did not fit says nothing of a stripe.
func (d *Dataset) mayCode() bool {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	f := &d.full
	return f.err == nil || !f.noCode && (f.again || f.eased || !d.now.Before(f.at.Add(fullRetry)))
}

// tolerateCode is tolerate of what came of making parity.
func (d *Dataset) tolerateCode(err error) error {
	if !errors.Is(err, ErrFull) {
		return err
	}
	d.filled(err)
	d.trouble.Lock()
	defer d.trouble.Unlock()
	d.full.noCode = true
	return nil
}

// beginFill begins a pass.
func (d *Dataset) beginFill(now time.Time) {
	d.now = now
	d.trouble.Lock()
	d.full.again, d.full.noCode = false, false
	d.trouble.Unlock()
	d.tried = false
}

// endFill ends a pass: the store is full no more if it was tried and took all. It returns when it is to be tried again;
// zero: any time.
func (d *Dataset) endFill() (again time.Time) {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	if d.tried && !d.full.again {
		d.full.err = nil
	}
	if d.full.err == nil {
		return time.Time{}
	}
	return d.full.at.Add(fullRetry)
}

// missed notes that a directory is to be listed again when there is room for what is in it.
func (d *Dataset) missed(dir uint64, err error) error {
	d.filled(err)
	return d.commit(func(x *tx) error { return x.flag(d.key(keyRelist, dir)) })
}

// refuse notes that a file does not fit into the store.
func (d *Dataset) refuse(id FileID, err error) {
	d.filled(err)
	d.unreadable(id, err)
	d.trouble.Lock()
	defer d.trouble.Unlock()
	if _, ok := d.full.refused[id]; ok || len(d.full.refused) < maxFailures {
		d.full.tries++
		d.full.refused[id] = d.full.tries
	}
}

// refused returns the files that did not fit, those first that were not tried for the longest time.
func (d *Dataset) refused() (ids []FileID, are map[FileID]uint64) {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	are = make(map[FileID]uint64, len(d.full.refused))
	for id, n := range d.full.refused {
		are[id] = n
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b FileID) int { return int(int64(are[a]) - int64(are[b])) })
	return ids, are
}

// taken notes that a file is not refused any more.
func (d *Dataset) taken(id FileID) {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	delete(d.full.refused, id)
}

// intakeEnd is why no more files are imported in a pass.
type intakeEnd int

const (
	// intakeOpen: all closed files were imported that could be.
	intakeOpen intakeEnd = iota
	// intakeRound: so much waits that groups are to be made of it. Then it goes on.
	intakeRound
	// intakeBound: so much is not placed that it goes on when something is.
	intakeBound
	// intakeFull: the store is full.
	intakeFull
)

// intake lets files be imported until enough waits.
type intake struct {
	d *Dataset

	mu    sync.Mutex // guards what follows; taken before Dataset.mu
	begun int64      // bytes of files that are being imported
	end   intakeEnd
}

// open says whether another file may be looked at.
func (in *intake) open() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.end == intakeOpen && in.d.roundDue(in.d.tally()) {
		in.end = intakeRound
	}
	return in.end == intakeOpen
}

// begin lets a file of so many bytes be imported, or not now. What was begun is to be done.
func (in *intake) begin(bytes int64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.end == intakeFull || in.end == intakeBound {
		return false
	}
	if in.d.overBound(in.d.pending(in.d.tally()) + in.d.stored(in.begun)) {
		in.end = intakeBound
		return false
	}
	in.begun += bytes
	return true
}

func (in *intake) done(bytes int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.begun -= bytes
}

// close ends the importing.
func (in *intake) close(why intakeEnd) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.end = why
}

func (in *intake) ended() intakeEnd {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.end
}

// takeIn imports closed files and makes groups of their blocks by turns, as far as there is room.
func (d *Dataset) takeIn(ctx context.Context) error {
	for {
		if err := d.workOff(ctx); err != nil {
			return err
		}
		d.behind = false
		end := intakeFull
		if d.mayFill() {
			d.tried = true
			var err error
			if end, err = d.importClosed(ctx); err != nil {
				return err
			}
			d.behind = end == intakeBound
		}
		if err := d.relinkMany(); err != nil {
			return err
		}
		if err := d.dropOwners(); err != nil {
			return err
		}
		stuck := end == intakeFull && d.tally().unplacedBytes == 0
		if stuck && d.mayCode() {
			if err := d.tolerateCode(d.repack(ctx)); err != nil {
				return err
			}
		}
		formed, err := d.makeGroups(ctx, stuck)
		if err == nil {
			err = d.give(ctx)
		}
		if err == nil {
			err = d.releaseEmpty(ctx)
		}
		if err != nil || end != intakeRound || !formed {
			return err
		}
	}
}

// repack has a new mark keep the blocks that wait for a group, and drops those before: they keep all that came with the
// block that waits longest, in groups or not. No file is being imported meanwhile. It is of use once after each group.
func (d *Dataset) repack(ctx context.Context) error {
	if d.packed == d.formed {
		return nil
	}
	if err := d.closeMark(); err != nil {
		return err
	}
	mark, err := d.waitMark()
	if err != nil {
		return err
	}
	var batch []cid.Cid
	err = d.scanKind(keyQueue, func(_, value []byte) error {
		s, err := decodeQueueItem(value)
		if batch = append(batch, s.CID); err == nil && len(batch) == pieceBlocks {
			err = d.cfg.Store.Keep(ctx, mark, batch)
			batch = batch[:0]
		}
		return err
	})
	if err == nil {
		err = d.cfg.Store.Keep(ctx, mark, batch)
	}
	if err != nil {
		return err
	}
	d.packed = d.formed
	return d.scanKind(keyMark, func(rest, _ []byte) error {
		if n := number(rest, 0); waitMark(n) != mark {
			return d.dropMark(ctx, n)
		}
		return nil
	})
}
