package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// pollInterval is how often an interrupted caller is looked at for a signal that ends it: the kernel tells of a
// request's first signal only.
const pollInterval = 20 * time.Millisecond

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// call is the context of one request of the kernel. It ends at its deadline, with the mount's serving, or when the
// caller got a signal that ends it. Most requests are answered from memory and never ask for Done; only the first
// such question starts the goroutine that watches.
type call struct {
	serving  context.Context // ends when the mount fails its waiting requests
	cancel   <-chan struct{} // closed by the kernel's INTERRUPT
	pid      uint32
	ending   func(pid uint32) bool
	waits    *waits // that wait, of the mount; nil in tests
	deadline time.Time

	// mu guards what follows.
	mu       sync.Mutex
	done     chan struct{}
	stop     chan struct{}
	watched  chan struct{} // closed when the watcher has ended
	reason   error         // why the call ended early
	finished bool
}

var _ context.Context = (*call)(nil)

func newCall(serving context.Context, cancel <-chan struct{}, pid uint32, timeout time.Duration) *call {
	return &call{serving: serving, cancel: cancel, pid: pid, ending: callerIsEnding, deadline: time.Now().Add(timeout)}
}

// Deadline is when the request has to be answered.
func (c *call) Deadline() (time.Time, bool) { return c.deadline, true }

// Value knows nothing.
func (c *call) Value(any) any { return nil }

// Done is closed when the call has ended, early or not.
func (c *call) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		if c.finished {
			return closedChan
		}
		c.done, c.stop, c.watched = make(chan struct{}), make(chan struct{}), make(chan struct{})
		go c.watch()
	}
	return c.done
}

// Err is nil until the call has ended.
func (c *call) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.reason == context.DeadlineExceeded:
		return context.DeadlineExceeded
	case c.reason != nil || c.finished:
		return context.Canceled
	}
	return nil
}

// finish ends the call with its request and waits for the watcher.
func (c *call) finish() {
	c.mu.Lock()
	c.finished = true
	watched := c.watched
	if watched != nil {
		close(c.stop)
	}
	c.mu.Unlock()
	if watched != nil {
		<-watched
	}
}

// explain turns an error that the call's own end caused into the reason of that end.
func (c *call) explain(err error) error {
	c.mu.Lock()
	reason := c.reason
	c.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case reason == nil && errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: given up below: %w", ErrUnavailable, err)
	case reason == nil:
		return err
	case reason == ErrInterrupted:
		return fmt.Errorf("%w: %w", ErrInterrupted, err)
	case reason == errShutdown:
		return fmt.Errorf("%w: %w", ErrUnavailable, errShutdown)
	}
	return fmt.Errorf("%w in time: %w", ErrUnavailable, err)
}

func (c *call) watch() {
	defer close(c.watched)
	if c.waits != nil {
		c.waits.begin()
		defer c.waits.end()
	}
	reason := c.wait()
	c.mu.Lock()
	c.reason = reason
	c.mu.Unlock()
	close(c.done)
}

// wait returns why the call ends: nil when it was finished.
func (c *call) wait() error {
	timer := time.NewTimer(time.Until(c.deadline))
	defer timer.Stop()
	interrupt := c.cancel
	var poll <-chan time.Time
	for {
		select {
		case <-c.stop:
			return nil
		case <-timer.C:
			return context.DeadlineExceeded
		case <-c.serving.Done():
			return errShutdown
		case <-interrupt:
			ticker := time.NewTicker(pollInterval)
			defer ticker.Stop()
			interrupt, poll = nil, ticker.C
		case <-poll:
			if c.ending(c.pid) {
				return ErrInterrupted
			}
			continue
		}
		if interrupt == nil && c.ending(c.pid) {
			return ErrInterrupted
		}
	}
}
