package exchange

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Run announces until ctx ends. It may be called once.
func (q *AnnounceQueue) Run(ctx context.Context) error {
	var attempts sync.WaitGroup
	defer attempts.Wait()
	slots := make(chan struct{}, q.cfg.Workers)
	for {
		a, wait := q.next(time.Now())
		if a == nil {
			if !q.pause(ctx, wait) {
				return nil
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		attempts.Go(func() {
			defer func() { <-slots }()
			q.attempt(ctx, a)
		})
	}
}

// next takes the entry that is due, or says how long none will be; no time says that none is queued.
func (q *AnnounceQueue) next(now time.Time) (*announcement, time.Duration) {
	ready := q.cfg.Ready()
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.due) == 0:
		return nil, 0
	case q.due[0].due.After(now):
		return nil, q.due[0].due.Sub(now)
	case !ready:
		return nil, q.cfg.Poll
	}
	a := heap.Pop(&q.due).(*announcement)
	a.running = true
	return a, 0
}

// pause waits for a time, or for a change when there is none; false when ctx has ended.
func (q *AnnounceQueue) pause(ctx context.Context, d time.Duration) bool {
	var alarm <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-q.wake:
	case <-alarm:
	}
	return true
}

// attempt announces once and says when to do so again.
func (q *AnnounceQueue) attempt(ctx context.Context, a *announcement) {
	tctx, cancel := context.WithTimeout(ctx, q.cfg.Timeout)
	err := q.cfg.Providers.Provide(tctx, a.cid)
	cancel()
	now := time.Now()
	next, kept := q.finish(a, now, err)
	if err != nil && ctx.Err() == nil {
		q.cfg.Logger.Info("announcement failed, will be tried again", "cid", a.cid, "in", next.due.Sub(now), "err", err)
	}
	if err != nil || !kept {
		return // what is stored is due still, or gone
	}
	if err := q.store(context.WithoutCancel(ctx), a.cid, next); err != nil {
		q.cfg.Logger.Warn("keep time of announcement", "cid", a.cid, "err", err)
	}
	q.mu.Lock()
	withdrawn := q.entries[a.cid] != a
	q.mu.Unlock()
	if withdrawn {
		_ = q.erase(context.WithoutCancel(ctx), a.cid) // else it would come back after a restart
	}
}

// finish queues an entry anew by how its attempt went, unless it was withdrawn meanwhile.
func (q *AnnounceQueue) finish(a *announcement, now time.Time, err error) (announcement, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a.running = false
	if err == nil {
		a.failures, a.made = 0, now
		// Spread a little, so that what was announced together does not stay together.
		a.due = now.Add(q.cfg.Every - rand.N(q.cfg.Every/20+1))
	} else {
		a.due = now.Add(min(q.cfg.RetryMax, q.cfg.RetryMin<<min(a.failures, 20)))
		a.failures++
	}
	if q.entries[a.cid] != a {
		return *a, false
	}
	heap.Push(&q.due, a)
	wake(q.wake)
	return *a, true
}
