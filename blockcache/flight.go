package blockcache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	blocks "github.com/ipfs/go-block-format"
)

// flights are the fetches in progress, one a block.
type flights struct {
	origin Origin
	grace  time.Duration
	base   context.Context
	tasks  *sync.WaitGroup
	mem    *memory

	begun, failed atomic.Int64

	mu sync.Mutex
	m  map[string]*flight // guarded by mu
}

// flight is one shared fetch.
type flight struct {
	key     string
	done    chan struct{}
	cancel  context.CancelCauseFunc
	waiters int         // guarded by flights.mu
	timer   *time.Timer // guarded by flights.mu; runs while nobody waits

	block blocks.Block // valid after done
	err   error
}

// errNobodyWaits is why a fetch ends whose readers have all left.
var errNobodyWaits = errors.New("nobody waits any more")

// get joins the fetch of a block, or begins it. A fetch that ended because the readers before had
// left is begun anew.
func (f *flights) get(ctx context.Context, w Want) (blocks.Block, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", w.CID, context.Cause(ctx))
		}
		fl, b := f.join(w)
		if b != nil {
			return b, nil
		}
		select {
		case <-fl.done:
			f.leave(fl)
		case <-ctx.Done():
			f.leave(fl)
			return nil, fmt.Errorf("fetch %s: %w", w.CID, context.Cause(ctx))
		case <-f.base.Done():
			f.leave(fl)
			return nil, fmt.Errorf("fetch %s: %w", w.CID, ErrClosed)
		}
		if errors.Is(fl.err, errNobodyWaits) {
			continue
		}
		if fl.err != nil {
			return nil, fl.err
		}
		if fl.block.Cid().Equals(w.CID) {
			return fl.block, nil
		}
		return withCID(fl.block.RawData(), w.CID), nil
	}
}

// join returns the flight of a block, or the block if it arrived since the caller looked.
func (f *flights) join(w Want) (*flight, blocks.Block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := key(w.CID)
	fl := f.m[k]
	if fl == nil {
		if b, ok := f.mem.get(w.CID); ok {
			return nil, b
		}
		ctx, cancel := context.WithCancelCause(f.base)
		fl = &flight{key: k, done: make(chan struct{}), cancel: cancel}
		if f.m == nil {
			f.m = make(map[string]*flight)
		}
		f.m[k] = fl
		f.begun.Add(1)
		f.tasks.Add(1) // within a call, so Close has not passed its Wait
		go f.run(ctx, fl, w)
	}
	fl.waiters++
	if fl.timer != nil {
		fl.timer.Stop()
		fl.timer = nil
	}
	return fl, nil
}

// leave ends one wait. The last to leave an unfinished fetch gives it a grace: programs that retry
// after a signal come back for it at once.
func (f *flights) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.waiters--
	if fl.waiters == 0 && f.m[fl.key] == fl {
		fl.timer = time.AfterFunc(f.grace, func() { f.expire(fl) })
	}
}

func (f *flights) expire(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.waiters == 0 && fl.timer != nil {
		fl.cancel(errNobodyWaits)
	}
}

func (f *flights) run(ctx context.Context, fl *flight, w Want) {
	defer f.tasks.Done()
	b, err := f.origin.Fetch(ctx, w)
	switch {
	case err == nil && (b == nil || key(b.Cid()) != fl.key):
		err = fmt.Errorf("fetch %s: the origin gave another block: %w", w.CID, ErrCorrupt)
	case err != nil && errors.Is(context.Cause(ctx), errNobodyWaits):
		err = errNobodyWaits
	}
	if err == nil {
		f.mem.put(b)
	} else {
		f.failed.Add(1)
	}
	f.mu.Lock()
	delete(f.m, fl.key)
	if fl.timer != nil {
		fl.timer.Stop()
	}
	f.mu.Unlock()
	fl.block, fl.err = b, err
	close(fl.done)
	fl.cancel(nil)
}

// has reports whether a block is being fetched.
func (f *flights) has(k string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m[k] != nil
}
