package uploader

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
	"google.golang.org/protobuf/proto"
)

// batch writes in as few transactions as the database takes.
type batch struct {
	db  *badger.DB
	txn *badger.Txn
}

func (b *batch) setMessage(key []byte, m proto.Message) error {
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("marshal record: %w", err)
	}
	return b.set(key, v)
}

func setMessage(txn *badger.Txn, key []byte, m proto.Message) error {
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("marshal record: %w", err)
	}
	return txn.Set(key, v)
}

func (b *batch) set(key, value []byte) error {
	return b.do(func(txn *badger.Txn) error { return txn.Set(key, value) })
}

func (b *batch) delete(key []byte) error {
	return b.do(func(txn *badger.Txn) error { return txn.Delete(key) })
}

func (b *batch) do(fn func(txn *badger.Txn) error) error {
	if b.txn == nil {
		b.begin()
	}
	err := fn(b.txn)
	if !errors.Is(err, badger.ErrTxnTooBig) {
		return err
	}
	if err := b.flush(); err != nil {
		return err
	}
	return fn(b.begin())
}

func (b *batch) begin() *badger.Txn {
	b.txn = b.db.NewTransaction(true)
	return b.txn
}

// flush commits what was written since the last one.
func (b *batch) flush() error {
	if b.txn == nil {
		return nil
	}
	txn := b.txn
	b.txn = nil
	return txn.Commit()
}

func (b *batch) discard() {
	if b.txn != nil {
		b.txn.Discard()
		b.txn = nil
	}
}

// dbFiles are the files that commits are in. One caller at a time.
type dbFiles struct {
	db     *badger.DB
	names  []string // in the folder when it was synced last
	failed error    // after a failed sync nothing is known of the disk
}

// sync brings all that was committed to the disk. The database's own Sync leaves out logs that were
// replaced and have no table yet, and the folder. A log that vanishes meanwhile has become a table.
func (f *dbFiles) sync() error {
	if f.failed == nil {
		f.failed = f.syncAll()
	}
	return f.failed
}

func (f *dbFiles) syncAll() error {
	if err := f.db.Sync(); err != nil {
		return err
	}
	if f.db.Opts().InMemory {
		return nil
	}
	dir := f.db.Opts().Dir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names, logs []string
	for _, e := range entries {
		names = append(names, e.Name())
		if strings.HasSuffix(e.Name(), ".mem") {
			logs = append(logs, filepath.Join(dir, e.Name()))
		}
	}
	for _, path := range logs[:max(0, len(logs)-1)] {
		if err := syncPath(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if slices.Equal(names, f.names) {
		return nil
	}
	if err := syncPath(dir); err != nil {
		return err
	}
	f.names = names
	return nil
}

// syncPath brings a file or folder to the disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// minFreeBytes is kept free: the database maps its logs into memory, where a full disk ends the
// process instead of failing a write.
const minFreeBytes = 8 << 20

// hasRoom returns an error that wraps ENOSPC when the database's disk is almost full.
func hasRoom(db *badger.DB) error {
	if db.Opts().InMemory {
		return nil
	}
	var s unix.Statfs_t
	if err := unix.Statfs(db.Opts().Dir, &s); err != nil {
		return err
	}
	if free := s.Bavail * uint64(s.Bsize); free < minFreeBytes {
		return fmt.Errorf("%d bytes are free on the disk, %d are needed: %w", free, minFreeBytes, syscall.ENOSPC)
	}
	return nil
}
