package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSyncIsShared: callers that come while the disk is busy share the next sync, and none returns
// before a sync that began after it came.
func TestSyncIsShared(t *testing.T) {
	busy, goOn := make(chan struct{}), make(chan struct{})
	d := &Disk{lead: make(chan struct{}, 1)}
	d.Flush = func() error { busy <- struct{}{}; <-goOn; return nil }
	noErr := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { noErr(d.Sync()) })
	<-busy
	for range 10 {
		d.Committed()
		wg.Go(func() { noErr(d.Settled()) })
	}
	for joined := false; !joined; { // all ten wait for one round
		d.mu.Lock()
		joined = d.next != nil
		d.mu.Unlock()
		runtime.Gosched()
	}
	goOn <- struct{}{}
	<-busy
	goOn <- struct{}{}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	for done := false; !done; {
		select {
		case <-busy: // of the ten some may have come after the second began
			goOn <- struct{}{}
		case <-finished:
			done = true
		}
	}
	if n := d.Syncs(); n < 2 || n > 11 {
		t.Fatalf("%d syncs", n)
	}
	must(t, d.Settled()) // would hang if it asked the disk without need
}

// TestSyncOfSeveralLogs: commits in logs that have no table yet are on the disk, too.
func TestSyncOfSeveralLogs(t *testing.T) {
	dir := t.TempDir()
	db, err := badger.Open(badger.DefaultOptions(dir).WithLoggingLevel(badger.ERROR).WithMemTableSize(1 << 20).WithNumMemtables(8).
		WithValueThreshold(1 << 10).WithValueLogFileSize(1 << 20).WithNumCompactors(0).WithNumLevelZeroTables(1).WithNumLevelZeroTablesStall(2))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	l := &logs{db: db}
	for i := range 3000 {
		must(t, db.Update(func(txn *badger.Txn) error { return txn.Set(fmt.Append(nil, i), make([]byte, 1000)) }))
	}
	var flushed []string
	l.file = func(path string) error { flushed = append(flushed, filepath.Base(path)); return SyncPath(path) }
	must(t, l.sync())
	left, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	must(t, err)
	if len(left) < 2 {
		t.Fatalf("only %d logs: the test shows nothing", len(left))
	}
	for _, path := range append(left, dir) {
		found := false
		for _, f := range flushed {
			found = found || f == filepath.Base(path)
		}
		if !found {
			t.Errorf("%s was not flushed, only %v", path, flushed)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "zz.mem"), nil, 0o600)) // a log that vanishes is no error
	l.file = func(path string) error {
		if filepath.Base(path) == "zz.mem" {
			return os.ErrNotExist
		}
		return nil
	}
	must(t, l.sync())
}

// TestLogsAreReserved: after a sync all blocks of the logs are there.
func TestLogsAreReserved(t *testing.T) {
	dir := t.TempDir()
	db, err := badger.Open(badger.DefaultOptions(dir).WithLoggingLevel(badger.ERROR).WithMemTableSize(1 << 20).WithValueThreshold(1 << 10))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	must(t, New(db).Sync())
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	must(t, err)
	if len(logs) == 0 {
		t.Fatal("there is no log")
	}
	for _, path := range logs {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if st.Size == 0 || st.Blocks*512 < st.Size {
			t.Errorf("%s of %d bytes has %d blocks", path, st.Size, st.Blocks)
		}
	}
}

// TestRoom tells a disk with room from one without.
func TestRoom(t *testing.T) {
	db, err := badger.Open(badger.DefaultOptions(t.TempDir()).WithLoggingLevel(badger.ERROR).WithMemTableSize(1 << 20).WithValueThreshold(1 << 10))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	must(t, Room(db, 1))
	if err := Room(db, 1<<62); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("room for more than there is: %v", err)
	}
}
