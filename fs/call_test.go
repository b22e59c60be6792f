package fs

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// waitCall starts a call and returns how and when its wait ended.
func waitCall(t *testing.T, prepare func(c *call, cancel chan struct{}, s *serving)) (took time.Duration, reason error) {
	t.Helper()
	s, cancel := newServing(), make(chan struct{})
	c := newCall(s.Context, cancel, 1, 25*time.Second)
	c.ending = func(uint32) bool { return false }
	start := time.Now()
	prepare(c, cancel, s)
	<-c.Done()
	reason = c.explain(errors.New("the fetch ended"))
	if c.Err() == nil {
		t.Error("an ended call has no error")
	}
	c.finish()
	return time.Since(start), reason
}

func TestCallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, reason := waitCall(t, func(*call, chan struct{}, *serving) {})
		if !errors.Is(reason, ErrUnavailable) || took != 25*time.Second {
			t.Errorf("deadline: %v after %v", reason, took)
		}
		took, reason = waitCall(t, func(_ *call, _ chan struct{}, s *serving) { s.end() })
		if !errors.Is(reason, errShutdown) || took != 0 {
			t.Errorf("shutdown: %v after %v", reason, took)
		}
		took, reason = waitCall(t, func(c *call, cancel chan struct{}, _ *serving) {
			c.ending = func(uint32) bool { return true }
			close(cancel)
		})
		if !errors.Is(reason, ErrInterrupted) || took != 0 {
			t.Errorf("fatal signal: %v after %v", reason, took)
		}
		took, reason = waitCall(t, func(c *call, cancel chan struct{}, _ *serving) { close(cancel) })
		if !errors.Is(reason, ErrUnavailable) || took != 25*time.Second {
			t.Errorf("harmless signal: %v after %v", reason, took)
		}
		took, reason = waitCall(t, func(c *call, cancel chan struct{}, _ *serving) {
			killed := time.Now().Add(3 * time.Second)
			c.ending = func(uint32) bool { return time.Now().After(killed) }
			close(cancel)
		})
		if !errors.Is(reason, ErrInterrupted) || took > 3*time.Second+2*pollInterval {
			t.Errorf("killed after a harmless signal: %v after %v", reason, took)
		}
	})
}

func TestCallFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall(newServing().Context, nil, 1, time.Second)
		if err := c.Err(); err != nil {
			t.Fatal(err)
		}
		c.finish()
		select {
		case <-c.Done():
		default:
			t.Error("a finished call is not done")
		}
		if err := c.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("a finished call's error is %v", err)
		}
		if errno, _ := toErrno(c.explain(context.Canceled)); errno != syscall.EIO {
			t.Errorf("a fetch that others gave up gives %v", errno)
		}
		own := errors.New("the fetch failed")
		if err := c.explain(own); err != own {
			t.Errorf("an error of its own became %v", err)
		}
	})
}
