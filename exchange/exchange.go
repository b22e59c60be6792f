package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"golang.org/x/time/rate"
)

// Config says what an [Exchange] works with. Network, Providers and Store are required.
type Config struct {
	// Network is started by Run. One that also has Wait() is waited for; one that also has
	// NotifyNewBlocks(...cid.Cid) is told what came into the store, so that it can serve who waits.
	Network   Network
	Providers ProviderMap
	Store     Store
	// Links returns the children of a block with what is known of them, in order. Download needs it.
	Links func(Want, blocks.Block) ([]Want, error)
	// Rescue gets a block in another way than from a peer that has it, such as from its stripe. It is called beside the
	// fetch when nobody is known who has the block, or it did not come within Limits.RescueDelay, and again later if it
	// failed; many at a time. What it returns has been verified. Nil is no such way.
	Rescue func(context.Context, Want) (blocks.Block, error)
	// Announcer takes announcements; by default they go to Providers at once and may fail.
	Announcer Announcer
	// Purse pays for blocks. Without one nothing is bought, whatever the limits allow.
	Purse  Purse
	Limits Limits       // zero fields take their defaults
	Logger *slog.Logger // default: nothing is logged
}

// Announcer makes known that this node holds content.
type Announcer interface {
	// Announce returns once the announcement is made or durably queued.
	Announce(ctx context.Context, c cid.Cid) error
}

// Exchange fetches blocks from peers. All methods are safe for concurrent use.
type Exchange struct {
	cfg    Config
	limits Limits
	log    *slog.Logger

	intents   atomic.Uint64
	slots     chan struct{}       // a place for each caller that waits
	rescuers  chan struct{}       // a place for each rescue that runs
	shuts     rate.Sometimes      // peers that are shut out are named; strangers without end would fill the log
	requests  chan any            // of callers: request, or forgetEvent after it
	events    chan any            // of the network; not read while the store is behind
	answers   chan any            // of dials, searches and the store
	questions chan func(*machine) // about the machine
	storing   *stage
	storeBad  atomic.Bool // the last Put failed
	till      *till

	life    context.Context // Run's; set before running is closed
	running chan struct{}   // closed when Run begins
	done    chan struct{}   // closed when Run has ended
	begun   atomic.Bool
	tasks   sync.WaitGroup // dials, searches, store workers, downloads, payments

	downloads downloads
}

// New makes an exchange. It does nothing until Run is called.
func New(cfg Config) (*Exchange, error) {
	switch {
	case cfg.Network == nil:
		return nil, fmt.Errorf("make exchange: %w: no network", ErrInvalid)
	case cfg.Providers == nil:
		return nil, fmt.Errorf("make exchange: %w: no provider map", ErrInvalid)
	case cfg.Store == nil:
		return nil, fmt.Errorf("make exchange: %w: no store", ErrInvalid)
	}
	limits := cfg.Limits.withDefaults()
	if err := limits.validate(); err != nil {
		return nil, fmt.Errorf("make exchange: %w", err)
	}
	if cfg.Purse == nil {
		limits.Spending = Spending{}
	}
	e := &Exchange{
		cfg: cfg, limits: limits, log: cfg.Logger,
		slots:     make(chan struct{}, limits.Wants),
		rescuers:  make(chan struct{}, limits.Rescues),
		shuts:     rate.Sometimes{First: 100, Interval: time.Second},
		requests:  make(chan any, 256),
		events:    make(chan any, 64),
		answers:   make(chan any, 256),
		questions: make(chan func(*machine)),
		running:   make(chan struct{}),
		done:      make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.storing, e.till = newStage(), newTill()
	e.downloads = downloads{open: make(map[downloadKey]*transfer), places: make(chan struct{}, limits.Downloads)}
	return e, nil
}

// Run works until ctx ends and everything it began has ended. It may be called once.
func (e *Exchange) Run(ctx context.Context) error {
	if e.begun.Swap(true) {
		return errors.New("run exchange: it ran already")
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(ErrClosed)
	e.life = ctx
	l := &loop{Exchange: e, machine: newMachine(e.limits), start: time.Now(), callers: make(map[intentID]caller), rescues: make(map[cid.Cid]context.CancelFunc)}
	close(e.running)
	defer close(e.done)
	defer e.tasks.Wait()
	defer e.downloads.close()
	if err := e.cfg.Network.Start(ctx, inbox{e}); err != nil {
		stop(ErrClosed)
		return fmt.Errorf("run exchange: %w", err)
	}
	for range e.limits.StoreWorkers {
		e.tasks.Go(func() { e.storeArrivals(ctx) })
	}
	l.run(ctx)
	stop(ErrClosed)
	if n, ok := e.cfg.Network.(interface{ Wait() }); ok {
		n.Wait()
	}
	return nil
}

// Announce makes known that this node holds c.
func (e *Exchange) Announce(ctx context.Context, c cid.Cid) error {
	announce := e.cfg.Providers.Provide
	if e.cfg.Announcer != nil {
		announce = e.cfg.Announcer.Announce
	}
	if err := announce(ctx, c); err != nil {
		return fmt.Errorf("announce %s: %w", c, err)
	}
	return nil
}

// Stats returns the figures so far. They are zero before Run and after it.
func (e *Exchange) Stats() Stats {
	var s Stats
	e.ask(func(m *machine) { s = m.figures() })
	s.Downloads, s.FirstByte = e.downloads.figures()
	return s
}

// Peers returns what is known of the peers that are connected or shut out, in no particular order.
// It is empty before Run and after it.
func (e *Exchange) Peers() []PeerInfo {
	var infos []PeerInfo
	e.ask(func(m *machine) {
		for _, p := range m.connected {
			infos = append(infos, p.info(m.now))
		}
		for _, p := range m.known {
			if p.banned(m.now) {
				infos = append(infos, p.info(m.now))
			}
		}
	})
	return infos
}

// ask runs f in the goroutine that owns the machine, and waits for it. It does nothing when Run is
// not running.
func (e *Exchange) ask(f func(*machine)) {
	select {
	case <-e.running:
	default:
		return
	}
	answered := make(chan struct{})
	select {
	case e.questions <- func(m *machine) { f(m); close(answered) }:
		<-answered
	case <-e.done:
	}
}
