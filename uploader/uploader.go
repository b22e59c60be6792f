package uploader

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Uploader places chunks with providers and keeps them there. Make one with [Open].
type Uploader struct {
	cfg     Config
	log     *slog.Logger
	journal journal
	machine *machine // Run's alone

	requests chan request
	answers  chan doneEvent
	sealer   *sealer
	tasks    sync.WaitGroup // of Run
	started  atomic.Bool
	closed   chan struct{} // after Run has ended

	watchers map[*watcher]struct{} // Run's alone
}

// request is run by the loop; its error is told once what follows from it is on the disk.
type request struct {
	run  func(m *machine) error
	done chan error // of one
}

// Open reads the journal. Nothing is done before Run.
func Open(cfg Config) (*Uploader, error) {
	if err := cfg.defaults(); err != nil {
		return nil, fmt.Errorf("open uploader: %w", err)
	}
	j, err := openJournal(cfg.DB, cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("open uploader: %w", err)
	}
	return open(cfg, j)
}

// open takes a complete config.
func open(cfg Config, j journal) (*Uploader, error) {
	c, err := j.load()
	if err != nil {
		return nil, fmt.Errorf("open uploader: %w", err)
	}
	var seed [32]byte
	rand.Read(seed[:])
	u := &Uploader{
		cfg: cfg, log: cfg.Logger, journal: j, machine: newMachine(cfg.terms(), seed),
		requests: make(chan request), answers: make(chan doneEvent), closed: make(chan struct{}),
		sealer: newSealer(cfg, j), watchers: make(map[*watcher]struct{}),
	}
	u.machine.Tick(0, cfg.Now())
	u.machine.load(c)
	return u, nil
}

// ask has the loop run fn and returns when what follows from it is on the disk.
func (u *Uploader) ask(ctx context.Context, fn func(m *machine) error) error {
	r := request{run: fn, done: make(chan error, 1)}
	select {
	case u.requests <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-u.closed:
		return ErrClosed
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-u.closed:
		return ErrClosed
	}
}

// AddFile has a file kept from now on. It is on the disk when AddFile returns. The same file again is
// no error and changes nothing; another one of the same ID is [ErrExists], one that can't be kept
// [ErrInvalid]. It keeps nothing of f but descriptors.
func (u *Uploader) AddFile(ctx context.Context, f File) error {
	return u.put(ctx, "add", f, func(m *machine, c checked) error {
		if old := m.files[f.ID]; old != nil && !m.same(old, c) {
			return ErrExists
		}
		return nil
	})
}

// Update has a file kept as f says, whatever was kept under its ID: chunks that no file needs any more
// are released, others stay where they are. [ErrNotFound] says that there is no such file.
func (u *Uploader) Update(ctx context.Context, f File) error {
	return u.put(ctx, "update", f, func(m *machine, _ checked) error {
		if m.files[f.ID] == nil {
			return ErrNotFound
		}
		return nil
	})
}

// Put is AddFile or Update, whichever it takes.
func (u *Uploader) Put(ctx context.Context, f File) error {
	return u.put(ctx, "put", f, func(*machine, checked) error { return nil })
}

func (u *Uploader) put(ctx context.Context, op string, f File, allowed func(*machine, checked) error) error {
	c, err := f.check()
	if err == nil {
		err = u.journal.room()
	}
	if err == nil {
		err = u.ask(ctx, func(m *machine) error {
			if err := allowed(m, c); err != nil {
				return err
			}
			m.Step(fileEvent{c})
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("%s file %s: %w", op, f.ID, err)
	}
	return nil
}

// Remove has a file kept no more. What only it needed is released. A file that is not there is [ErrNotFound].
func (u *Uploader) Remove(ctx context.Context, id FileID) error {
	return u.step(ctx, "remove", id, removeEvent{id})
}

// Cancel ends all that is done for a file. It stays listed, as failed, until it is retried or removed.
func (u *Uploader) Cancel(ctx context.Context, id FileID) error {
	return u.step(ctx, "cancel", id, cancelEvent{id})
}

// Retry takes a file up now, whatever pauses there are. One that was cancelled or has expired begins anew.
func (u *Uploader) Retry(ctx context.Context, id FileID) error {
	return u.step(ctx, "retry", id, retryEvent{id})
}

func (u *Uploader) step(ctx context.Context, op string, id FileID, event any) error {
	err := u.ask(ctx, func(m *machine) error {
		if m.files[id] == nil {
			return ErrNotFound
		}
		m.Step(event)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s file %s: %w", op, id, err)
	}
	return nil
}

// Repair audits what is pledged now, and asks everybody again at once. What is found lost is placed anew; Repair does
// not wait for it. With IDs it is for those files alone, and strict: a provider that gives no answer is taken for gone,
// and what ends soon is kept for another lifetime. [LinkStatus.Doubted] and [FileStatus] tell how that goes.
func (u *Uploader) Repair(ctx context.Context, of ...FileID) error {
	var event any = auditEvent{}
	if len(of) > 0 {
		event = repairEvent{of}
	}
	if err := u.ask(ctx, func(m *machine) error { m.Step(event); return nil }); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	return nil
}

// Offer tells of providers that somebody has met.
func (u *Uploader) Offer(ctx context.Context, found []Candidate) error {
	if err := u.ask(ctx, func(m *machine) error { m.Step(candidatesEvent{found}); return nil }); err != nil {
		return fmt.Errorf("offer candidates: %w", err)
	}
	return nil
}

// PeerGone tells that the connection to a peer is gone. If it has pledged, it is audited soon.
func (u *Uploader) PeerGone(ctx context.Context, p peer.ID) error {
	if err := u.ask(ctx, func(m *machine) error { m.Step(goneEvent{p}); return nil }); err != nil {
		return fmt.Errorf("note that peer is gone: %w", err)
	}
	return nil
}

// Run does all work until ctx ends, and returns when nothing is under way any more. It may be called
// once. An error that is not ctx's says that the journal can't be written.
func (u *Uploader) Run(ctx context.Context) error {
	if u.started.Swap(true) {
		return errors.New("run uploader: it was run before")
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{Uploader: u, start: time.Now()}
	err := l.run(ctx)
	cancel()
	u.tasks.Wait()
	close(u.closed)
	if err != nil {
		return fmt.Errorf("run uploader: %w", err)
	}
	return nil
}
