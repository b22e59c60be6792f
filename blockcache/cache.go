package blockcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// Origin is where a miss goes. Fetch may be called concurrently, though not twice at a time for one
// block. The block it returns is verified, and the origin has written it to the store already.
type Origin interface {
	Fetch(ctx context.Context, w Want) (blocks.Block, error)
}

// Config says what a cache is made of.
type Config struct {
	MemoryBytes   int64         // of the memory tier; zero means 96 MiB
	Store         *Store        // the disk tier; nil means none. The cache does not close it.
	Origin        Origin        // where misses go; nil means nowhere
	Grace         time.Duration // how long a fetch goes on after its last waiter left; zero means 250 ms
	PrefetchBytes int64         // bytes of prefetches in flight; zero means 32 MiB
	Logger        *slog.Logger  // nil means silence
}

// Cache keeps blocks in memory over a store over an origin. All methods may be called concurrently.
type Cache struct {
	store *Store
	mem   *memory
	log   *slog.Logger

	flights  flights
	prefetch budget
	local    atomic.Int64 // answers without the origin
	inMemory atomic.Int64 // answers from memory

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	life   sync.RWMutex // guards closed
	closed bool
	tasks  sync.WaitGroup
}

// New makes a cache. Close ends it.
func New(cfg Config) (*Cache, error) {
	if cfg.MemoryBytes < 0 || cfg.Grace < 0 || cfg.PrefetchBytes < 0 {
		return nil, errors.New("new cache: a negative size or time")
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 96 << 20
	}
	if cfg.Grace == 0 {
		cfg.Grace = 250 * time.Millisecond
	}
	if cfg.PrefetchBytes == 0 {
		cfg.PrefetchBytes = 32 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	mem, err := newMemory(cfg.MemoryBytes)
	if err != nil {
		return nil, err
	}
	c := &Cache{store: cfg.Store, mem: mem, log: cfg.Logger}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.prefetch.left = cfg.PrefetchBytes
	c.flights = flights{origin: cfg.Origin, grace: cfg.Grace, base: c.ctx, tasks: &c.tasks, mem: mem}
	return c, nil
}

func (c *Cache) enter() error {
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed {
		return ErrClosed
	}
	c.tasks.Add(1)
	return nil
}

func (c *Cache) exit() { c.tasks.Done() }

// Get returns a block from memory, the store or the origin. Readers of one block share one fetch,
// which goes on while any of them waits; the end of ctx ends only this one's waiting. The error
// wraps ErrNotFound if the block is not here and there is no origin, else it is the origin's.
func (c *Cache) Get(ctx context.Context, w Want) (blocks.Block, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.exit()
	b, err := c.here(ctx, w)
	if err == nil || !errors.Is(err, ErrNotFound) || c.flights.origin == nil || checkCID(w.CID) != nil {
		return b, err
	}
	b, err = c.flights.get(ctx, w)
	if err != nil {
		return nil, err
	}
	c.fill(ctx, w, b)
	return b, nil
}

// Local returns a block from memory or the store, else an error that wraps ErrNotFound.
func (c *Cache) Local(ctx context.Context, w Want) (blocks.Block, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.exit()
	return c.here(ctx, w)
}

func (c *Cache) here(ctx context.Context, w Want) (blocks.Block, error) {
	if b, ok := inline(w.CID); ok {
		return b, nil
	}
	if err := checkCID(w.CID); err != nil {
		return nil, err
	}
	if b, ok := c.mem.get(w.CID); ok {
		c.local.Add(1)
		c.inMemory.Add(1)
		c.fill(ctx, w, b)
		return b, nil
	}
	if c.store == nil {
		return nil, fmt.Errorf("get %s: %w", w.CID, ErrNotFound)
	}
	b, err := c.store.Get(ctx, w)
	if err != nil {
		return nil, err
	}
	c.local.Add(1)
	c.mem.put(b)
	return b, nil
}

// fill copies a block that came from memory or another's fetch into the body the want names.
func (c *Cache) fill(ctx context.Context, w Want, b blocks.Block) {
	if c.store == nil || !c.store.lacks(w, b) || c.store.enter() != nil {
		return
	}
	defer c.store.exit()
	c.store.fill(ctx, w, b)
}

// getWorkers is how many wants of one GetMany are worked on at a time.
const getWorkers = 16

// GetMany gets many blocks, several at a time. fn is called once for each want, by one goroutine at
// a time, in the order of arrival; when GetMany returns all calls are done.
func (c *Cache) GetMany(ctx context.Context, ws []Want, fn func(i int, b blocks.Block, err error)) {
	var next atomic.Int64
	var mu sync.Mutex // one call of fn at a time
	var wg sync.WaitGroup
	for range min(getWorkers, len(ws)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ws); i = int(next.Add(1)) - 1 {
				b, err := c.Get(ctx, ws[i])
				mu.Lock()
				fn(i, b, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// Put keeps blocks, which the caller has verified, in the store and in memory.
func (c *Cache) Put(ctx context.Context, es []Entry) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.exit()
	if c.store != nil {
		if err := c.store.Put(ctx, es); err != nil {
			return err
		}
	}
	for _, e := range es {
		if e.Block == nil {
			return errors.New("put: no block in an entry")
		}
		if _, ok := inline(e.Block.Cid()); ok {
			continue
		}
		if err := checkCID(e.Block.Cid()); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		c.mem.put(e.Block)
	}
	return nil
}

// Has reports whether a block is in memory or the store.
func (c *Cache) Has(ctx context.Context, id cid.Cid) (bool, error) {
	_, err := c.SizeOf(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// SizeOf returns the length in bytes of a block in memory or the store, else an error that wraps ErrNotFound.
func (c *Cache) SizeOf(ctx context.Context, id cid.Cid) (int, error) {
	if err := c.enter(); err != nil {
		return 0, err
	}
	defer c.exit()
	if b, ok := inline(id); ok {
		return len(b.RawData()), nil
	}
	if err := checkCID(id); err != nil {
		return 0, err
	}
	if b, ok := c.mem.get(id); ok {
		return len(b.RawData()), nil
	}
	if c.store == nil {
		return 0, fmt.Errorf("size of %s: %w", id, ErrNotFound)
	}
	return c.store.SizeOf(ctx, id)
}

// Delete forgets blocks in memory and in the store.
func (c *Cache) Delete(ctx context.Context, ids []cid.Cid) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.exit()
	var err error
	if c.store != nil {
		err = c.store.Delete(ctx, ids)
	}
	for _, id := range ids {
		if checkCID(id) == nil {
			c.mem.delete(id)
		}
	}
	return err
}

// CacheStats are figures of a [Cache]. Counts are since it was made.
type CacheStats struct {
	MemoryBytes int64 // in the memory tier
	Local       int64 // gets answered by memory or store
	InMemory    int64 // of those, by memory
	Fetches     int64 // fetches begun at the origin
	Failed      int64 // of those, the ones that failed
	Dropped     int64 // prefetches dropped for want of room
}

// Stats returns the cache's figures.
func (c *Cache) Stats() CacheStats {
	return CacheStats{
		MemoryBytes: c.mem.bytes(), Local: c.local.Load(), InMemory: c.inMemory.Load(),
		Fetches: c.flights.begun.Load(), Failed: c.flights.failed.Load(), Dropped: c.prefetch.dropped.Load(),
	}
}

// Close ends fetches and waits for calls in progress. The store stays open.
func (c *Cache) Close() error {
	c.life.Lock()
	if c.closed {
		c.life.Unlock()
		return nil
	}
	c.closed = true
	c.life.Unlock()
	c.cancel()
	c.tasks.Wait()
	c.mem.close()
	return nil
}
