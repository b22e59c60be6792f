package blockcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// seeds is how many seeds a random test runs; HOLDFAST_SEEDS raises it.
func seeds(n int) uint64 {
	if v, err := strconv.Atoi(os.Getenv("HOLDFAST_SEEDS")); err == nil {
		return uint64(v)
	}
	return uint64((n + seedShare - 1) / seedShare)
}

func TestPowerCut(t *testing.T) {
	for seed := range seeds(6) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			w := newCutWorld(t, seed)
			for range 3 {
				w.start()
				for range 25 + w.r.IntN(25) {
					w.step()
				}
				w.cut()
				w.check()
			}
		})
	}
}

// cutWorld is a store whose power is cut, and what must be left of it.
type cutWorld struct {
	t    *testing.T
	r    *rand.Rand
	dir  string
	life int

	db  *badger.DB
	fs  *faultFiles
	s   *Store
	mem map[string][]byte // the database's logs at its last sync

	all    map[cid.Cid]blocks.Block // ever put
	put    map[cid.Cid]bool         // put and not deleted since
	acked  map[cid.Cid]bool         // of those, synced
	files  []fakeFile
	whole  map[cid.Cid]fakeFile // committed files
	solid  map[cid.Cid]fakeFile // of those, synced
	pins   map[cid.Cid][]cid.Cid
	pinned map[cid.Cid][]cid.Cid // of those, synced
	lent   map[string]fakeFile   // by name
	next   uint64
}

func newCutWorld(t *testing.T, seed uint64) *cutWorld {
	w := &cutWorld{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: scratch(t), next: seed * 1e6,
		all: map[cid.Cid]blocks.Block{}, put: map[cid.Cid]bool{}, acked: map[cid.Cid]bool{},
		whole: map[cid.Cid]fakeFile{}, solid: map[cid.Cid]fakeFile{},
		pins: map[cid.Cid][]cid.Cid{}, pinned: map[cid.Cid][]cid.Cid{}, lent: map[string]fakeFile{},
	}
	must(t, os.Mkdir(w.shelf().dir, 0o700))
	for range 3 {
		w.next++
		w.files = append(w.files, makeFile(t, w.next, 4<<20+w.r.IntN(1<<20), 512<<10))
	}
	return w
}

func (w *cutWorld) path(name string) string { return filepath.Join(w.dir, fmt.Sprint(w.life), name) }

func (w *cutWorld) start() {
	var err error
	opts := badger.DefaultOptions(w.path("db")).WithLoggingLevel(badger.ERROR).WithMemTableSize(1 << 20).
		WithValueLogFileSize(1 << 20).WithValueThreshold(32 << 10).WithBlockCacheSize(8 << 20).WithIndexCacheSize(8 << 20)
	w.db, err = badger.Open(opts)
	must(w.t, err)
	w.fs, err = newFaultFiles(w.path("blocks"))
	must(w.t, err)
	w.mem = map[string][]byte{}
	w.s, err = OpenStore(StoreConfig{
		DB: w.db, Prefix: []byte("b/"), files: w.fs, UncleanStop: w.life > 0, PackBytes: 1 << 20, Lender: w.shelf(),
		syncIndex: func(sync func() error) error { return errors.Join(sync(), w.saveLogs()) },
	})
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, w.db.Close()) })
}

// saveLogs remembers the database's logs as they are on the disk after a sync.
func (w *cutWorld) saveLogs() error {
	names, err := filepath.Glob(w.path("db/*.mem"))
	for _, n := range names {
		p, rerr := os.ReadFile(n)
		w.mem[n], err = p, errors.Join(err, rerr)
	}
	return err
}

func (w *cutWorld) step() {
	switch n := w.r.IntN(22); {
	case n < 8:
		w.putSome()
	case n < 12:
		w.putLeaves()
	case n < 14:
		w.writeBody()
	case n < 15:
		w.deleteOne()
	case n < 16:
		w.pinSome()
	case n < 17:
		must(w.t, w.s.rewriteAny(w.r))
	case n < 18:
		w.lend()
	case n < 19:
		w.giveBack()
	default:
		w.sync()
	}
}

// rewriteAny sweeps a random pack as rewriting does.
func (s *Store) rewriteAny(r *rand.Rand) error {
	vs := slices.DeleteFunc(s.victims(), func(v victim) bool { return v.pack == nil })
	if len(vs) == 0 {
		return nil
	}
	_, err := s.sweep(context.Background(), vs[r.IntN(len(vs))].pack, keepAll)
	return err
}

func (w *cutWorld) keep(e Entry) {
	w.all[e.Block.Cid()] = e.Block
	w.put[e.Block.Cid()] = true
}

func (w *cutWorld) putSome() {
	var es []Entry
	for range 1 + w.r.IntN(8) {
		w.next++
		e := Entry{Block: randBlock(w.t, w.next, 1+w.r.IntN(1<<(4+w.r.IntN(14))))}
		es = append(es, e)
		w.keep(e)
	}
	mustPut(w.t, w.s, es...)
}

func (w *cutWorld) putLeaves() {
	f := w.files[w.r.IntN(len(w.files))]
	i := w.r.IntN(len(f.leaves))
	es := f.leaves[i:min(len(f.leaves), i+1+w.r.IntN(3))]
	for _, e := range es {
		w.keep(e)
	}
	mustPut(w.t, w.s, es...)
}

func (w *cutWorld) writeBody() {
	w.next++
	f := makeFile(w.t, w.next, 4<<20+w.r.IntN(1<<20), 1<<20)
	b, err := w.s.CreateBody(w.t.Context(), uint64(len(f.bytes)))
	must(w.t, err)
	must(w.t, b.Put(w.t.Context(), 0, f.blocks()))
	if w.r.IntN(3) == 0 {
		b.Abort()
		return
	}
	must(w.t, b.Commit(w.t.Context(), f.root))
	for _, e := range f.leaves {
		w.keep(e)
	}
	w.whole[f.root] = f
}

func (w *cutWorld) deleteOne() {
	for c := range w.put {
		must(w.t, w.s.Delete(w.t.Context(), []cid.Cid{c}))
		delete(w.put, c)
		delete(w.acked, c)
		for root, f := range w.whole {
			if slices.ContainsFunc(f.leaves, func(e Entry) bool { return e.Block.Cid() == c }) {
				delete(w.whole, root)
				delete(w.solid, root)
			}
		}
		return
	}
}

func (w *cutWorld) pinSome() {
	w.next++
	root := randBlock(w.t, w.next, 8).Cid()
	members := slices.Collect(maps.Keys(w.all))
	members = members[:min(len(members), 5)]
	must(w.t, w.s.Pin(w.t.Context(), root, members))
	w.pins[root] = members
}

func (w *cutWorld) sync() {
	must(w.t, w.s.Sync(w.t.Context()))
	w.acked, w.solid, w.pinned = maps.Clone(w.put), maps.Clone(w.whole), maps.Clone(w.pins)
}

// cut ends this life; the next begins with what the disk may have.
func (w *cutWorld) cut() {
	w.s.life.Lock()
	w.s.closed = true
	w.s.life.Unlock()
	w.s.tasks.Wait()
	old := w.path("")
	w.life++
	must(w.t, os.MkdirAll(w.path("db"), 0o700))
	must(w.t, w.fs.cut(w.r, w.path("blocks")))
	must(w.t, w.s.fds.close())
	names, err := filepath.Glob(filepath.Join(old, "db/*"))
	must(w.t, err)
	for _, n := range names {
		if filepath.Base(n) == "LOCK" {
			continue
		}
		p, err := os.ReadFile(n)
		must(w.t, err)
		if strings.HasSuffix(n, ".mem") {
			p = w.mixLog(w.mem[n], p)
		}
		must(w.t, os.WriteFile(w.path("db/"+filepath.Base(n)), p, 0o600))
	}
}

// mixLog returns a log some of whose sectors never reached the disk after the last sync.
func (w *cutWorld) mixLog(synced, now []byte) []byte {
	lose := []float64{0, 0.2, 0.5, 1}[w.r.IntN(4)]
	out := slices.Clone(now)
	if len(synced) < len(out) {
		synced = append(synced, make([]byte, len(out)-len(synced))...)
	}
	for at := 0; at < len(out); at += sector {
		end := min(at+sector, len(out))
		if w.r.Float64() < lose {
			copy(out[at:end], synced[at:end])
		}
	}
	return out
}

// check opens what the cut left and looks at everything.
func (w *cutWorld) check() {
	w.t.Helper()
	w.start()
	for c := range w.acked {
		mustGet(w.t, w.s, w.all[c])
	}
	w.checkHonest()
	must(w.t, w.s.verifyAll(w.t.Context()))
	if st := w.s.Stats(); st.Unverified > 0 {
		w.t.Errorf("%d files are left unverified", st.Unverified)
	}
	for c := range w.acked {
		mustGet(w.t, w.s, w.all[c])
	}
	for _, f := range w.solid {
		mustBody(w.t, w.s, f)
	}
	w.checkHonest()
	w.checkPins()
	checkFigures(w.t, w.s)
	w.survivors()
	must(w.t, w.s.Close())
	w.restartDir()
}

// restartDir lets the next life begin where this check ended.
func (w *cutWorld) restartDir() {
	must(w.t, os.RemoveAll(w.path("blocks/morgue")))
	old := w.path("")
	must(w.t, w.db.Close())
	w.life++
	must(w.t, os.Rename(old, w.path("")))
}

// survivors makes what was found the base of the next life.
func (w *cutWorld) survivors() {
	for c := range w.all {
		ok, err := w.s.Has(w.t.Context(), c)
		must(w.t, err)
		w.put[c] = ok
		if !ok {
			delete(w.put, c)
		}
	}
	w.acked = maps.Clone(w.put)
	w.whole = maps.Clone(w.solid)
	w.pins = maps.Clone(w.pinned)
}

// checkHonest expects every answer to be right or ErrNotFound.
func (w *cutWorld) checkHonest() {
	w.t.Helper()
	for c, b := range w.all {
		got, err := w.s.Get(w.t.Context(), Want{CID: c})
		if errors.Is(err, ErrNotFound) {
			continue
		}
		must(w.t, err)
		if !bytes.Equal(got.RawData(), b.RawData()) {
			w.t.Fatalf("get %s: wrong bytes", c)
		}
	}
	for _, f := range append(slices.Collect(maps.Values(w.whole)), w.files...) {
		if fd, ok := w.s.Body(f.root); ok {
			got, err := io.ReadAll(fd)
			must(w.t, errors.Join(err, fd.Close()))
			if !bytes.Equal(got, f.bytes) {
				w.t.Fatal("a body with wrong bytes was given out")
			}
		}
	}
}

func (w *cutWorld) checkPins() {
	w.t.Helper()
	pins, err := w.s.Pins(w.t.Context())
	must(w.t, err)
	got := map[cid.Cid]int{}
	for _, p := range pins {
		got[p.Root] = p.Blocks
	}
	for root, members := range w.pinned {
		if got[root] != len(members) {
			w.t.Errorf("pin has %d members, want %d", got[root], len(members))
		}
	}
}

// checkFigures counts everything anew and compares.
func checkFigures(t *testing.T, s *Store) {
	t.Helper()
	ctx := context.Background()
	var nblocks int64
	live := map[uint64]int64{}
	below := s.ix.k(tagBlock, "")
	must(t, s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		ps := slices.DeleteFunc(decodePlaces(v), func(p place) bool { return !s.exists(p) })
		if len(ps) > 0 {
			nblocks++
		}
		for _, p := range ps {
			if p.kind == inPack {
				live[p.id] += packWeight(string(rest), p.n)
			}
		}
		return nil
	}))
	if st := s.Stats(); st.Blocks != nblocks {
		t.Errorf("stats say %d blocks, the index has %d", st.Blocks, nblocks)
	}
	var used int64
	for _, p := range s.packs {
		used += p.size
		if p.live.Load() != live[p.id] {
			t.Errorf("pack counts %d live bytes, the index has %d", p.live.Load(), live[p.id])
		}
	}
	var lent int64
	for _, b := range s.bodies {
		if b.lent() {
			lent += int64(b.haveBytes())
		} else {
			used += int64(b.haveBytes())
		}
	}
	if got := s.Stats().LentBytes; got != lent {
		t.Errorf("stats say %d bytes lent, bodies have %d", got, lent)
	}
	if s.used.Load() != used {
		t.Errorf("stats say %d bytes used, files have %d", s.used.Load(), used)
	}
	pinned := s.pinnedBytes.Load()
	must(t, s.sumPinned(ctx))
	if s.pinnedBytes.Load() != pinned {
		t.Errorf("stats say %d pinned bytes, the index has %d", pinned, s.pinnedBytes.Load())
	}
	roots := make(map[string]struct{})
	pins, err := s.Pins(ctx)
	must(t, err)
	for _, p := range pins {
		roots[string(p.Root.Bytes())] = struct{}{}
	}
	if !maps.Equal(roots, s.ix.roots.names) {
		t.Errorf("%d roots are known, the index has %d pins", s.ix.roots.count(), len(roots))
	}
}
