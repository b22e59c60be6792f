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

	Bytes     int64         // of stripes in memory, all together; default 64 MiB
	MoreAfter time.Duration // without a shard, after which one more is asked for; default 400 ms
	AskEvery  time.Duration // between two askings for one dataset; default 30 s
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
	forged    map[cid.Cid]struct{} // manifests that lied; bounded as Open is
	asked     map[cid.Cid]time.Time
}

// New makes a Recovery.
func New(cfg Config) (*Recovery, error) {
	if cfg.Engine == nil || cfg.Store == nil || cfg.Register == nil {
		return nil, errors.New("recovery: engine, store and register are needed")
	}
	cfg.Bytes = cmp.Or(cfg.Bytes, 64<<20)
	cfg.MoreAfter = cmp.Or(cfg.MoreAfter, 400*time.Millisecond)
	cfg.AskEvery = cmp.Or(cfg.AskEvery, 30*time.Second)
	cfg.Open = cmp.Or(cfg.Open, 64)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	return &Recovery{cfg: cfg, log: cfg.Logger, memory: semaphore.NewWeighted(cfg.Bytes), flights: make(map[flightKey]*flight),
		manifests: make(map[cid.Cid]*opened), forged: make(map[cid.Cid]struct{}), asked: make(map[cid.Cid]time.Time)}, nil
}

// Rescue rebuilds a block from any manifest that is known for its dataset. The error wraps [ErrNoManifest] where
// none is, or why the last one did not help. It waits for shards as long as ctx lasts.
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

func (r *Recovery) rescue(ctx context.Context, w exchange.Want) (blocks.Block, error) {
	known, err := r.known(ctx, w)
	if err != nil {
		return nil, err
	}
	var failed error = ErrNoManifest
	for _, c := range known {
		b, err := r.by(ctx, c, w)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !errors.Is(err, erasure.ErrNotFound) {
			failed = err
		}
	}
	return nil, failed
}

// by rebuilds a block with the help of one manifest.
func (r *Recovery) by(ctx context.Context, c cid.Cid, w exchange.Want) (blocks.Block, error) {
	m, err := r.open(ctx, c)
	if err != nil {
		return nil, err
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
	return b, nil
}

// known lists the manifests of a want's dataset. Peers are asked where none is known, and once in a while.
func (r *Recovery) known(ctx context.Context, w exchange.Want) ([]cid.Cid, error) {
	root := w.Dataset
	if !root.Defined() {
		root = w.CID
	}
	known, err := r.cfg.Register.Of(ctx, root)
	if err != nil {
		return nil, err
	}
	known = r.trusted(known)
	if len(known) > 0 || r.cfg.Ask == nil || !r.mayAsk(root) {
		return known, nil
	}
	told, err := r.cfg.Ask(ctx, root)
	if err != nil {
		return nil, err
	}
	var checked []cid.Cid
	for _, c := range r.trusted(told) {
		m, err := r.open(ctx, c)
		if err != nil || !m.Root().Equals(root) {
			continue // it is of no use, and not kept
		}
		if err := r.cfg.Register.Add(ctx, root, c); err != nil {
			return nil, err
		}
		checked = append(checked, c)
	}
	return checked, nil
}

// mayAsk says whether it is time to ask peers about a dataset, and that it is done.
func (r *Recovery) mayAsk(root cid.Cid) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if last, ok := r.asked[root]; ok && now.Sub(last) < r.cfg.AskEvery {
		return false
	}
	if len(r.asked) >= 1024 {
		for c, at := range r.asked {
			if now.Sub(at) >= r.cfg.AskEvery || len(r.asked) >= 2048 {
				delete(r.asked, c)
			}
		}
	}
	r.asked[root] = now
	return true
}

func (r *Recovery) trusted(list []cid.Cid) (out []cid.Cid) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range list {
		if _, lied := r.forged[c]; !lied {
			out = append(out, c)
		}
	}
	return out
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
