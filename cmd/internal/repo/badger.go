package repo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/holdfastfs/holdfast/exchange/payment/durable"
)

// Bytes that the database may hold in memory; [MemoryBytes] adds them up.
const (
	memTableBytes   = 8 << 20
	memTables       = 3
	blockCacheBytes = 8 << 20
	indexCacheBytes = 12 << 20
)

// MemoryBytes is what an open repo may keep in memory, in bytes.
const MemoryBytes = memTableBytes*(memTables+1) + blockCacheBytes + indexCacheBytes

// minOpenBytes is the free space below which a repo is not opened: the database maps its logs into
// memory, where a full disk ends the process instead of failing a write.
const minOpenBytes = 32 << 20

// minWriteBytes is the free space below which nothing is written to an open database, for the same reason.
const minWriteBytes = 8 << 20

// openDB opens the database in path. Commits are not synced one by one: who needs an entry durable
// calls Sync after it.
func openDB(path string, log *slog.Logger) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	if err := removeEmptyLogs(path); err != nil {
		return nil, err
	}
	opts := badger.DefaultOptions(path).
		WithLogger(badgerLog{log}).
		WithSyncWrites(false).
		WithMemTableSize(memTableBytes).
		WithNumMemtables(memTables).
		WithBlockCacheSize(blockCacheBytes).
		WithIndexCacheSize(indexCacheBytes).
		WithValueLogFileSize(64 << 20).
		WithValueThreshold(64 << 10).
		WithNumCompactors(2).
		WithNumGoroutines(2).
		WithCompression(options.Snappy).
		WithMetricsEnabled(false)
	if db, err = badger.Open(opts); err == nil {
		durable.Reserve(path)
	}
	return db, err
}

// removeEmptyLogs removes logs of no bytes. A process that is killed while it makes one, or while it removes one,
// which it cuts off first, leaves it, and the database refuses to open over it. Nothing was ever in it, or all of it
// is in tables.
func removeEmptyLogs(path string) error {
	for _, pattern := range []string{"*.mem", "*.vlog"} {
		logs, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return err
		}
		for _, name := range logs {
			st, err := os.Lstat(name)
			if err == nil && st.Mode().IsRegular() && st.Size() == 0 {
				err = os.Remove(name)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// enoughSpace fails with ENOSPC where the disk of dir is full.
func enoughSpace(dir string) error {
	if err := needs(dir, minOpenBytes); err != nil {
		return explain(dir, fmt.Errorf("open repo %s: %w", dir, err))
	}
	return nil
}

// needs returns an error that wraps ENOSPC when the disk of dir has fewer free bytes than least.
func needs(dir string, least uint64) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return err
	}
	if free := s.Bavail * uint64(s.Bsize); free < least {
		return fmt.Errorf("%d MiB are free, %d are needed: %w", free>>20, least>>20, syscall.ENOSPC)
	}
	return nil
}

// update commits what fn writes, unless the disk has no room for it.
func update(db *badger.DB, fn func(txn *badger.Txn) error) error {
	if err := mayWrite(db); err != nil {
		return err
	}
	return db.Update(fn)
}

// mayWrite returns an error that wraps ENOSPC when writing could end the process.
func mayWrite(db *badger.DB) error {
	if db.Opts().InMemory {
		return nil
	}
	return needs(db.Opts().Dir, minWriteBytes)
}

// dbError tells a full disk or missing rights from a damaged database.
func dbError(dir string, err error) error {
	plain := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS) ||
		errors.Is(err, syscall.EMFILE) || errors.Is(err, context.Canceled)
	if plain {
		return explain(dir, fmt.Errorf("open repo %s: %w", dir, err))
	}
	return damaged(dir, fmt.Errorf("open the database: %w", err))
}

// badgerLog gives badger's lines to slog, one level lower than badger thinks of them.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.line(slog.LevelError, f, a) }
func (l badgerLog) Warningf(f string, a ...any) { l.line(slog.LevelInfo, f, a) }
func (l badgerLog) Infof(f string, a ...any)    { l.line(slog.LevelDebug, f, a) }
func (l badgerLog) Debugf(f string, a ...any)   { l.line(slog.LevelDebug, f, a) }

func (l badgerLog) line(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "database: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}
