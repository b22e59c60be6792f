package dataset

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	blocks "github.com/ipfs/go-block-format"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange/payment/durable"
)

// Config says what a dataset stands on. DB, Store, Staging, Sink and Data are required.
type Config struct {
	DB      *badger.DB
	Prefix  []byte // of all keys of this dataset; no other prefix may begin with it
	Store   Store
	Staging Staging
	Sink    Sink

	Data   int // k: blocks of a stripe
	Parity int // m: parity shards of a stripe

	// MostPending bounds what waits to be placed, in bytes of groups: while that much does, no file's import is begun,
	// and no group is made. One file and one group may go beyond it. Default 0: no bound.
	MostPending int64

	Quiet     time.Duration          // without a change, after which what is left becomes groups and a manifest; default 2 s
	Temporary func(name string) bool // names under which a file waits until it was Closed; default none

	// Flush brings all that was committed to the disk. Default: the database's own Sync.
	Flush func(ctx context.Context) error

	// Room says why nothing may be written to the database; nil: it may. Default: what durable.Room says.
	Room func() error
}

const defaultQuiet = 2 * time.Second

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.DB == nil || c.Store == nil || c.Staging == nil || c.Sink == nil:
		return c, errors.New("dataset: no database, store, staging or sink")
	case c.Quiet < 0 || c.MostPending < 0:
		return c, fmt.Errorf("dataset: quiet of %v, at most %d bytes pending", c.Quiet, c.MostPending)
	}
	if err := erasure.CheckCode(c.Data, c.Parity); err != nil {
		return c, fmt.Errorf("dataset: %w", err)
	}
	if c.Quiet == 0 {
		c.Quiet = defaultQuiet
	}
	if c.Temporary == nil {
		c.Temporary = func(string) bool { return false }
	}
	if c.Flush == nil {
		db := c.DB
		c.Flush = func(context.Context) error { return db.Sync() }
	}
	if c.Room == nil {
		db := c.DB
		c.Room = func() error { return durable.Room(db, durable.MinFree) }
	}
	return c, nil
}

// Dataset is the dataset of one upload directory.
type Dataset struct {
	cfg      Config
	activity atomic.Uint64 // changes told
	hurry    atomic.Bool

	// work is held by Work and Scan; it guards what follows, and is taken before all others.
	work       sync.Mutex
	seen       uint64 // activity at the last Work
	lastChange time.Time
	now        time.Time // of the last Work
	tried      bool      // blocks were put into the store in this pass
	packed     uint64    // formed, when marks were repacked; math.MaxUint64: they never were
	behind     bool      // closed files wait for something to be placed
	resumed    bool      // what a stop interrupted towards the Sink was finished

	rounds sync.Mutex // held while groups are made; taken before marks; guards what follows
	stale  int        // rounds since the block that waits longest has changed
	formed uint64     // groups since the start

	// marks guards mark; taken before mu.
	marks sync.Mutex
	mark  uint64 // under which blocks are kept now until they are in groups; 0: none yet

	// mu is held by the transaction that writes, and guards what follows.
	mu     sync.Mutex
	seq    uint64 // the next number
	lent   uint64 // numbers below may be given out without a note
	totals tally
	todo   todo

	standing standing

	// trouble guards missing, untold, full, and failures: why files could not be read; at most maxFailures.
	trouble  sync.Mutex
	failures map[FileID]error
	missing  missing
	untold   untold
	full     fullness

	beforeCommit func() error // for tests
}

const maxFailures = 1024

// tally is what is counted of a dataset.
type tally struct {
	liveBlocks, liveBytes, queuedBlocks, queuedBytes, groups, storedBytes, unplacedBytes int64
}

func (t *tally) add(o tally) {
	t.liveBlocks += o.liveBlocks
	t.liveBytes += o.liveBytes
	t.queuedBlocks += o.queuedBlocks
	t.queuedBytes += o.queuedBytes
	t.groups += o.groups
	t.storedBytes += o.storedBytes
	t.unplacedBytes += o.unplacedBytes
}

// Stats counts what there is now.
type Stats struct {
	LiveBlocks   int64
	LiveBytes    int64
	QueuedBlocks int64 // live blocks that wait for a group
	QueuedBytes  int64
	Groups       int64 // that are not released
	StoredBytes  int64 // of all their shards, parity too
	Unplaced     int64 // of those, in groups that are not placed, in bytes
}

// Stats returns what there is now.
func (d *Dataset) Stats() Stats {
	t := d.tally()
	return Stats{t.liveBlocks, t.liveBytes, t.queuedBlocks, t.queuedBytes, t.groups, t.storedBytes, t.unplacedBytes}
}

func (d *Dataset) tally() tally {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.totals
}

// Open opens the dataset and finishes what a stop interrupted, without a call of the Sink.
func Open(ctx context.Context, cfg Config) (*Dataset, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Dataset{cfg: cfg, failures: make(map[FileID]error), missing: make(missing), todo: todo{most: mostRemembered}, packed: math.MaxUint64,
		full: fullness{refused: make(map[FileID]uint64)}}
	if err := d.recover(ctx); err != nil {
		return nil, fmt.Errorf("open dataset: %w", err)
	}
	return d, nil
}

// Work does what is due at now: works changes off, imports closed files, makes groups when enough blocks wait and,
// after a quiet time, the root, the remaining groups and the manifest. It returns when it is to be called again if
// nothing happens before; zero if only after a change. After an error it may be called again.
func (d *Dataset) Work(ctx context.Context, now time.Time) (next time.Time, err error) {
	d.work.Lock()
	defer d.work.Unlock()
	if a := d.activity.Load(); a != d.seen {
		d.seen, d.lastChange = a, now
	}
	d.beginFill(now)
	err = d.catchUp(ctx)
	due, hurried := d.lastChange.Add(d.cfg.Quiet), d.hurry.Load()
	if err == nil && !hurried && now.Before(due) {
		return sooner(due, d.endFill()), nil
	}
	if err == nil {
		err = d.settle(ctx)
	}
	if err != nil {
		d.resumed = false
		return now.Add(d.cfg.Quiet), err
	}
	full := d.endFill()
	if hurried && (!d.behind || !full.IsZero()) {
		d.hurry.Store(false)
	}
	// What waits for something to be placed goes on when that is told. Other closed files are busy, or could not be read.
	left, more, err := d.filesOf(keyClosed)
	if err == nil && !more && len(left) == 0 && d.activity.Load() == d.seen {
		return full, nil
	}
	return sooner(now.Add(d.cfg.Quiet), full), err
}

// sooner returns the earlier of two times, of which the second may be zero.
func sooner(a, b time.Time) time.Time {
	if !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Hurry has the next Work not wait for a quiet time.
func (d *Dataset) Hurry() { d.hurry.Store(true) }

// Hurried says whether Hurry was called, and what it asks for is not done.
func (d *Dataset) Hurried() bool { return d.hurry.Load() }

// catchUp does what does not wait for a quiet time.
func (d *Dataset) catchUp(ctx context.Context) error {
	if err := inTurn(ctx, d.resume, d.catchMissed, d.workOff, d.restage); err != nil {
		return err
	}
	return d.takeIn(ctx)
}

// settle makes a state that can be synced of all that is there. While closed files wait for something to be placed, and
// while blocks do, there is none.
func (d *Dataset) settle(ctx context.Context) error {
	err := inTurn(ctx, d.relistMissed, d.lookForLost,
		func(context.Context) error { return d.dropNameless() },
		func(context.Context) error { return d.dropOwners() })
	if err != nil {
		return err
	}
	built := !d.behind
	if built {
		err := d.build(ctx)
		built = err == nil
		if err := d.tolerate(err); err != nil {
			return err
		}
	}
	err = inTurn(ctx, func(context.Context) error { return d.closeMark() },
		d.protectAll,
		d.regroupAll,
		func(context.Context) error { return d.closeMark() },
		d.releaseMarks,
		d.give)
	if err != nil {
		return err
	}
	if d.tally().queuedBlocks > 0 {
		d.behind = true
	} else if built {
		err := inTurn(ctx, d.writeManifest, d.giveManifest)
		if errors.Is(err, ErrFull) {
			d.resumed = false // what was begun is taken back
		}
		if err := d.tolerate(err); err != nil {
			return err
		}
	}
	return d.releaseEmpty(ctx)
}

// inTurn runs steps up to the first that fails.
func inTurn(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// regroupAll makes new groups of those that are under half live or small, unless others wait for room.
func (d *Dataset) regroupAll(ctx context.Context) error {
	for d.tally().queuedBlocks == 0 {
		moved, err := d.regroup()
		if err != nil || !moved {
			return err
		}
		if err := d.protectAll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// waitMark is the mark under which new blocks are kept until they are in groups.
func (d *Dataset) waitMark() (Mark, error) {
	d.marks.Lock()
	defer d.marks.Unlock()
	if d.mark == 0 {
		n, err := d.newMark(0)
		if err != nil {
			return "", err
		}
		d.mark = n
	}
	return waitMark(d.mark), nil
}

// newMark makes a mark that may be dropped when the queue is empty up to a number; 0: it is in use.
func (d *Dataset) newMark(until uint64) (n uint64, err error) {
	err = d.commit(func(x *tx) (err error) {
		if n, err = x.next(); err != nil {
			return err
		}
		var e encoder
		e.num(until)
		return x.set(d.key(keyMark, n), e)
	})
	return n, err
}

// dropMark releases what a mark keeps.
func (d *Dataset) dropMark(ctx context.Context, n uint64) error {
	if err := d.cfg.Store.Release(ctx, waitMark(n)); err != nil {
		return err
	}
	d.ease()
	return d.commit(func(x *tx) error { return x.del(d.key(keyMark, n)) })
}

func waitMark(n uint64) Mark { return Mark(fmt.Sprintf("waiting-%d", n)) }

func (d *Dataset) putBlocks(ctx context.Context, blks []blocks.Block) error {
	mark, err := d.waitMark()
	if err != nil || len(blks) == 0 {
		return err
	}
	return d.cfg.Store.Put(ctx, mark, blks)
}

// closeMark has the present mark dropped when all that waits now is in groups.
func (d *Dataset) closeMark() error {
	d.marks.Lock()
	defer d.marks.Unlock()
	if d.mark == 0 {
		return nil
	}
	err := d.commit(func(x *tx) error { return x.endMark(d.mark) })
	if err == nil {
		d.mark = 0
	}
	return err
}

func (x *tx) endMark(n uint64) error {
	until, err := x.next()
	if err != nil {
		return err
	}
	var e encoder
	e.num(until)
	return x.set(x.d.key(keyMark, n), e)
}

// releaseMarks drops the marks of blocks that are all in groups, which have marks of their own.
func (d *Dataset) releaseMarks(ctx context.Context) error {
	head := uint64(math.MaxUint64)
	rest, err := d.firstOf(keyQueue)
	if err != nil {
		return err
	}
	if rest != nil {
		head = number(rest, 0)
	}
	return d.scanKind(keyMark, func(rest, value []byte) error {
		r := decoder{rest: value}
		n, until := number(rest, 0), r.num()
		if err := r.end("mark"); err != nil {
			return err
		}
		if until == 0 || until > head {
			return nil
		}
		return d.dropMark(ctx, n)
	})
}
