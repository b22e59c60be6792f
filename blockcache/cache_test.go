package blockcache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// slow is an origin whose fetches take until they are told what to give.
type slow struct {
	calls atomic.Int64
	gate  chan struct{} // a fetch returns after reading from it
	give  func(Want) (blocks.Block, error)
	ended chan error // why fetches were given up
}

func newSlow(give func(Want) (blocks.Block, error)) *slow {
	return &slow{gate: make(chan struct{}), give: give, ended: make(chan error, 100)}
}

func (o *slow) Fetch(ctx context.Context, w Want) (blocks.Block, error) {
	o.calls.Add(1)
	select {
	case <-o.gate:
		return o.give(w)
	case <-ctx.Done():
		o.ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}
}

// newTestFlights makes flights that a bubble may use, with a memory tier made outside of it.
func newTestFlights(t *testing.T, mem *memory, o Origin) (*flights, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	return &flights{origin: o, grace: 250 * time.Millisecond, base: ctx, tasks: &sync.WaitGroup{}, mem: mem}, cancel
}

func newTestMemory(t *testing.T) *memory {
	t.Helper()
	m, err := newMemory(1 << 20)
	must(t, err)
	t.Cleanup(m.close)
	return m
}

func TestReadersShareOneFetch(t *testing.T) {
	t.Parallel()
	b := randBlock(t, 1, 100)
	o := newSlow(func(Want) (blocks.Block, error) { return b, nil })
	c, err := New(Config{Origin: o})
	must(t, err)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			w := Want{CID: b.Cid()}
			if i%2 == 1 {
				w.CID = cid.NewCidV0(b.Cid().Hash())
			}
			got, err := c.Get(t.Context(), w)
			if err != nil || !got.Cid().Equals(w.CID) {
				t.Errorf("get: %v", err)
			}
		})
	}
	close(o.gate)
	wg.Wait()
	if n := o.calls.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	must(t, c.Close())
	if _, err := c.Get(t.Context(), Want{CID: b.Cid()}); !errors.Is(err, ErrClosed) {
		t.Errorf("get after Close: %v", err)
	}
}

func TestWaiterLeavesFetchStays(t *testing.T) {
	mem, b := newTestMemory(t), randBlock(t, 1, 100)
	synctest.Test(t, func(t *testing.T) {
		o := newSlow(func(Want) (blocks.Block, error) { return b, nil })
		f, stop := newTestFlights(t, mem, o)
		w := Want{CID: b.Cid()}
		quit := errors.New("reader was killed")
		ctx, cancel := context.WithCancelCause(context.Background())
		errs := make(chan error, 2)
		go func() { _, err := f.get(ctx, w); errs <- err }()
		go func() { _, err := f.get(context.Background(), w); errs <- err }()
		synctest.Wait()
		cancel(quit)
		if err := <-errs; !errors.Is(err, quit) {
			t.Errorf("the one who left got %v", err)
		}
		time.Sleep(time.Hour) // of the bubble
		o.gate <- struct{}{}
		if err := <-errs; err != nil {
			t.Errorf("the one who stayed got %v", err)
		}
		if n := o.calls.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		stop()
		f.tasks.Wait()
	})
}

func TestGrace(t *testing.T) {
	mem, b := newTestMemory(t), randBlock(t, 2, 100)
	synctest.Test(t, func(t *testing.T) {
		o := newSlow(func(Want) (blocks.Block, error) { return b, nil })
		f, stop := newTestFlights(t, mem, o)
		w := Want{CID: b.Cid()}
		visit := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(context.Background(), d)
			defer cancel()
			if _, err := f.get(ctx, w); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("get: %v", err)
			}
		}
		visit(time.Second)
		time.Sleep(f.grace - time.Millisecond)
		visit(time.Second) // in time: the same fetch
		if n := o.calls.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		time.Sleep(f.grace + time.Millisecond)
		synctest.Wait()
		if err := <-o.ended; !errors.Is(err, errNobodyWaits) {
			t.Errorf("the fetch ended: %v", err)
		}
		done := make(chan error, 1)
		go func() { _, err := f.get(context.Background(), w); done <- err }()
		synctest.Wait()
		o.gate <- struct{}{}
		if err := <-done; err != nil || o.calls.Load() != 2 {
			t.Errorf("a later get: %v after %d fetches", err, o.calls.Load())
		}
		stop()
		f.tasks.Wait()
	})
}

func TestCloseEndsFetches(t *testing.T) {
	t.Parallel()
	o := newSlow(nil)
	c, err := New(Config{Origin: o})
	must(t, err)
	errs := make(chan error)
	go func() { _, err := c.Get(context.Background(), Want{CID: randBlock(t, 1, 10).Cid()}); errs <- err }()
	waitFor(t, func() bool { return o.calls.Load() == 1 })
	go func() { errs <- c.Close() }()
	for range 2 {
		if err := <-errs; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestOriginFailsAndLies(t *testing.T) {
	t.Parallel()
	right, wrong := randBlock(t, 1, 10), randBlock(t, 2, 10)
	broken := errors.New("no peer has it")
	for _, tc := range []struct {
		give func(Want) (blocks.Block, error)
		want error
	}{
		{func(Want) (blocks.Block, error) { return nil, broken }, broken},
		{func(Want) (blocks.Block, error) { return wrong, nil }, ErrCorrupt},
		{func(Want) (blocks.Block, error) { return nil, nil }, ErrCorrupt},
	} {
		o := newSlow(tc.give)
		close(o.gate)
		c, err := New(Config{Origin: o})
		must(t, err)
		for range 2 { // a failure is not remembered
			if _, err := c.Get(t.Context(), Want{CID: right.Cid()}); !errors.Is(err, tc.want) {
				t.Errorf("get: %v, want %v", err, tc.want)
			}
		}
		if st := c.Stats(); st.Fetches != 2 || st.Failed != 2 || o.calls.Load() != 2 {
			t.Errorf("stats: %+v", st)
		}
		if _, err := c.Local(t.Context(), Want{CID: right.Cid()}); !errors.Is(err, ErrNotFound) {
			t.Errorf("local: %v", err)
		}
		must(t, c.Close())
	}
}

func TestGetMany(t *testing.T) {
	t.Parallel()
	var ws []Want
	have := map[cid.Cid]blocks.Block{}
	for i := range uint64(100) {
		b := randBlock(t, i, 100)
		ws = append(ws, Want{CID: b.Cid()})
		have[b.Cid()] = b
	}
	o := newSlow(func(w Want) (blocks.Block, error) {
		if w.CID == ws[7].CID {
			return nil, fmt.Errorf("lost: %w", ErrNotFound)
		}
		return have[w.CID], nil
	})
	close(o.gate)
	c, err := New(Config{Origin: o})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	got := map[int]bool{}
	c.GetMany(t.Context(), ws, func(i int, b blocks.Block, err error) {
		if (err != nil) != (i == 7) || err == nil && b != have[ws[i].CID] {
			t.Errorf("block %d: %v", i, err)
		}
		got[i] = true
	})
	if len(got) != 100 {
		t.Errorf("%d answers", len(got))
	}
}

func TestPrefetchIsBoundedAndWithdrawn(t *testing.T) {
	t.Parallel()
	o := newSlow(func(w Want) (blocks.Block, error) { return nil, ErrNotFound })
	c, err := New(Config{Origin: o, PrefetchBytes: 5 * prefetchGuess, Grace: time.Millisecond})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	var ws []Want
	for i := range uint64(20) {
		ws = append(ws, Want{CID: randBlock(t, i, 10).Cid()})
	}
	ws = append(ws, Want{}, Want{CID: sumCID(t, cid.Raw, 0, []byte("identity"))})
	ctx, cancel := context.WithCancel(t.Context())
	c.Prefetch(ctx, ws)
	waitFor(t, func() bool { return o.calls.Load() == 5 })
	if st := c.Stats(); st.Dropped != 15 {
		t.Errorf("stats: %+v", st)
	}
	cancel()
	for range 5 {
		if err := <-o.ended; !errors.Is(err, errNobodyWaits) {
			t.Errorf("a prefetch ended with %v", err)
		}
	}
	waitFor(t, func() bool { return c.prefetch.take(5 * prefetchGuess) })
}

func TestPrefetchBringsBlocksIntoMemory(t *testing.T) {
	t.Parallel()
	s := newBox(t, StoreConfig{})
	b := randBlock(t, 1, 1000)
	mustPut(t, s, Entry{Block: b})
	c, err := New(Config{Store: s.Store})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	c.Prefetch(t.Context(), []Want{{CID: b.Cid()}})
	waitFor(t, func() bool { _, ok := c.mem.get(b.Cid()); return ok })
}

// TestNewestBlockIsInMemory: whatever ristretto thinks of it, a block just read is read again from memory.
func TestNewestBlockIsInMemory(t *testing.T) {
	t.Parallel()
	m, err := newMemory(16 << 20)
	must(t, err)
	defer m.close()
	for i := range uint64(200) {
		b := randBlock(t, i, 1<<20)
		m.put(b)
		for range 8 {
			if got, ok := m.get(b.Cid()); !ok || got != b {
				t.Fatalf("block %d is gone", i)
			}
		}
	}
	m.main.Wait()
	if n := m.bytes(); n > 16<<20 || n < 4<<20 {
		t.Errorf("%d bytes in memory", n)
	}
}
