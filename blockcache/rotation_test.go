package blockcache

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
)

// logDisk is what the disk surely has of a database's logs: what was flushed by name, and the log
// that the database's own Sync flushes, which is the newest; and of those the names that were there
// when the folder was flushed.
type logDisk struct {
	dir string

	mu    sync.Mutex
	bytes map[string][]byte
	names map[string]bool
}

func (d *logDisk) flush(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if path != d.dir {
		return d.saveLocked(path)
	}
	logs, err := filepath.Glob(filepath.Join(d.dir, "*.mem"))
	for _, l := range logs {
		d.names[l] = true
	}
	return err
}

func (d *logDisk) saveLocked(path string) error {
	p, err := os.ReadFile(path)
	if err == nil {
		d.bytes[path] = p
	}
	return err
}

// around runs a sync of the index. Nothing else writes meanwhile.
func (d *logDisk) around(sync func() error) error {
	logs, err := filepath.Glob(filepath.Join(d.dir, "*.mem"))
	if err = errors.Join(err, sync()); err != nil || len(logs) == 0 {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.saveLocked(slices.Max(logs))
}

// cut copies to a folder what a power cut leaves at least: tables, which the database flushes itself,
// and of logs what is surely there.
func (d *logDisk) cut(t *testing.T, to string) {
	t.Helper()
	must(t, os.MkdirAll(to, 0o700))
	paths, err := filepath.Glob(filepath.Join(d.dir, "*"))
	must(t, err)
	for _, path := range paths {
		if filepath.Base(path) == "LOCK" {
			continue
		}
		p, err := os.ReadFile(path)
		must(t, err)
		if strings.HasSuffix(path, ".mem") {
			if !d.names[path] {
				continue
			}
			kept := make([]byte, len(p))
			copy(kept, d.bytes[path])
			p = kept
		}
		must(t, os.WriteFile(filepath.Join(to, filepath.Base(path)), p, 0o600))
	}
}

// TestPowerCutAcrossLogs: the database has begun new logs, and not written the tables of the old ones,
// when Sync comes.
func TestPowerCutAcrossLogs(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	opts := badger.DefaultOptions(filepath.Join(dir, "db")).WithLoggingLevel(badger.ERROR).
		WithMemTableSize(1 << 20).WithNumMemtables(8).WithValueThreshold(32 << 10).WithValueLogFileSize(1 << 20).
		WithBlockCacheSize(8 << 20).WithIndexCacheSize(8 << 20)
	// With one table at the first level and nobody to compact it, logs stay logs.
	db, err := badger.Open(opts.WithNumCompactors(0).WithNumLevelZeroTables(1).WithNumLevelZeroTablesStall(2))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	disk := &logDisk{dir: opts.Dir, bytes: map[string][]byte{}, names: map[string]bool{}}
	cfg := StoreConfig{DB: db, Dir: filepath.Join(dir, "blocks"), syncIndex: disk.around}
	s, err := OpenStore(cfg)
	must(t, err)
	s.ix.flush = disk.flush
	f := makeFile(t, 1, 5<<20, 512<<10)
	roots := map[cid.Cid]int{}
	for i := range uint64(cutRoots) {
		root := randBlock(t, i, 8).Cid()
		members := []cid.Cid{root}
		for j := range uint64(800) {
			members = append(members, randBlock(t, 1000*(i+1)+j, 9).Cid())
		}
		must(t, s.Pin(t.Context(), root, members))
		roots[root] = len(members)
		if i == cutRoots/2 {
			mustPut(t, s, f.leaves...)
			must(t, s.Sync(t.Context()))
		}
	}
	must(t, s.Sync(t.Context()))
	logs, err := filepath.Glob(filepath.Join(opts.Dir, "*.mem"))
	must(t, err)
	if len(logs) < 3 {
		t.Fatalf("only %d logs: the test shows nothing", len(logs))
	}
	disk.cut(t, filepath.Join(dir, "cut"))
	after, err := badger.Open(opts.WithDir(filepath.Join(dir, "cut")).WithValueDir(filepath.Join(dir, "cut")))
	must(t, err)
	t.Cleanup(func() { must(t, after.Close()) })
	must(t, s.fds.close())
	s, err = OpenStore(StoreConfig{DB: after, Dir: cfg.Dir, UncleanStop: true})
	must(t, err)
	pins, err := s.Pins(t.Context())
	must(t, err)
	got := map[cid.Cid]int{}
	for _, p := range pins {
		got[p.Root] = p.Blocks
	}
	if !maps.Equal(got, roots) {
		t.Errorf("%d pins of %d are as they were", len(got), len(roots))
	}
	must(t, s.verifyAll(t.Context()))
	mustBody(t, s, f)
	checkFigures(t, s)
	must(t, s.Close())
}
