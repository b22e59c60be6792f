package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/semaphore"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange"
)

// What callers tell apart.
var (
	// ErrNoManifest says that no manifest is known that has the block.
	ErrNoManifest = errors.New("no manifest is known for it")
	// ErrForged says that a manifest's stripe gave other bytes than were asked for.
	ErrForged = errors.New("manifest is forged")
	// ErrTooLarge says that a stripe takes more memory than may be used.
	ErrTooLarge = errors.New("stripe is too large")
)

// Engine fetches blocks from peers, each verified against its CID and given to the store. It never calls Rescue for
// them. missing, if not nil, is called when nobody is known who has the block, perhaps more than once, and must
// not block; the fetch goes on.
type Engine interface {
	FetchPlain(ctx context.Context, w exchange.Want, missing func()) (blocks.Block, error)
}

// Store is the local store. Get's error wraps [exchange.ErrNotFound] for a block that is not here.
type Store interface {
	Get(ctx context.Context, c cid.Cid) (blocks.Block, error)
	Put(ctx context.Context, arrivals []exchange.Arrival) error
}

// Config says what is rebuilt from where. Engine, Store and Register are required.
type Config struct {
	Engine   Engine
	Store    Store
	Register *Register
	// Ask asks peers which manifests they know for a dataset; nil asks nobody.
	Ask func(ctx context.Context, dataset cid.Cid) ([]cid.Cid, error)
	// News gives a number that is another one when peers have come that Ask did not ask before; nil: it is never known.
	News func() uint64

	Bytes     int64         // of stripes in memory, all together; default 64 MiB
	Stripe    int64         // bytes of the largest stripe, which is rebuilt alone where it is above Bytes; default 256 MiB, 256 blocks of 1 MiB
	MoreAfter time.Duration // without a shard, after which one more is asked for; default 400 ms
	NextAfter time.Duration // without a block, after which another manifest is tried beside; default 1 s
	GiveUp    time.Duration // after which too few shards being known of is final; default 2 s
	AskEvery  time.Duration // between two askings of the same peers for one dataset; default 10 s
	AskNews   time.Duration // between two askings for one dataset when other peers have come; default 500 ms
	Open      int           // manifests kept open; default 64
	Logger    *slog.Logger  // default: nothing is logged
}

// Recovery rebuilds lost blocks. Its methods are safe for concurrent use.
type Recovery struct {
	cfg    Config
	log    *slog.Logger
	memory *semaphore.Weighted
	counts counts
	work   sync.WaitGroup

	mu        sync.Mutex // guards what follows
	closed    bool
	flights   map[flightKey]*flight
	manifests map[cid.Cid]*opened
	forged    map[cid.Cid]struct{}  // manifests that lied; bounded as Open is
	asked     map[cid.Cid]asking    // datasets that peers were asked about
	told      map[cid.Cid][]cid.Cid // what they said, of those
	helped    map[cid.Cid]cid.Cid   // the manifest that helped last, by dataset
}

// New makes a Recovery.
func New(cfg Config) (*Recovery, error) {
	if cfg.Engine == nil || cfg.Store == nil || cfg.Register == nil {
		return nil, errors.New("recovery: engine, store and register are needed")
	}
	cfg.Bytes = cmp.Or(cfg.Bytes, 64<<20)
	cfg.Stripe = max(cfg.Bytes, cmp.Or(cfg.Stripe, 256<<20))
	cfg.MoreAfter = cmp.Or(cfg.MoreAfter, 400*time.Millisecond)
	cfg.NextAfter = cmp.Or(cfg.NextAfter, time.Second)
	cfg.GiveUp = cmp.Or(cfg.GiveUp, 2*time.Second)
	cfg.AskEvery = cmp.Or(cfg.AskEvery, 10*time.Second)
	cfg.AskNews = min(cmp.Or(cfg.AskNews, 500*time.Millisecond), cfg.AskEvery)
	cfg.Open = cmp.Or(cfg.Open, 64)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	return &Recovery{cfg: cfg, log: cfg.Logger, memory: semaphore.NewWeighted(cfg.Bytes), flights: make(map[flightKey]*flight),
		manifests: make(map[cid.Cid]*opened), forged: make(map[cid.Cid]struct{}), asked: make(map[cid.Cid]asking),
		told: make(map[cid.Cid][]cid.Cid), helped: make(map[cid.Cid]cid.Cid)}, nil
}

// Rescue rebuilds a block from any manifest that is known for its dataset. The error wraps [ErrNoManifest] where
// none is, [erasure.ErrTooFew] where nobody is known to have enough shards, or why else one did not help. It waits
// for shards that somebody has as long as ctx lasts.
func (r *Recovery) Rescue(ctx context.Context, w exchange.Want) (blocks.Block, error) {
	r.counts.rescues.Add(1)
	b, err := r.rescue(ctx, w)
	if err != nil {
		r.counts.failures.Add(1)
		return nil, fmt.Errorf("rebuild block %s: %w", w.CID, err)
	}
	r.counts.blocks.Add(1)
	return b, nil
}

// by rebuilds a block with the help of one manifest.
func (r *Recovery) by(ctx context.Context, c, root cid.Cid, w exchange.Want) (blocks.Block, error) {
	m, err := r.open(ctx, c)
	if err != nil {
		return nil, err
	}
	if !m.Root().Equals(root) {
		return nil, fmt.Errorf("manifest %s is for another dataset: %w", c, erasure.ErrNotFound)
	}
	found, err := m.Find(ctx, w.CID)
	if err != nil {
		return nil, err
	}
	data, err := r.stripe(ctx, m, found)
	if errors.Is(err, ErrForged) {
		r.distrust(c, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := verified(w.CID, data[found.Shard])
	if err != nil { // the manifest names the bytes by another CID of the same hash, or so it says
		r.distrust(c, err)
		return nil, err
	}
	r.trust(ctx, m)
	return b, nil
}

// distrust notes that a manifest has lied.
func (r *Recovery) distrust(c cid.Cid, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.forged) >= r.cfg.Open {
		clear(r.forged)
	}
	if _, again := r.forged[c]; !again {
		r.log.Warn("a manifest lies and is not used any more", "manifest", c, "err", why)
	}
	r.forged[c] = struct{}{}
	delete(r.manifests, c)
}

// trust notes that a manifest has helped. One that peers told of is remembered from then on.
func (r *Recovery) trust(ctx context.Context, m *erasure.Manifest) {
	r.mu.Lock()
	again := r.helped[m.Root()].Equals(m.CID())
	if !again && len(r.helped) >= maxAsked {
		clear(r.helped)
	}
	r.helped[m.Root()] = m.CID()
	r.mu.Unlock()
	if again {
		return
	}
	if err := r.cfg.Register.Add(ctx, m.Root(), m.CID()); err != nil && ctx.Err() == nil {
		r.log.Warn("a manifest is not remembered", "manifest", m.CID(), "err", err)
	}
}

// Close waits for what is under way, whose callers have to end it, and refuses more.
func (r *Recovery) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.work.Wait()
}

// verified makes bytes the block that was asked for, if they are.
func verified(c cid.Cid, data []byte) (blocks.Block, error) {
	got, err := c.Prefix().Sum(data)
	if err != nil {
		return nil, fmt.Errorf("hash what was rebuilt: %w", err)
	}
	if !got.Equals(c) {
		return nil, ErrForged
	}
	return blocks.NewBlockWithCid(data, c)
}
