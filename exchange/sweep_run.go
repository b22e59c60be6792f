package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
)

// Run sweeps and announces newcomers until ctx ends. It may be called once.
func (s *Sweeper) Run(ctx context.Context) error {
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	if changed {
		s.keep(ctx)
	}
	if s.cfg.Strategy == AnnounceRoots {
		<-ctx.Done()
		return nil
	}
	var loops sync.WaitGroup
	loops.Go(func() { s.sweeps(ctx) })
	loops.Go(func() { s.newcomers(ctx) })
	loops.Wait()
	s.settle(ctx)
	return nil
}

// keep saves the state, also when ctx has ended.
func (s *Sweeper) keep(ctx context.Context) {
	if err := s.save(context.WithoutCancel(ctx)); err != nil {
		s.cfg.Logger.Warn("keep how far the announcements are", "err", err)
	}
}

// settle notes durably that no newcomer waits any more, if that is so.
func (s *Sweeper) settle(ctx context.Context) {
	s.mu.Lock()
	idle := s.stored && !s.owesLocked()
	s.mu.Unlock()
	if idle {
		s.keep(ctx)
	}
}

// idleFor is how long no newcomer has to come before settle; no time: there is nothing to note.
func (s *Sweeper) idleFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored {
		return s.cfg.Rest
	}
	return 0
}

// sweeps runs one sweep after another.
func (s *Sweeper) sweeps(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		if wait := s.untilDue(time.Now()); wait > 0 {
			await(ctx, s.soon, wait)
			continue
		}
		if !s.waitReady(ctx) {
			return
		}
		s.begin(ctx)
		n, err := s.page(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.cfg.Logger.Warn("list blocks to announce, will be tried again", "err", err)
			sleep(ctx, s.delay(failures))
			failures++
			continue
		case n == 0:
			s.end()
		}
		failures = 0
		s.keep(ctx)
	}
}

// untilDue returns how long until a sweep begins, nothing while one is under way.
func (s *Sweeper) untilDue(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	if st.began.IsZero() || st.ended.IsZero() || st.began.After(now) {
		return 0 // never, under way, or by a clock that was wrong
	}
	due := st.began.Add(s.cfg.Every)
	if early := st.ended.Add(max(s.cfg.Rest, st.ended.Sub(st.began))); st.owed && early.Before(due) {
		due = early
	}
	return due.Sub(now)
}

// begin begins a sweep unless one is under way.
func (s *Sweeper) begin(ctx context.Context) {
	s.mu.Lock()
	if s.state.underWay() {
		s.mu.Unlock()
		return
	}
	// Whoever was missed until now is in the store, so this sweep meets them.
	s.state = sweepState{strategy: s.cfg.Strategy, began: time.Now()}
	s.mu.Unlock()
	s.cfg.Logger.Debug("sweep begins", "strategy", s.cfg.Strategy)
	s.keep(ctx)
}

// end ends a sweep.
func (s *Sweeper) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.ended = time.Now()
	s.state.after = cid.Undef
	s.cfg.Logger.Info("all blocks are announced", "strategy", s.cfg.Strategy, "blocks", s.state.swept,
		"took", s.state.ended.Sub(s.state.began))
}

// page announces the blocks that come next and returns how many they are when all were dealt with.
func (s *Sweeper) page(ctx context.Context) (int, error) {
	s.mu.Lock()
	after := s.state.after
	s.mu.Unlock()
	cids, err := s.cfg.Keys(ctx, after, s.cfg.Page)
	if err != nil || len(cids) == 0 {
		return 0, err
	}
	var attempts sync.WaitGroup
	for _, c := range cids {
		if worthTelling(c) && s.acquire(ctx) {
			attempts.Go(func() {
				defer s.release()
				s.announce(ctx, c)
			})
		}
	}
	attempts.Wait()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.after = cids[len(cids)-1]
	s.state.swept += uint64(len(cids))
	return len(cids), nil
}

// newcomers announces what comes between sweeps.
func (s *Sweeper) newcomers(ctx context.Context) {
	var attempts sync.WaitGroup
	defer attempts.Wait()
	for ctx.Err() == nil {
		c, ok := s.next()
		if !ok {
			if !await(ctx, s.come, s.idleFor()) {
				s.settle(ctx)
			}
			continue
		}
		if !s.acquire(ctx) {
			return // it is still known, so the next start sweeps early
		}
		attempts.Go(func() {
			defer s.release()
			if s.announce(ctx, c) {
				s.forget(c)
			}
		})
	}
}

// next takes the newcomer that has waited longest.
func (s *Sweeper) next() (cid.Cid, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.waiting = nil // what it held goes
		return cid.Undef, false
	}
	c := s.waiting[0]
	s.waiting = s.waiting[1:]
	return c, true
}

func (s *Sweeper) forget(c cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, string(c.Hash()))
}

func (s *Sweeper) acquire(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Sweeper) release() { <-s.slots }

// announce tells of one block, again and again while nobody can be told of any. A block that fails
// while others succeed is left to the next sweep. It returns false when ctx ended before.
func (s *Sweeper) announce(ctx context.Context, c cid.Cid) bool {
	var others uint64 // announced when this one failed first
	for failures := 0; ; failures++ {
		if !s.waitReady(ctx) {
			return false
		}
		tctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		err := s.cfg.Providers.Provide(tctx, c)
		cancel()
		if err != nil && ctx.Err() != nil {
			return false
		}
		made, left := s.count(err, failures+1, others)
		if err == nil {
			return true
		}
		if failures == 0 {
			others = made
		}
		if left {
			s.cfg.Logger.Info("announcement failed, left to the next sweep", "cid", c, "err", err)
			return true
		}
		s.cfg.Logger.Debug("announcement failed, will be tried again", "cid", c, "err", err)
		if !sleep(ctx, s.delay(failures)) {
			return false
		}
	}
}

// count notes how an attempt went. It returns how many announcements were made in all, and whether this
// one is given up.
func (s *Sweeper) count(err error, attempts int, others uint64) (made uint64, left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.figures.Announced++
		return s.figures.Announced, false
	}
	s.figures.Failed++
	if attempts >= s.cfg.Attempts && attempts > 1 && s.figures.Announced > others {
		s.figures.Left++
		left = true
	}
	return s.figures.Announced, left
}

// delay is how long to wait after so many failures before.
func (s *Sweeper) delay(failures int) time.Duration {
	return min(s.cfg.RetryMax, s.cfg.RetryMin<<min(failures, 20))
}

// waitReady waits until there is somebody to tell; false when ctx has ended.
func (s *Sweeper) waitReady(ctx context.Context) bool {
	for !s.cfg.Ready() {
		if !sleep(ctx, s.cfg.Poll) {
			return false
		}
	}
	return ctx.Err() == nil
}

// await waits for a wake, at most for a time if there is one; true when woken.
func await(ctx context.Context, woken <-chan struct{}, d time.Duration) bool {
	var alarm <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-ctx.Done():
	case <-alarm:
	case <-woken:
		return true
	}
	return false
}
