package provider

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

// durable brings commits to the disk. Whoever comes while the disk is busy shares the next round.
type durable struct {
	flush func() error
	lead  chan struct{} // held by whoever flushes

	mu     sync.Mutex
	next   *round // joined by those that came since the last flush began
	failed error  // after a failed flush nothing is known of the disk: no promise is made any more
}

type round struct {
	done chan struct{}
	err  error // valid after done is closed
}

func newDurable(db *badger.DB) *durable {
	return &durable{lead: make(chan struct{}, 1), flush: (&dbFiles{db: db}).sync}
}

// sync returns when all that was committed before the call is on the disk.
func (d *durable) sync() error {
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
	d.mu.Lock()
	d.next = nil
	d.mu.Unlock()
	if r.err = d.flush(); r.err != nil {
		r.err = fmt.Errorf("sync records: %w", r.err)
		d.mu.Lock()
		d.failed = r.err
		d.mu.Unlock()
	}
	close(r.done)
	return r.err
}

// dbFiles are the files that commits are in. One caller at a time.
type dbFiles struct {
	db    *badger.DB
	names []string // in the folder when it was flushed last
}

// sync flushes every log and the folder: the database's own Sync leaves out logs that were replaced and
// have no table yet, and the names. A log that vanishes meanwhile has become a synced table.
func (f *dbFiles) sync() error {
	if err := f.db.Sync(); err != nil {
		return err
	}
	opts := f.db.Opts()
	if opts.InMemory {
		return nil
	}
	entries, err := os.ReadDir(opts.Dir)
	if err != nil {
		return err
	}
	var names, logs []string
	for _, e := range entries {
		names = append(names, e.Name())
		if strings.HasSuffix(e.Name(), ".mem") {
			logs = append(logs, e.Name())
		}
	}
	if len(logs) > 1 { // one alone is what Sync flushed
		for _, name := range logs {
			if err := syncPath(filepath.Join(opts.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	if slices.Equal(names, f.names) {
		return nil
	}
	if err := syncPath(opts.Dir); err != nil {
		return err
	}
	f.names = names
	return nil
}

// syncPath flushes a file or folder by name.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// The database maps its logs into memory, where a full disk ends the process instead of failing a
// write. So some of its disk is kept free; what gives space back may use more of it.
const (
	minDBFree      = 8 << 20
	minDBFreeToEnd = 1 << 20
)

// hasRoom returns an error that wraps ErrFull when the database's disk has less than least bytes free.
func (p *Provider) hasRoom(least uint64) error {
	if p.cfg.DB.Opts().InMemory {
		return nil
	}
	free, err := p.dbFree()
	if err == nil && free < least {
		err = fmt.Errorf("%d bytes are free on the database's disk, %d are needed: %w", free, least, ErrFull)
	}
	return err
}

func freeBytes(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}
