package blockcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// scratch returns a folder for a test, in memory where the system has such a thing: the tests sync
// a lot, and none of them needs the bytes to last. Benchmarks use the disk.
func scratch(t testing.TB) string {
	t.Helper()
	if _, bench := t.(*testing.B); bench {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "blockcache-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// openDB opens a small database.
func openDB(t testing.TB, dir string) *badger.DB {
	t.Helper()
	opts := badger.DefaultOptions(filepath.Join(dir, "db")).WithLoggingLevel(badger.ERROR).
		WithMemTableSize(16 << 20).WithNumMemtables(2).WithBlockCacheSize(8 << 20).WithIndexCacheSize(8 << 20).
		WithValueLogFileSize(16 << 20).WithValueThreshold(64 << 10).WithNumCompactors(2).WithMetricsEnabled(false)
	db, err := badger.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// box is a store with what it stands on, made to be opened and closed many times.
type box struct {
	t   testing.TB
	dir string
	cfg StoreConfig
	db  *badger.DB
	*Store
}

func newBox(t testing.TB, cfg StoreConfig) *box {
	t.Helper()
	b := &box{t: t, dir: scratch(t), cfg: cfg}
	b.open()
	t.Cleanup(func() {
		if b.Store != nil {
			b.close()
		}
	})
	return b
}

func (b *box) open() {
	b.t.Helper()
	b.db = openDB(b.t, b.dir)
	b.reopenStore(false)
}

func (b *box) reopenStore(unclean bool) {
	b.t.Helper()
	cfg := b.cfg
	cfg.DB, cfg.Prefix, cfg.Dir, cfg.UncleanStop = b.db, []byte("/test/"), filepath.Join(b.dir, "blocks"), unclean
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s, err := OpenStore(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Store = s
}

func (b *box) close() {
	b.t.Helper()
	if err := b.Store.Close(); err != nil {
		b.t.Error(err)
	}
	b.Store = nil
	if err := b.db.Close(); err != nil {
		b.t.Error(err)
	}
}

// reopen stops cleanly and starts again.
func (b *box) reopen() {
	b.t.Helper()
	b.close()
	b.open()
}

// crash leaves the store as kill -9 would and opens it anew over the same database. Goroutines of
// the old one have ended, as the test waited for its calls.
func (b *box) crash() {
	b.t.Helper()
	b.Store.life.Lock()
	b.Store.closed = true
	b.Store.life.Unlock()
	b.Store.tasks.Wait()
	if err := b.Store.fds.close(); err != nil {
		b.t.Error(err)
	}
	b.reopenStore(true)
}

// randBytes makes bytes that no other seed makes.
func randBytes(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(p) // never fails
	return p
}

func sumCID(t testing.TB, codec, hash uint64, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.Prefix{Version: 1, Codec: codec, MhType: hash, MhLength: -1}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func rawBlock(t testing.TB, data []byte) blocks.Block {
	t.Helper()
	return withCID(data, sumCID(t, cid.Raw, mh.SHA2_256, data))
}

func randBlock(t testing.TB, seed uint64, n int) blocks.Block {
	t.Helper()
	return rawBlock(t, randBytes(seed, n))
}

// fakeFile is a UnixFS file as far as bodies care.
type fakeFile struct {
	root   cid.Cid
	bytes  []byte
	leaves []Entry
}

func makeFile(t testing.TB, seed uint64, size, chunk int) fakeFile {
	t.Helper()
	data := randBytes(seed, size)
	f := fakeFile{root: sumCID(t, cid.DagProtobuf, mh.SHA2_256, append([]byte("root of "), data[:64]...)), bytes: data}
	for off := 0; off < size; off += chunk {
		f.leaves = append(f.leaves, Entry{
			Block: rawBlock(t, data[off:min(off+chunk, size)]),
			Place: Place{File: f.root, Offset: uint64(off), FileBytes: uint64(size)},
		})
	}
	f.leaves = slices.Clip(f.leaves) // who appends to them gets a slice of its own
	return f
}

func (f fakeFile) blocks() []blocks.Block {
	out := make([]blocks.Block, len(f.leaves))
	for i, l := range f.leaves {
		out[i] = l.Block
	}
	return out
}

func wantOf(e Entry) Want { return Want{CID: e.Block.Cid(), Place: e.Place} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustPut(t testing.TB, s interface {
	Put(context.Context, []Entry) error
}, es ...Entry) {
	t.Helper()
	must(t, s.Put(t.Context(), es))
}

type getter interface {
	Get(context.Context, Want) (blocks.Block, error)
}

// mustGet expects a block to be here, and right.
func mustGet(t testing.TB, s getter, b blocks.Block) {
	t.Helper()
	got, err := s.Get(t.Context(), Want{CID: b.Cid()})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Cid().Equals(b.Cid()) || !bytes.Equal(got.RawData(), b.RawData()) {
		t.Fatalf("get %s: other bytes", b.Cid())
	}
}

// mustBody expects a complete body with the file's bytes.
func mustBody(t testing.TB, s *Store, f fakeFile) {
	t.Helper()
	fd, ok := s.Body(f.root)
	if !ok {
		have, total := s.BodyState(f.root)
		t.Fatalf("no body: %d of %d bytes", have, total)
	}
	defer fd.Close()
	got, err := io.ReadAll(fd)
	must(t, err)
	if !bytes.Equal(got, f.bytes) {
		t.Fatal("the body has other bytes than the file")
	}
}
