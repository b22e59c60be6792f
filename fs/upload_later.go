package fs

import (
	"context"
	"sync"
	"time"
)

const (
	// measureEvery is how often files written past us are measured.
	measureEvery = 100 * time.Millisecond

	// settleGrace bounds the waiting for writers that have flushed and may be about to close.
	settleGrace = time.Second
	settlePoll  = 2 * time.Millisecond
)

// closings are the files whose report has to wait, and those written past us. One goroutine looks after them.
type closings struct {
	// mu guards what follows.
	mu      sync.Mutex
	due     map[*staged]*closing // each held
	through map[*staged]int      // writers past us
	wake    chan struct{}

	cancel context.CancelFunc
	done   sync.WaitGroup
}

type closing struct {
	at    time.Time
	delay time.Duration
	temp  bool // waits for a rename
}

func (c *closings) init() {
	c.due, c.through = make(map[*staged]*closing), make(map[*staged]int)
	c.wake = make(chan struct{}, 1)
}

// lookLater has n looked at again: after first, then after twice as long each time up to most.
func (t *uploadTree) lookLater(n *staged, first, most time.Duration, temp bool) {
	c := &t.closings
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.due[n]
	if x == nil {
		x = &closing{}
		c.due[n] = x
		t.table.hold(n)
	}
	x.delay = max(first, min(2*x.delay, most))
	x.at, x.temp = time.Now().Add(x.delay), temp
	c.stir()
}

// lookedAt takes n, which the caller holds, off the list.
func (t *uploadTree) lookedAt(n *staged) {
	c := &t.closings
	c.mu.Lock()
	_, waited := c.due[n]
	delete(c.due, n)
	c.mu.Unlock()
	if waited {
		t.table.release(n)
	}
}

// watch counts the writers of n past us.
func (c *closings) watch(n *staged, delta int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.through[n] += delta; c.through[n] <= 0 {
		delete(c.through, n)
	} else {
		c.stir()
	}
}

// stir has the goroutine look at the list.
func (c *closings) stir() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// startClosings begins to look after the files that wait.
func (t *uploadTree) startClosings() {
	ctx, cancel := context.WithCancel(context.Background())
	t.closings.cancel = cancel
	t.closings.done.Go(func() { t.runClosings(ctx) })
}

// stop ends the goroutine. What still waits is found at the next start.
func (c *closings) stop() {
	c.cancel()
	c.done.Wait()
}

func (t *uploadTree) runClosings(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.closings.wake:
		case <-timer.C:
		}
		ready, through, wait := t.takeDue(time.Now())
		for _, n := range ready {
			if ctx.Err() == nil {
				t.settle(n)
			}
			t.table.release(n)
		}
		for _, n := range through {
			n.mu.Lock()
			if err := t.measureLocked(n); err != nil {
				t.log.Debug("measure", "err", err)
			}
			n.mu.Unlock()
			t.table.release(n)
		}
		timer.Reset(wait)
	}
}

// takeDue gives, held, the files to look at now and those to measure, and the time until the next.
func (t *uploadTree) takeDue(now time.Time) (ready, through []*staged, wait time.Duration) {
	c := &t.closings
	c.mu.Lock()
	defer c.mu.Unlock()
	wait = time.Hour
	for n, x := range c.due {
		if left := x.at.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		x.at = now.Add(x.delay + time.Millisecond) // settle says better
		wait = min(wait, x.delay+time.Millisecond)
		t.table.hold(n)
		ready = append(ready, n)
	}
	if t.quota.limit == 0 {
		return ready, nil, wait
	}
	for n := range c.through {
		t.table.hold(n)
		through = append(through, n)
		wait = min(wait, measureEvery)
	}
	return ready, through, wait
}

// takeClosed gives, held, the files whose report was put off, for a rename or something else.
func (t *uploadTree) takeClosed(temp bool) (files []*staged) {
	t.closings.mu.Lock()
	defer t.closings.mu.Unlock()
	for n, x := range t.closings.due {
		if x.temp == temp {
			t.table.hold(n)
			files = append(files, n)
		}
	}
	return files
}

// unsettled counts the files that may be reported at any moment: flushed, closed, or about to be looked at again. It
// looks in the order in which a file goes through these.
func (t *uploadTree) unsettled() (count int) {
	for _, n := range t.handles.written() {
		n.mu.Lock()
		if n.flushed {
			count++
		}
		n.mu.Unlock()
	}
	count += int(t.releasing.Load())
	t.closings.mu.Lock()
	defer t.closings.mu.Unlock()
	for _, x := range t.closings.due {
		if !x.temp {
			count++
		}
	}
	return count
}

// settled waits until every file closed before is reported. Files that stay open, or mapped, keep it a second at most.
func (t *uploadTree) settled(ctx context.Context) error {
	grace := time.NewTimer(settleGrace)
	defer grace.Stop()
	poll := time.NewTicker(settlePoll)
	defer poll.Stop()
	for t.unsettled() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grace.C:
			return nil
		case <-poll.C:
		}
	}
	return nil
}
