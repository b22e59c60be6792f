package exchange

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	mh "github.com/multiformats/go-multihash"
)

// AnnounceStrategy says which blocks a node makes known to hold.
type AnnounceStrategy string

// The strategies.
const (
	AnnounceRoots  AnnounceStrategy = "roots"  // those that the [AnnounceQueue] is told of, no others
	AnnouncePinned AnnounceStrategy = "pinned" // all that are pinned, too
	AnnounceAll    AnnounceStrategy = "all"    // all that are here
)

// Keys returns up to max blocks to be announced: those that follow after, in an order that stays, or
// the first ones if it is undefined. There are no more when it returns none. It is called by one
// goroutine.
type Keys func(ctx context.Context, after cid.Cid, max int) ([]cid.Cid, error)

// SweepConfig says how a [Sweeper] works. Zero values mean the defaults; Keys, Providers and Datastore
// are required unless Strategy is AnnounceRoots, which needs only the last.
type SweepConfig struct {
	Strategy  AnnounceStrategy // default AnnounceRoots
	Keys      Keys
	Providers ProviderMap
	Datastore ds.Batching   // keeps how far the sweep is; its keys are all the sweeper's own
	Ready     func() bool   // whether there is anybody to tell; default: always
	Every     time.Duration // from the beginning of a sweep to that of the next; default 22 h
	Rest      time.Duration // before a sweep that begins early, or as long as the last took; default 1 min
	RetryMin  time.Duration // after a failure, doubled each time; default 1 s
	RetryMax  time.Duration // default 10 min
	Attempts  int           // for one block, if others succeed; default 5
	Poll      time.Duration // between looks at Ready while it is false; default 500 ms
	Timeout   time.Duration // for one announcement; default 2 min
	Workers   int           // announcements in parallel; default 16
	Page      int           // blocks announced before it is stored how far the sweep is; default 512
	Queue     int           // blocks that came between sweeps and wait; default 4096
	Logger    *slog.Logger  // default: nothing is logged
}

func (c SweepConfig) withDefaults() SweepConfig {
	c.Strategy = cmp.Or(c.Strategy, AnnounceRoots)
	if c.Ready == nil {
		c.Ready = func() bool { return true }
	}
	c.Every = cmp.Or(c.Every, 22*time.Hour)
	c.Rest = cmp.Or(c.Rest, time.Minute)
	c.RetryMin = cmp.Or(c.RetryMin, time.Second)
	c.RetryMax = cmp.Or(c.RetryMax, 10*time.Minute)
	c.Attempts = cmp.Or(c.Attempts, 5)
	c.Poll = cmp.Or(c.Poll, 500*time.Millisecond)
	c.Timeout = cmp.Or(c.Timeout, 2*time.Minute)
	c.Workers = cmp.Or(c.Workers, 16)
	c.Page = cmp.Or(c.Page, 512)
	c.Queue = cmp.Or(c.Queue, 4096)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c SweepConfig) check() error {
	switch {
	case c.Strategy != AnnounceRoots && c.Strategy != AnnouncePinned && c.Strategy != AnnounceAll:
		return fmt.Errorf("%w: strategy %q", ErrInvalid, c.Strategy)
	case c.Datastore == nil:
		return fmt.Errorf("%w: no datastore", ErrInvalid)
	case c.Strategy != AnnounceRoots && (c.Keys == nil || c.Providers == nil):
		return fmt.Errorf("%w: no keys or no provider map", ErrInvalid)
	}
	return nil
}

// Sweeper makes known every block that its strategy names. A sweep goes through all of them, again
// before what it told expires; a restart goes on with it. Blocks that come between sweeps are announced
// as they come. Where they come faster than they can be announced, the next sweep begins earlier. What
// it keeps in memory does not grow with the number of blocks. All methods are safe for concurrent use.
type Sweeper struct {
	cfg   SweepConfig
	slots chan struct{} // one for each announcement that runs
	come  chan struct{} // has room for one: newcomers wait
	soon  chan struct{} // has room for one: the next sweep may be due earlier

	saving sync.Mutex // makes writes of the state one after another; taken before mu

	mu      sync.Mutex          // guards all below
	state   sweepState          // as it is now
	stored  bool                // the datastore says that blocks wait, or that a sweep is to begin early
	changed bool                // the strategy is not that of the datastore
	known   map[string]struct{} // multihashes of newcomers that wait or are being announced
	waiting []cid.Cid           // of those, the ones that wait, in the order they came
	figures SweepStats
}

// OpenSweeper reads from the datastore how far the last sweep came. A sweep of another strategy counts
// for nothing. Nothing is announced until Run.
func OpenSweeper(ctx context.Context, cfg SweepConfig) (*Sweeper, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("open sweeper: %w", err)
	}
	s := &Sweeper{
		cfg:   cfg,
		slots: make(chan struct{}, cfg.Workers),
		come:  make(chan struct{}, 1),
		soon:  make(chan struct{}, 1),
		known: make(map[string]struct{}),
	}
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("open sweeper: %w", err)
	}
	return s, nil
}

// Stored tells of blocks that have just come to the store. It returns at once but for the first ones
// after a while, for which it notes durably that they are to be announced.
func (s *Sweeper) Stored(ctx context.Context, cids ...cid.Cid) {
	if s.cfg.Strategy == AnnounceAll {
		s.take(ctx, cids)
	}
}

// Pinned tells of blocks that have just been pinned and are in the store, as Stored does.
func (s *Sweeper) Pinned(ctx context.Context, cids ...cid.Cid) {
	if s.cfg.Strategy == AnnouncePinned {
		s.take(ctx, cids)
	}
}

func (s *Sweeper) take(ctx context.Context, cids []cid.Cid) {
	s.mu.Lock()
	for _, c := range cids {
		if !worthTelling(c) {
			continue
		}
		k := string(c.Hash())
		if _, ok := s.known[k]; ok {
			continue
		}
		if len(s.known) >= s.cfg.Queue {
			s.figures.Missed++
			s.state.owed = true
			continue
		}
		s.known[k] = struct{}{}
		s.waiting = append(s.waiting, c)
	}
	note := !s.stored && s.owesLocked()
	early := s.state.owed
	s.mu.Unlock()
	if note {
		if err := s.save(context.WithoutCancel(ctx)); err != nil {
			s.cfg.Logger.Warn("note that blocks are to be announced", "err", err)
		}
	}
	wake(s.come)
	if early {
		wake(s.soon)
	}
}

// worthTelling reports whether anybody would look for a block: those whose bytes are in their CID, and
// the empty one, everybody has.
func worthTelling(c cid.Cid) bool {
	if !servable(c) || isEmptySHA256(c) {
		return false
	}
	p := c.Prefix()
	if p.MhType == mh.SHA2_256 {
		return true
	}
	empty, err := p.Sum(nil)
	return err != nil || !empty.Equals(c)
}

// Newcomers collects blocks that a [Sweeper] is to be told of together, later. It keeps no more than
// the sweeper has room for and one, which tells it that there are more. Only one goroutine may use it
// at a time.
type Newcomers struct {
	most  int
	known map[string]struct{}
	cids  []cid.Cid
}

// Newcomers returns an empty collection.
func (s *Sweeper) Newcomers() *Newcomers {
	n := &Newcomers{known: make(map[string]struct{})}
	if s.cfg.Strategy != AnnounceRoots {
		n.most = s.cfg.Queue + 1
	}
	return n
}

// Add adds blocks.
func (n *Newcomers) Add(cids ...cid.Cid) {
	for _, c := range cids {
		if len(n.cids) >= n.most {
			return
		}
		if !worthTelling(c) {
			continue
		}
		if _, ok := n.known[string(c.Hash())]; !ok {
			n.known[string(c.Hash())] = struct{}{}
			n.cids = append(n.cids, c)
		}
	}
}

// All returns what was added, each block once.
func (n *Newcomers) All() []cid.Cid { return n.cids }

// SweepStats are figures of a [Sweeper]. Counters begin with the process.
type SweepStats struct {
	Strategy  AnnounceStrategy
	Pending   int       // blocks that came lately, waiting or being announced
	Sweeping  bool      // a sweep is under way
	Swept     uint64    // blocks that it, or the last one, has come past
	Announced uint64    // announcements made
	Failed    uint64    // attempts that failed
	Left      uint64    // blocks left to the next sweep after too many attempts
	Missed    uint64    // newcomers that found the queue full, left to a sweep that begins early
	Began     time.Time // the last sweep; zero: never
	Ended     time.Time // when it came to its end; zero: it has not yet
}

// Stats returns the figures now.
func (s *Sweeper) Stats() SweepStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.figures
	f.Strategy, f.Pending = s.cfg.Strategy, len(s.known)
	f.Sweeping, f.Swept = s.state.underWay(), s.state.swept
	f.Began, f.Ended = s.state.began, s.state.ended
	return f
}
