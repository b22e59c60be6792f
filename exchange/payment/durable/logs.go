package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

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
	Reserve(opts.Dir)
	if err := l.file(opts.Dir); err != nil {
		return err
	}
	l.flushed = names
	return nil
}

// SyncPath brings a file or folder to the disk.
func SyncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Reserve takes blocks for the logs of a database in a folder, so that writing to them needs none of a disk that is
// full by then. It does what the disk lets it.
func Reserve(dir string) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return
	}
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // it has become a table
		}
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil && st.Blocks*512 < st.Size {
			_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, st.Size) // not every file system can
		}
		_ = f.Close() // nothing was written
	}
}

// MinFree is what most commits leave of a disk, in bytes.
const MinFree = 8 << 20

// Room returns an error that wraps ENOSPC when a database's disk has fewer than least bytes free.
func Room(db *badger.DB, least uint64) error {
	if db.Opts().InMemory {
		return nil
	}
	free, err := Free(db.Opts().Dir)
	if err == nil && free < least {
		err = fmt.Errorf("%d bytes are free on the disk, %d are needed: %w", free, least, syscall.ENOSPC)
	}
	return err
}

// Free returns the bytes that are free on the disk of a folder.
func Free(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}
