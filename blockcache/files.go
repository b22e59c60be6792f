package blockcache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// file is what packs and bodies are written through. ReadAt and WriteAt may be called concurrently.
type file interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error            // returns once every write before it is on the disk
	Writeback(off, n int64) // a hint: begin writing this range to the disk now
	Close() error
}

// filesystem is the folder that holds the store's files. Names are relative, "packs/…" or
// "bodies/…". It exists so that tests can lose and tear what was not synced.
type filesystem interface {
	Create(name string) (file, error) // fails if the name is taken
	Open(name string) (file, error)
	OpenRead(name string) (*os.File, error) // a fresh read-only descriptor
	Remove(name string) error
	List(dir string) ([]string, error) // names in dir, without dir
	SyncDirs() error                   // makes creations and removals durable
	Free() (uint64, error)             // bytes left for ordinary users

	Adopt(name string, link func(path string) error) error // has link give a file of others the name too
	Links(name string) (uint64, error)                     // how many names the file has
}

// osFiles is the real folder.
type osFiles struct{ dir string }

const (
	packDir = "packs"
	bodyDir = "bodies"
)

// newOSFiles makes the folders.
func newOSFiles(dir string) (osFiles, error) {
	for _, d := range []string{packDir, bodyDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return osFiles{}, fmt.Errorf("make store folder: %w", err)
		}
	}
	if err := syncPath(filepath.Dir(filepath.Clean(dir))); err != nil { // the folder's own name
		return osFiles{}, fmt.Errorf("make store folder: %w", err)
	}
	return osFiles{dir}, nil
}

func (o osFiles) Create(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(o.dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o osFiles) Open(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(o.dir, name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o osFiles) OpenRead(name string) (*os.File, error) {
	return os.Open(filepath.Join(o.dir, name))
}

func (o osFiles) Remove(name string) error { return os.Remove(filepath.Join(o.dir, name)) }

func (o osFiles) List(dir string) ([]string, error) {
	d, err := os.Open(filepath.Join(o.dir, dir))
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

func (o osFiles) SyncDirs() error {
	var errs []error
	for _, name := range []string{packDir, bodyDir, "."} {
		errs = append(errs, syncPath(filepath.Join(o.dir, name)))
	}
	return errors.Join(errs...)
}

func (o osFiles) Adopt(name string, link func(path string) error) error {
	return link(filepath.Join(o.dir, name))
}

// syncPath flushes a file or folder by name.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// osFile is an open file of the real folder.
type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// blob is a pack's or body's file. Descriptors are opened when needed and closed when many others
// are in use; see fdTable.
type blob struct {
	id    uint64
	name  string
	noted uint64 // when its access time was last written down; only Run looks
	lost  error  // of a sync that failed; only one goroutine syncs a file

	// Guarded by fdTable.mu.
	f       file
	refs    int
	stamp   uint64
	removed bool
	old     bool                 // f is to be closed as soon as nobody uses it
	open    func() (file, error) // nil: by name
}

// fdTable bounds the descriptors the store keeps open. Nothing here is held over IO.
type fdTable struct {
	fs  filesystem
	max int

	mu    sync.Mutex
	clock uint64
	open  map[*blob]struct{}
}

func newFDTable(fs filesystem, max int) *fdTable {
	return &fdTable{fs: fs, max: max, open: make(map[*blob]struct{})}
}

// acquire returns the open file of b; every acquire needs a release.
func (t *fdTable) acquire(b *blob) (file, error) {
	t.mu.Lock()
	if f, done, err := t.reuseLocked(b); done {
		t.mu.Unlock()
		return f, err
	}
	open := b.open
	t.mu.Unlock()
	if open == nil {
		open = func() (file, error) { return t.fs.Open(b.name) }
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return t.adopt(b, f)
}

// adopt installs a freshly opened file, or closes it when another goroutine was faster.
func (t *fdTable) adopt(b *blob, f file) (file, error) {
	t.mu.Lock()
	if old, done, err := t.reuseLocked(b); done {
		t.mu.Unlock()
		return old, errors.Join(err, f.Close())
	}
	t.clock++
	b.f, b.refs, b.stamp = f, b.refs+1, t.clock
	t.open[b] = struct{}{}
	old := t.trimLocked()
	t.mu.Unlock()
	if old != nil {
		if err := old.Close(); err != nil {
			t.release(b)
			return nil, fmt.Errorf("close idle file: %w", err)
		}
	}
	return f, nil
}

func (t *fdTable) reuseLocked(b *blob) (file, bool, error) {
	if b.removed {
		return nil, true, os.ErrNotExist
	}
	if b.f == nil {
		return nil, false, nil
	}
	t.clock++
	b.refs, b.stamp = b.refs+1, t.clock
	return b.f, true, nil
}

// trimLocked takes the longest unused file out of the table when there are too many.
func (t *fdTable) trimLocked() file {
	if len(t.open) <= t.max {
		return nil
	}
	var victim *blob
	for b := range t.open {
		if b.refs == 0 && (victim == nil || b.stamp < victim.stamp) {
			victim = b
		}
	}
	if victim == nil {
		return nil
	}
	delete(t.open, victim)
	f := victim.f
	victim.f = nil
	return f
}

// release ends one acquire.
func (t *fdTable) release(b *blob) {
	t.mu.Lock()
	b.refs--
	var f file
	if (b.removed || b.old) && b.refs == 0 {
		f, b.f, b.old = b.f, nil, false
		delete(t.open, b)
	}
	t.mu.Unlock()
	if f != nil {
		_ = f.Close() // of a file that is already unlinked, or was only read: nothing can be lost
	}
}

// rename has b opened by its name from now on.
func (t *fdTable) rename(b *blob) {
	t.mu.Lock()
	b.open, b.old = nil, true
	b.refs++
	t.mu.Unlock()
	t.release(b)
}

// remove unlinks b. Reads that hold it go on; its descriptor is closed after the last of them.
func (t *fdTable) remove(b *blob) error {
	t.mu.Lock()
	if b.removed {
		t.mu.Unlock()
		return nil
	}
	b.removed = true
	b.refs++
	t.mu.Unlock()
	t.release(b)
	if err := t.fs.Remove(b.name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// close closes everything; no acquire may be outstanding.
func (t *fdTable) close() error {
	t.mu.Lock()
	var all []file
	for b := range t.open {
		all = append(all, b.f)
		b.f = nil
	}
	clear(t.open)
	t.mu.Unlock()
	var errs []error
	for _, f := range all {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// gone reports whether b was removed by us.
func (t *fdTable) gone(b *blob) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return b.removed
}
