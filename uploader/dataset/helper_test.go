package dataset

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DATASET_SEED"); s != "" {
		_, err := fmt.Sscan(s, &seed)
		must(t, err)
	}
	t.Logf("DATASET_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func openDB(t testing.TB, dir string) *badger.DB {
	t.Helper()
	opts := badger.DefaultOptions(dir).WithLoggingLevel(badger.ERROR).WithMemTableSize(8 << 20).WithNumMemtables(2).
		WithBlockCacheSize(8 << 20).WithIndexCacheSize(8 << 20).WithValueLogFileSize(16 << 20).WithMetricsEnabled(false)
	if dir == "" {
		opts = opts.WithInMemory(true)
	}
	db, err := badger.Open(opts)
	must(t, err)
	return db
}

// box is a dataset with all it stands on.
type box struct {
	t     testing.TB
	cfg   Config
	tree  *fakeTree
	store *fakeStore
	sink  *fakeSink
	d     *Dataset
	now   time.Time
}

func newBox(t testing.TB, db *badger.DB) *box {
	b := &box{t: t, tree: newFakeTree(t), store: newFakeStore(), now: time.Unix(1e9, 0)}
	b.sink = newFakeSink(t, b.store)
	b.cfg = Config{
		DB: db, Prefix: []byte("set/"), Store: b.store, Staging: b.tree, Sink: b.sink, Data: 4, Parity: 2,
		Temporary: func(name string) bool { return strings.HasSuffix(name, "~") },
		Flush:     func(context.Context) error { return nil },
	}
	b.open()
	b.tree.tell = func(c Change) { must(t, b.d.Told(context.Background(), c)) }
	return b
}

func (b *box) open() {
	b.t.Helper()
	d, err := Open(context.Background(), b.cfg)
	must(b.t, err)
	b.d = d
	b.tree.known = func(id FileID) []string {
		paths, err := d.Paths(context.Background(), id)
		must(b.t, err)
		return paths
	}
}

// settle works until nothing is due.
func (b *box) settle() {
	b.t.Helper()
	for range 20 {
		next, err := b.d.Work(context.Background(), b.now)
		must(b.t, err)
		if next.IsZero() {
			return
		}
		b.now = next
	}
	b.t.Fatal("there is always more work")
}

// sync settles, uploads all, and tells so, until it is synced.
func (b *box) sync() State {
	b.t.Helper()
	ctx := context.Background()
	for range 20 {
		b.settle()
		for _, id := range b.sink.upload() {
			must(b.t, b.d.Placed(ctx, id))
		}
		s, err := b.d.State(ctx)
		must(b.t, err)
		if s.Synced {
			return s
		}
		b.settle()
		s, err = b.d.State(ctx)
		must(b.t, err)
		if s.Latest.ID != 0 && s.Unplaced == 0 {
			b.sink.final = s.Latest
			must(b.t, b.d.ManifestPlaced(ctx, s.Latest.ID))
		}
	}
	b.t.Fatal("it is never synced")
	return State{}
}
