package payment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/dgraph-io/badger/v4"
)

// durable brings commits to the disk. Callers that come while the disk is busy share the next sync.
type durable struct {
	flush func() error  // brings all that was committed to the disk
	lead  chan struct{} // held by whoever flushes
	syncs atomic.Int64

	mu      sync.Mutex
	next    *flushRound // what callers wait for that came since the last flush began
	commits uint64
	synced  uint64 // commits surely on the disk
	failed  error  // after a failed sync the disk's state is unknown: nothing is promised any more
}

type flushRound struct {
	done chan struct{}
	err  error
}

func newDurable(db *badger.DB) *durable {
	d := &durable{lead: make(chan struct{}, 1)}
	d.flush = (&logs{db: db, file: syncPath}).sync
	return d
}

// committed notes a commit that is to be synced.
func (d *durable) committed() {
	d.mu.Lock()
	d.commits++
	d.mu.Unlock()
}

// settled waits until everything noted as committed is on the disk.
func (d *durable) settled() error {
	d.mu.Lock()
	idle, err := d.synced == d.commits, d.failed
	d.mu.Unlock()
	if idle || err != nil {
		return err
	}
	return d.sync()
}

// sync waits for a flush that begins after the call.
func (d *durable) sync() error {
	d.mu.Lock()
	if d.failed != nil {
		defer d.mu.Unlock()
		return d.failed
	}
	if d.next == nil {
		d.next = &flushRound{done: make(chan struct{})}
	}
	r := d.next
	d.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case d.lead <- struct{}{}:
	}
	defer func() { <-d.lead }()
	select {
	case <-r.done: // another leader did it before our turn
		return r.err
	default:
	}
	d.run(r)
	return r.err
}

// run flushes for all that wait for r, which nobody can join any more.
func (d *durable) run(r *flushRound) {
	d.mu.Lock()
	d.next = nil
	upTo := d.commits
	d.mu.Unlock()
	r.err = d.flush()
	d.syncs.Add(1)
	d.mu.Lock()
	if r.err != nil {
		r.err = fmt.Errorf("sync payments: %w", r.err)
		d.failed = r.err
	} else {
		d.synced = upTo
	}
	d.mu.Unlock()
	close(r.done)
}

// logs are the files of a database that commits are in. One caller at a time.
type logs struct {
	db      *badger.DB
	file    func(path string) error // flushes a file or a folder
	flushed []string                // names in the folder when it was flushed last
}

// sync flushes every log and the folder. The database's own Sync leaves out logs that were replaced
// but have no table yet, and the folder. A log that vanishes meanwhile has become a synced table.
func (l *logs) sync() error {
	if err := l.db.Sync(); err != nil {
		return err
	}
	opts := l.db.Opts()
	if opts.InMemory {
		return nil
	}
	entries, err := os.ReadDir(opts.Dir)
	if err != nil {
		return err
	}
	var names, mems []string
	for _, e := range entries {
		names = append(names, e.Name())
		if strings.HasSuffix(e.Name(), ".mem") {
			mems = append(mems, filepath.Join(opts.Dir, e.Name()))
		}
	}
	if len(mems) > 1 { // a single one is what Sync flushed
		for _, path := range mems {
			if err := l.file(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	if slices.Equal(names, l.flushed) {
		return nil
	}
	if err := l.file(opts.Dir); err != nil {
		return err
	}
	l.flushed = names
	return nil
}

// minFreeBytes is kept free: the database maps its logs into memory, where a full disk ends the
// process instead of failing a write.
const minFreeBytes = 8 << 20

// hasRoom returns an error that wraps ENOSPC when the disk is almost full.
func hasRoom(db *badger.DB) error {
	if db.Opts().InMemory {
		return nil
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(db.Opts().Dir, &s); err != nil {
		return err
	}
	if free := s.Bavail * uint64(s.Bsize); free < minFreeBytes {
		return fmt.Errorf("%d bytes are free on the disk, %d are needed: %w", free, minFreeBytes, syscall.ENOSPC)
	}
	return nil
}
