// Package durable brings what was committed to a badger database to the disk, for all who share one. Make a [Disk] with
// [New], commit, and call [Disk.Sync]; before a commit ask [Room].
//
// The database's own Sync leaves out logs that were replaced and have no table yet, and the folder. It maps its logs into
// memory, where a full disk ends the process instead of failing a write: so some room is kept free, and logs have all
// their blocks before they are written to, as far as the disk can be asked for that.
package durable

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// Disk brings commits to the disk. Callers that come while it is busy share the next sync. All methods may be called
// concurrently.
type Disk struct {
	// Flush brings all that was committed to the disk. Tests put another one in its place before the first call.
	Flush func() error

	lead  chan struct{} // held by whoever flushes
	syncs atomic.Int64

	mu      sync.Mutex
	next    *round // what callers wait for that came since the last flush began
	commits uint64
	synced  uint64 // commits surely on the disk
	failed  error  // after a failed sync the disk's state is unknown: nothing is promised any more
}

type round struct {
	done chan struct{}
	err  error // valid after done is closed
}

// New returns the disk of a database.
func New(db *badger.DB) *Disk {
	return &Disk{lead: make(chan struct{}, 1), Flush: (&logs{db: db, file: SyncPath}).sync}
}

// Syncs counts the times that the disk was written to.
func (d *Disk) Syncs() int64 { return d.syncs.Load() }

// Committed notes a commit that is to be synced.
func (d *Disk) Committed() {
	d.mu.Lock()
	d.commits++
	d.mu.Unlock()
}

// Settled waits until everything noted as committed is on the disk.
func (d *Disk) Settled() error {
	d.mu.Lock()
	idle, err := d.synced == d.commits, d.failed
	d.mu.Unlock()
	if idle || err != nil {
		return err
	}
	return d.Sync()
}

// Sync returns when all that was committed before the call is on the disk. After an error it always fails.
func (d *Disk) Sync() error {
	d.mu.Lock()
	if d.failed != nil {
		defer d.mu.Unlock()
		return d.failed
	}
	if d.next == nil {
		d.next = &round{done: make(chan struct{})}
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
func (d *Disk) run(r *round) {
	d.mu.Lock()
	d.next = nil
	upTo := d.commits
	d.mu.Unlock()
	r.err = d.Flush()
	d.syncs.Add(1)
	d.mu.Lock()
	if r.err != nil {
		r.err = fmt.Errorf("sync database: %w", r.err)
		d.failed = r.err
	} else {
		d.synced = upTo
	}
	d.mu.Unlock()
	close(r.done)
}
