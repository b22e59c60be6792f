package provider

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"

	"github.com/holdfastfs/holdfast/exchange/payment/durable"
	"github.com/holdfastfs/holdfast/uploader/provider/pb"
)

// Keys of log lines.
const (
	keyPeer  = "peer"
	keyChunk = "chunk"
	keyLink  = "link"
	keyCID   = "cid"
	keyError = "error"
)

// Provider keeps sealed chunks for writers. Open one with [Open].
type Provider struct {
	cfg    Config
	self   peer.ID
	log    *slog.Logger
	folder folder
	disk   *durable.Disk
	epoch  uint64 // of this run; copies of earlier ones are hashed before they count

	table      *table
	books      *books
	locks      writerLocks
	gate       gate
	memory     *semaphore.Weighted // bytes, for requests being read and answers being made
	verifiers  *semaphore.Weighted
	batching   *semaphore.Weighted // transfers that have one of batches
	batches    sync.Pool           // of *batch
	tombstones atomic.Int64
	counts     counters

	dirGen    atomic.Uint64 // counts files made, from 1
	dirMu     sync.Mutex    // held while the folder is synced; guards what follows
	dirDone   uint64        // the count up to which names are durable
	dirFailed error         // after a failed sync the disk's state is unknown: no name is relied on any more

	dbFree func() (uint64, error) // bytes on the database's disk

	life   sync.RWMutex // held for reading by every call
	closed bool

	step func(point string) error // tests end the process's life here; never nil
}

// Open opens the provider whose key is cfg.Key. It reads the records of all copies and removes files
// that belong to none.
func Open(cfg Config) (*Provider, error) {
	p, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open provider: %w", err)
	}
	return p, nil
}

func open(cfg Config) (*Provider, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	self, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, err
	}
	if _, err := self.ExtractPublicKey(); err != nil {
		return nil, fmt.Errorf("the peer ID does not hold the key that pledges are verified by: %w", err)
	}
	cfg.Prefix = append([]byte{}, cfg.Prefix...)
	p := &Provider{
		cfg: cfg, self: self, log: cfg.Logger, folder: cfg.folder, disk: durable.New(cfg.DB), step: cfg.step,
		table: newTable(cfg.Limits.OpenFiles), books: newBooks(cfg.Limits, cfg.QuotaBytes),
		memory: semaphore.NewWeighted(cfg.Limits.MemoryBytes), verifiers: semaphore.NewWeighted(int64(cfg.Limits.Verifiers)),
	}
	p.batches.New, p.batching = newBatch, semaphore.NewWeighted(maxBatches)
	p.dbFree = func() (uint64, error) { return durable.Free(cfg.DB.Opts().Dir) }
	p.gate.init(cfg.Limits)
	p.dirGen.Store(1)
	if p.folder == nil {
		if p.folder, err = newOSFolder(cfg.Dir); err != nil {
			return nil, err
		}
	}
	if p.step == nil {
		p.step = func(string) error { return nil }
	}
	if err := p.recover(); err != nil {
		return nil, err
	}
	return p, nil
}

// recover reads what the last run left.
func (p *Provider) recover() error {
	if err := p.beginRun(); err != nil {
		return err
	}
	if err := p.loadBooks(); err != nil {
		return err
	}
	if err := p.settleVouchers(); err != nil {
		return err
	}
	return p.removeOrphans()
}

// beginRun takes the clean mark away, for good, before anything else happens.
func (p *Provider) beginRun() error {
	var run pb.Run
	err := p.commit(func(txn *badger.Txn) error {
		run.Reset()
		if _, err := get(txn, p.key(tagRun), &run); err != nil {
			return err
		}
		if !run.Clean {
			run.Epoch++
		}
		run.Clean = false
		return put(txn, p.key(tagRun), &run)
	})
	if err != nil {
		return err
	}
	p.epoch = run.Epoch
	return p.sync()
}

func (p *Provider) loadBooks() error {
	return p.cfg.DB.View(func(txn *badger.Txn) error {
		err := each(txn, p.key(tagCopy), true, func(item *badger.Item, _ []byte) (bool, error) {
			var rec pb.Copy
			if err := decode(item, &rec); err != nil {
				return false, err
			}
			p.books.move(writerOf(&rec), share{}, shareOf(&rec))
			return true, nil
		})
		if err != nil {
			return err
		}
		return each(txn, p.key(tagForget), false, func(*badger.Item, []byte) (bool, error) {
			p.tombstones.Add(1)
			return true, nil
		})
	})
}

// removeOrphans removes files that no record names: of agreements that a power cut took, or of copies
// whose removal it undid.
func (p *Provider) removeOrphans() error {
	removed := 0
	err := p.folder.Each(func(name string) error {
		var id copyID
		if len(name) != 2*len(id) {
			return nil // not ours
		}
		if _, err := hex.Decode(id[:], []byte(name)); err != nil {
			return nil
		}
		err := p.cfg.DB.View(func(txn *badger.Txn) error {
			_, err := txn.Get(p.copyKey(id))
			return err
		})
		if !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		removed++
		return p.folder.Remove(name)
	})
	if err != nil {
		return fmt.Errorf("remove orphaned chunk files: %w", err)
	}
	if removed > 0 {
		p.log.Info("removed chunk files that belong to nothing", "files", removed)
	}
	return nil
}

// enter begins a call, exit ends it.
func (p *Provider) enter() error {
	p.life.RLock()
	if p.closed {
		p.life.RUnlock()
		return ErrClosed
	}
	return nil
}

func (p *Provider) exit() { p.life.RUnlock() }

// Close waits for calls to end and marks the records as cleanly closed, so that the next [Open] trusts
// the files. End [Provider.Run] and the streams first. The database stays open.
func (p *Provider) Close() error {
	p.gate.close()
	p.life.Lock()
	defer p.life.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	err := p.sync() // first all facts, then the mark
	if err == nil {
		err = p.commit(func(txn *badger.Txn) error {
			return put(txn, p.key(tagRun), &pb.Run{Epoch: p.epoch, Clean: true})
		})
	}
	if err == nil {
		err = p.sync()
	}
	if err = errors.Join(err, p.table.closeAll()); err != nil {
		return fmt.Errorf("close provider: %w", err)
	}
	return nil
}

func (p *Provider) now() time.Time { return p.cfg.Now() }

// syncNames makes the name of h's file durable. Copies made at the same time share the work.
func (p *Provider) syncNames(h *held) error {
	if h.synced {
		return nil
	}
	gen := p.dirGen.Load() // h's file is among those
	p.dirMu.Lock()
	defer p.dirMu.Unlock()
	if p.dirFailed != nil {
		return p.dirFailed
	}
	if p.dirDone < gen {
		upTo := p.dirGen.Load()
		if err := p.folder.Sync(); err != nil {
			p.dirFailed = fmt.Errorf("sync folder of chunks: %w", err)
			return p.dirFailed
		}
		p.dirDone = upTo
	}
	h.synced = true
	return nil
}

// finished says whether an error only says that the call was given up.
func finished(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, ctx.Err())
}
