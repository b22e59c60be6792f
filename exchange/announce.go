package exchange

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
)

// errAnnounceFull says that the queue has as many entries as it may.
var errAnnounceFull = errors.New("too many announcements are kept")

// AnnounceConfig says how announcements are made. Zero values mean the defaults; Providers and
// Datastore are required.
type AnnounceConfig struct {
	Providers ProviderMap
	Datastore ds.Batching   // keeps the queue; its keys are all the queue's own
	Ready     func() bool   // whether there is anybody to tell; default: always
	Every     time.Duration // an announcement is made anew; default 22 h, as records last 24 h or more
	Fresh     time.Duration // one made less than this ago is not made again when asked for; default 1 h
	RetryMin  time.Duration // after a failure, doubled each time; default 1 s
	RetryMax  time.Duration // default 10 min
	Poll      time.Duration // between looks at Ready while it is false; default 500 ms
	Timeout   time.Duration // for one announcement; default 2 min
	Workers   int           // announcements in parallel; default 8
	Max       int           // entries kept; default 1,048,576
	Logger    *slog.Logger  // default: nothing is logged
}

func (c AnnounceConfig) withDefaults() AnnounceConfig {
	if c.Ready == nil {
		c.Ready = func() bool { return true }
	}
	c.Every = cmp.Or(c.Every, 22*time.Hour)
	c.Fresh = cmp.Or(c.Fresh, time.Hour)
	c.RetryMin = cmp.Or(c.RetryMin, time.Second)
	c.RetryMax = cmp.Or(c.RetryMax, 10*time.Minute)
	c.Poll = cmp.Or(c.Poll, 500*time.Millisecond)
	c.Timeout = cmp.Or(c.Timeout, 2*time.Minute)
	c.Workers = cmp.Or(c.Workers, 8)
	c.Max = cmp.Or(c.Max, 1<<20)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// AnnounceQueue makes known what this node holds and keeps it known: an announcement is stored
// before Announce returns, tried until it succeeds, and made anew before it expires, over restarts
// too. All methods are safe for concurrent use.
type AnnounceQueue struct {
	cfg  AnnounceConfig
	wake chan struct{} // has room for one: the earliest entry may have changed

	mu      sync.Mutex // guards all below
	entries map[cid.Cid]*announcement
	due     dueHeap
}

var _ Announcer = (*AnnounceQueue)(nil)

// OpenAnnounceQueue reads the queue from its datastore. Nothing is announced until Run.
func OpenAnnounceQueue(ctx context.Context, cfg AnnounceConfig) (*AnnounceQueue, error) {
	if cfg.Providers == nil || cfg.Datastore == nil {
		return nil, fmt.Errorf("open announcements: %w: no provider map or no datastore", ErrInvalid)
	}
	q := &AnnounceQueue{
		cfg:     cfg.withDefaults(),
		wake:    make(chan struct{}, 1),
		entries: make(map[cid.Cid]*announcement),
	}
	if err := q.load(ctx); err != nil {
		return nil, fmt.Errorf("open announcements: %w", err)
	}
	return q, nil
}

// Announce implements Announcer: c is announced as soon as there is anybody to tell. It returns
// when that is durably queued.
func (q *AnnounceQueue) Announce(ctx context.Context, c cid.Cid) error {
	if !servable(c) {
		return fmt.Errorf("announce %s: %w: not a block that travels", c, ErrInvalid)
	}
	now := time.Now()
	q.mu.Lock()
	a := q.entries[c]
	switch {
	case a != nil && (a.due.Before(now) || a.running || now.Sub(a.made) < q.cfg.Fresh):
		q.mu.Unlock()
		return nil // about to be made, or made lately
	case a == nil && len(q.entries) >= q.cfg.Max:
		q.mu.Unlock()
		return fmt.Errorf("announce %s: %w", c, errAnnounceFull)
	}
	q.mu.Unlock()
	if err := q.store(ctx, c, announcement{due: now}); err != nil {
		return fmt.Errorf("announce %s: %w", c, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.setLocked(c, now)
	return nil
}

// Withdraw stops announcing c. What was announced already expires by itself.
func (q *AnnounceQueue) Withdraw(ctx context.Context, c cid.Cid) error {
	q.mu.Lock()
	if a := q.entries[c]; a != nil {
		delete(q.entries, c)
		if !a.running {
			heap.Remove(&q.due, a.at)
		}
	}
	q.mu.Unlock()
	if err := q.erase(ctx, c); err != nil {
		return fmt.Errorf("withdraw %s: %w", c, err)
	}
	return nil
}

// AnnounceStats are figures of an [AnnounceQueue].
type AnnounceStats struct {
	Entries int // kept announced
	Pending int // of those not announced yet, or due anew
}

// Stats returns the figures now.
func (q *AnnounceQueue) Stats() AnnounceStats {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	s := AnnounceStats{Entries: len(q.entries)}
	for _, a := range q.entries {
		if a.made.IsZero() || a.due.Before(now) {
			s.Pending++
		}
	}
	return s
}

// setLocked makes an entry due, new or not.
func (q *AnnounceQueue) setLocked(c cid.Cid, due time.Time) {
	a := q.entries[c]
	switch {
	case a == nil:
		a = &announcement{cid: c, due: due}
		q.entries[c] = a
		heap.Push(&q.due, a)
	case !a.running:
		a.due = due
		heap.Fix(&q.due, a.at)
	}
	wake(q.wake)
}
