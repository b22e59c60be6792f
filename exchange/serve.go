package exchange

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// Getter is the part of a [Store] that serving needs.
type Getter interface {
	Get(ctx context.Context, c cid.Cid) (blocks.Block, error)
	SizeOf(ctx context.Context, c cid.Cid) (int, error)
}

// ServeConfig says what is served and how much of it. Zero values mean the defaults.
type ServeConfig struct {
	Store          Getter
	MaxWants       int     // entries kept of one peer's want list; default 1,024
	TotalWants     int     // the same of all peers, each of which may have 64 at least; default 131,072
	SmallBlock     int     // bytes up to which want-have is answered with the block; default 1 KiB, -1 for none
	MessageBytes   int     // a message is sent when it holds this much; default 1 MiB
	PeerBytes      int     // read or being sent to one peer; default 4 MiB
	TotalBytes     int     // the same for all peers, and as much again for those with nothing in flight; default 32 MiB
	BytesPerSecond float64 // to all peers; 0 is no limit
	PeerPerSecond  float64 // to one peer; 0 is no limit
	Workers        int     // readers of the store; default 4

	PricePerMiB Amount // asked for blocks; 0 serves them free, and without limit of credit
	CreditBytes int64  // served to a peer before it has paid for them; default 8 MiB
	Accounts    int    // peers whose debts are remembered; default 4,096
	Till        Till   // takes payments; without one nobody can pay

	// Manifests returns which manifests of a dataset are known, at once; nil knows none.
	Manifests func(root cid.Cid) []cid.Cid

	Logger *slog.Logger
}

func (c ServeConfig) withDefaults() ServeConfig {
	c.MaxWants = cmp.Or(c.MaxWants, 1024)
	c.TotalWants = cmp.Or(c.TotalWants, 128<<10)
	c.SmallBlock = cmp.Or(c.SmallBlock, 1024)
	c.MessageBytes = min(maxBlockBytes, cmp.Or(c.MessageBytes, 1<<20))
	c.PeerBytes = cmp.Or(c.PeerBytes, 4<<20)
	c.TotalBytes = cmp.Or(c.TotalBytes, 32<<20)
	c.Workers = cmp.Or(c.Workers, 4)
	c.CreditBytes = cmp.Or(c.CreditBytes, 8<<20)
	c.Accounts = cmp.Or(c.Accounts, 4096)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// server answers the want lists of peers from a store. Peers take turns by bytes: each turn a peer
// gets one message's worth, and what a message had too much counts against its next turn.
//
// A ledger enters the ring when it has something to answer and room in flight; workers take it from
// there, read its most urgent wants and hand the message to the network.
type server struct {
	cfg      ServeConfig
	total    *rate.Limiter // nil for no limit
	overflow atomic.Uint64 // wants that found a list full

	mu       sync.Mutex
	changed  *sync.Cond // on mu: the ring or inFlight may let a worker go on, or stopped
	stopped  bool
	ring     []*ledger                       // whose turn is next; each once, with onRing set
	inFlight int                             // bytes, of all ledgers
	wants    int                             // of all ledgers
	waiting  map[string]map[*demand]struct{} // by multihash, as the store may have it under another CID
	ledgers  map[*ledger]struct{}            // open ones
	tabs     tabs
	charged  Amount // asked for blocks that were sent
	received Amount // in payments for them
}

func newServer(cfg ServeConfig) *server {
	s := &server{
		cfg:     cfg.withDefaults(),
		waiting: make(map[string]map[*demand]struct{}),
		ledgers: make(map[*ledger]struct{}),
	}
	s.tabs = newTabs(&s.cfg)
	s.changed = sync.NewCond(&s.mu)
	s.total = newLimiter(cfg.BytesPerSecond)
	return s
}

// run answers until ctx ends and no worker is left.
func (s *server) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stopped = true
		s.changed.Broadcast()
	})()
	var workers sync.WaitGroup
	for range s.cfg.Workers {
		workers.Go(func() { s.worker(ctx) })
	}
	workers.Wait()
}

// open begins a ledger for a peer. Its answers go to send, which must not block and must call the
// reply's done once.
func (s *server) open(p peer.ID, send func(*reply)) *ledger {
	l := &ledger{s: s, peer: p, send: send, wants: make(map[cid.Cid]*demand)}
	s.mu.Lock()
	l.tab = s.tabs.open(p)
	s.ledgers[l] = struct{}{}
	s.mu.Unlock()
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.limit = newLimiter(s.cfg.PeerPerSecond)
	return l
}

// notifyNewBlocks answers who has waited for blocks that have just come into the store.
func (s *server) notifyNewBlocks(cids []cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return
	}
	for _, c := range cids {
		for w := range s.waiting[string(c.Hash())] {
			w.ledger.queueLocked(w)
			w.ledger.readyLocked()
		}
	}
}

// worker answers one peer after another.
func (s *server) worker(ctx context.Context) {
	for {
		l := s.next()
		if l == nil {
			return
		}
		m := l.fill(ctx)
		bytes := m.weight()
		s.mu.Lock()
		l.filling = false
		s.takeLocked(l, bytes-s.cfg.MessageBytes)
		l.debt = max(0, l.debt+bytes-s.cfg.MessageBytes)
		l.readyLocked()
		s.changed.Broadcast()
		s.mu.Unlock()
		if m.empty() {
			s.sent(l, bytes, nil)
			continue
		}
		m.done = func(err error) { s.sent(l, bytes, err) }
		m.pace = func(n int) error { return s.pace(l, n) }
		l.send(m)
	}
}

// next waits for the ledger whose turn it is and counts a message in flight for it. It returns nil
// when the server has stopped.
func (s *server) next() *ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped {
			return nil
		}
		l := s.turnLocked()
		if l == nil {
			s.changed.Wait()
			continue
		}
		l.onRing = false
		if l.debt >= s.cfg.MessageBytes {
			l.debt -= s.cfg.MessageBytes // it had this turn's share before
			l.readyLocked()
			continue
		}
		if l.idleLocked() {
			continue
		}
		s.takeLocked(l, s.cfg.MessageBytes)
		l.filling = l.tab != nil // what a message costs is known when it is filled
		l.readyLocked()          // another worker may fill its next message meanwhile
		return l
	}
}

// turnLocked takes the ledger whose turn it is off the ring; nil means that nobody may be served now. Beyond
// TotalBytes only peers with nothing in flight go on, within as many bytes again: peers that ask and do not read
// hold up nobody else.
func (s *server) turnLocked() *ledger {
	after := s.inFlight + s.cfg.MessageBytes
	full := s.inFlight > 0 && after > s.cfg.TotalBytes
	for i, l := range s.ring {
		if !full || l.inFlight == 0 && after <= 2*s.cfg.TotalBytes {
			s.ring = slices.Delete(s.ring, i, i+1)
			return l
		}
	}
	return nil
}

// takeLocked counts bytes as in flight: a whole message at first, then what it turned out to hold.
func (s *server) takeLocked(l *ledger, bytes int) {
	l.inFlight += bytes
	s.inFlight += bytes
}

// sent gives back what a message had in flight.
func (s *server) sent(l *ledger, bytes int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		l.forgetLocked() // a peer that lost answers asks again
	}
	s.takeLocked(l, -bytes)
	l.readyLocked()
	s.changed.Broadcast()
}

// pace waits until the rate limits let n bytes go to a peer.
func (s *server) pace(l *ledger, n int) error {
	return errors.Join(waitBytes(l.ctx, l.limit, n), waitBytes(l.ctx, s.total, n))
}

// newLimiter returns a token bucket of bytes, or nil for no limit. It lets a quarter of a second's
// bytes go at once.
func newLimiter(bytesPerSecond float64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), max(64<<10, int(bytesPerSecond/4)))
}

// waitBytes takes n bytes out of a bucket, in parts when it is smaller.
func waitBytes(ctx context.Context, l *rate.Limiter, n int) error {
	for l != nil && n > 0 {
		part := min(n, l.Burst())
		if err := l.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}
