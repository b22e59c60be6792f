package blockcache

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// StoreConfig says where a store lives and what it may use.
type StoreConfig struct {
	DB     *badger.DB // open; must outlive the store. Needed.
	Prefix []byte     // of every key the store uses; no other user of DB may have keys below it
	Dir    string     // folder of packs and bodies; made if missing. Needed.

	QuotaBytes   uint64 // what packs and bodies may take together, in bytes; zero means no bound of its own
	MinFreeBytes uint64 // what must stay free on the file system, in bytes; zero means what the database needs

	// UncleanStop says that the machine or program may have stopped without Close. The store also
	// finds out by itself; this forces it.
	UncleanStop bool

	Lender Lender // opens lent files; nil means that there are none

	PackBytes    int64         // where a pack ends, in bytes; zero means 1 GiB, or less if the quota is small
	OpenFiles    int           // descriptors kept open; zero means 256
	TouchPeriod  time.Duration // how often access times are written down; zero means 1 minute
	VerifyBytesS int64         // bytes a second that checking after an unclean stop may read; zero means 512 MiB
	Logger       *slog.Logger  // nil means silence

	files     filesystem                    // nil means Dir; for tests
	syncIndex func(sync func() error) error // runs around the index's sync; for tests
}

// withDefaults fills in what was left zero.
func (c StoreConfig) withDefaults() (StoreConfig, error) {
	if c.DB == nil || c.Dir == "" && c.files == nil {
		return c, errors.New("open store: DB and Dir are needed")
	}
	if c.PackBytes < 0 || c.OpenFiles < 0 || c.TouchPeriod < 0 || c.VerifyBytesS < 0 {
		return c, errors.New("open store: a negative size, number or period")
	}
	if c.PackBytes == 0 {
		c.PackBytes = maxPackBytes
		if c.QuotaBytes > 0 {
			c.PackBytes = max(1<<20, min(c.PackBytes, int64(min(c.QuotaBytes, 1<<40)/16)))
		}
	}
	c.PackBytes = min(c.PackBytes, maxPackBytes)
	if c.OpenFiles == 0 {
		c.OpenFiles = 256
	}
	if c.TouchPeriod == 0 {
		c.TouchPeriod = time.Minute
	}
	if c.VerifyBytesS == 0 {
		c.VerifyBytesS = 512 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return c, nil
}

// Store keeps blocks on the disk: bytes in packs and bodies, the index in a database. All methods
// may be called concurrently.
type Store struct {
	cfg       StoreConfig
	log       *slog.Logger
	fs        filesystem
	fds       *fdTable
	ix        *index
	epoch     uint64 // counts unclean stops; files verified in an earlier one are suspect
	packBytes int64
	quota     int64 // 0: none

	mu     sync.RWMutex // guards the four maps; a leaf lock
	packs  map[uint64]*pack
	bodies map[uint64]*body   // writers' ones too
	byFile map[string]*body   // by key of the root; never a writer's one
	loans  map[string][]*body // by name of the lent file; writers' ones too

	beginMu sync.Mutex // taken before mu
	packMu  sync.Mutex // taken before mu
	active  *pack      // guarded by packMu; may be nil

	idMu   sync.Mutex
	lastID uint64 // guarded by idMu

	dirtyMu  sync.Mutex
	dirty    map[*blob]struct{} // guarded by dirtyMu: written since the last sync
	newFiles atomic.Bool        // files were created or removed since the last sync
	syncs    syncGate
	lost     error // of a sync of folders or index that failed; only one goroutine syncs

	evicting chan struct{} // holds one token: only one goroutine makes room
	flowing  chan struct{} // bounds the goroutines that start writeback
	wake     chan struct{} // tells Run that there is work
	urgent   chan *body    // bodies somebody would like verified now
	buffers  sync.Pool     // *[]byte, 1 MiB

	clock       atomic.Uint64 // counts uses; files carry the count of their last one
	used        atomic.Int64  // bytes of packs and bodies, reserved ones included
	lent        atomic.Int64  // bytes of bodies that lie in lent files
	blocks      atomic.Int64
	pinnedBytes atomic.Int64
	pinGen      atomic.Uint64 // changes with every Pin and Unpin
	unpinGen    atomic.Uint64 // changes with every Unpin
	stuck       atomic.Bool   // evicting ahead found nothing to evict; not tried again for each Put
	pinMu       sync.Mutex    // makes changes of pins one after another; taken before stripes
	counts      counters

	life   sync.RWMutex // held shared by every call while it starts; guards closed
	closed bool
	tasks  sync.WaitGroup // calls and goroutines in progress
}

// OpenStore opens or makes a store. After an unclean stop it mends what it finds: entries of the
// index without bytes are dropped, records without entries are indexed again, torn tails and
// bodies that no entry names are removed.
func OpenStore(cfg StoreConfig) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.files == nil {
		if cfg.files, err = newOSFiles(cfg.Dir); err != nil {
			return nil, err
		}
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, fs: cfg.files,
		fds:       newFDTable(cfg.files, cfg.OpenFiles),
		ix:        &index{db: cfg.DB, prefix: append([]byte(nil), cfg.Prefix...), seed: maphash.MakeSeed(), flush: syncPath},
		packBytes: cfg.PackBytes, quota: int64(min(cfg.QuotaBytes, 1<<62)),
		packs: make(map[uint64]*pack), bodies: make(map[uint64]*body), byFile: make(map[string]*body),
		loans:    make(map[string][]*body),
		dirty:    make(map[*blob]struct{}),
		evicting: make(chan struct{}, 1), flowing: make(chan struct{}, 2),
		wake: make(chan struct{}, 1), urgent: make(chan *body, 64),
	}
	s.ix.keepRoom()
	s.buffers.New = func() any { b := make([]byte, 0, 1<<20); return &b }
	if err := s.recover(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.fds.close())
	}
	return s, nil
}

// enter begins a call; exit ends it.
func (s *Store) enter() error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return ErrClosed
	}
	s.tasks.Add(1)
	return nil
}

func (s *Store) exit() { s.tasks.Done() }

// Close waits for calls in progress, makes everything durable and writes down that the stop was
// clean. Run must have returned or be about to. The database stays open.
func (s *Store) Close() error {
	s.life.Lock()
	if s.closed {
		s.life.Unlock()
		return nil
	}
	s.closed = true
	s.life.Unlock()
	s.tasks.Wait()
	err := s.dropWriters()
	if err == nil {
		err = s.syncNow()
	}
	if err == nil {
		err = s.saveClean()
	}
	if err = errors.Join(err, s.fds.close()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// dropWriters removes the bodies of writers that were never committed.
func (s *Store) dropWriters() error {
	s.mu.RLock()
	var left []*body
	for _, b := range s.bodies {
		if !b.committed.Load() {
			left = append(left, b)
		}
	}
	s.mu.RUnlock()
	var errs []error
	for _, b := range left {
		b.leaving.Store(true)
		errs = append(errs, s.dropBody(context.Background(), b))
	}
	return errors.Join(errs...)
}

// nextID returns a name for a new file that no file ever had: the time, made to grow.
func (s *Store) nextID() uint64 {
	s.idMu.Lock()
	defer s.idMu.Unlock()
	s.lastID = max(s.lastID+1, uint64(time.Now().UnixNano()))
	return s.lastID
}

// sawID keeps nextID above the IDs that are in use.
func (s *Store) sawID(id uint64) {
	s.idMu.Lock()
	defer s.idMu.Unlock()
	s.lastID = max(s.lastID, id)
}

// fullError adds ErrFull to what the file system says when it has no room.
func fullError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// nudge wakes Run.
func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
