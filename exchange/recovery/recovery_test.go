package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange"
)

// world is a network, a local store and a recovery between them, in a bubble.
type world struct {
	t testing.TB
	*Recovery
	root     cid.Cid
	manifest cid.Cid
	data     []blocks.Block
	stripes  []erasure.Stripe

	mu      sync.Mutex
	peers   map[cid.Cid]blocks.Block // what somebody out there has
	slow    map[cid.Cid]time.Duration
	here    map[cid.Cid]blocks.Block // the local store
	fetched map[cid.Cid]int
	byChunk map[cid.Cid]map[cid.Cid]bool // blocks that somebody is found for only by this chunk
	put     int
	full    bool
	copies  bool          // k is 1
	back    chan struct{} // closed when what was lost is there again
}

// FetchPlain implements Engine: a block comes in 10 ms, or never.
func (w *world) FetchPlain(ctx context.Context, want exchange.Want, missing func()) (blocks.Block, error) {
	w.mu.Lock()
	b, ok := w.peers[want.CID]
	if chunks := w.byChunk[want.CID]; chunks != nil {
		chunks[want.Dataset] = true
	}
	wait := 10*time.Millisecond + w.slow[want.CID]
	if want.Dataset == w.root || want.Dataset == w.manifest { // else the engine shares it with the fetch that it helps
		w.fetched[want.CID]++
	}
	back := w.back
	w.mu.Unlock()
	if !ok {
		time.Sleep(5 * time.Millisecond)
		if missing != nil {
			missing()
			missing()
		}
		select {
		case <-back:
			return w.FetchPlain(ctx, want, missing)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Get implements Store.
func (w *world) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b, ok := w.here[c]; ok {
		return b, nil
	}
	return nil, exchange.ErrNotFound
}

// Put implements Store.
func (w *world) Put(_ context.Context, as []exchange.Arrival) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full {
		return errors.New("no room")
	}
	for _, a := range as {
		w.here[a.Block.Cid()] = a.Block
		w.put++
	}
	return nil
}

// lose takes a block from everybody.
func (w *world) lose(cs ...cid.Cid) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range cs {
		delete(w.peers, c)
	}
}

func block(t testing.TB, data []byte) blocks.Block {
	t.Helper()
	c, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustBlock(t testing.TB, data []byte, c cid.Cid) blocks.Block {
	t.Helper()
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inWorld runs f with a dataset of n random blocks protected by k, m, all of it out there and nothing here.
func inWorld(t *testing.T, k, m, n int, cfg Config, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, k, m, n)
		w.recover(t, cfg)
		f(t, w)
		w.Close()
		if s := w.Stats(); s.Active != 0 {
			t.Errorf("%d stripes are still being rebuilt", s.Active)
		}
	})
}

// newWorld makes a protected dataset that is out there.
func newWorld(t testing.TB, k, m, n int) *world {
	t.Helper()
	w := &world{t: t, peers: make(map[cid.Cid]blocks.Block), here: make(map[cid.Cid]blocks.Block), slow: make(map[cid.Cid]time.Duration),
		fetched: make(map[cid.Cid]int), back: make(chan struct{}), copies: k == 1}
	random := rand.New(rand.NewPCG(1, uint64(k*1000+m)))
	for i := range n {
		data := make([]byte, 1000+random.IntN(500))
		for j := range data {
			data[j] = byte(random.Uint32())
		}
		data[0] = byte(i)
		b := block(t, data)
		if w.copies { // parity is a copy, and of a raw block would have its CID
			b = mustBlock(t, data, cid.NewCidV1(cid.DagProtobuf, b.Cid().Hash()))
		}
		w.data = append(w.data, b)
		w.peers[b.Cid()] = b
	}
	w.root = w.data[0].Cid()
	w.protect(k, m)
	return w
}

// recover makes what is tested. It knows the manifest unless peers are to be asked.
func (w *world) recover(t testing.TB, cfg Config) {
	t.Helper()
	register, err := OpenRegister(t.Context(), dssync.MutexWrap(ds.NewMapDatastore()))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Ask == nil {
		if err := register.Add(t.Context(), w.root, w.manifest); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Engine, cfg.Store, cfg.Register = w, w, register
	if w.Recovery, err = New(cfg); err != nil {
		t.Fatal(err)
	}
}

// protect makes stripes of k blocks, parity and a manifest.
func (w *world) protect(k, m int) {
	w.t.Helper()
	codec, err := erasure.New(k, m)
	if err != nil {
		w.t.Fatal(err)
	}
	mw, err := erasure.NewManifestWriter(w.root, k, m, func(p erasure.Part) error {
		b, err := blocks.NewBlockWithCid(p.Data, p.CID)
		w.peers[p.CID] = b
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for at := 0; at < len(w.data); at += k {
		var shards []erasure.Shard
		var raw [][]byte
		for _, b := range w.data[at:min(at+k, len(w.data))] {
			shards = append(shards, erasure.Shard{CID: b.Cid(), Bytes: len(b.RawData())})
			raw = append(raw, b.RawData())
		}
		s, parity, err := codec.Protect(shards, raw, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		for i, p := range s.Parity {
			b, err := blocks.NewBlockWithCid(bytes.Clone(parity[i]), p.CID)
			if err != nil {
				w.t.Fatal(err)
			}
			w.peers[p.CID] = b
		}
		w.stripes = append(w.stripes, s)
		if err := mw.Add(s); err != nil {
			w.t.Fatal(err)
		}
	}
	if w.manifest, err = mw.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) want(i int) exchange.Want {
	return exchange.Want{CID: w.data[i].Cid(), Dataset: w.root}
}

func TestRescueWithAnyLoss(t *testing.T) {
	for lost := range 1 << 6 {
		losses := 0
		for i := range 6 {
			losses += lost >> i & 1
		}
		if lost&1 == 0 || losses > 3 {
			continue // the first block is the one that is asked for
		}
		t.Run(fmt.Sprintf("%06b", lost), func(t *testing.T) {
			inWorld(t, 4, 2, 4, Config{}, func(t *testing.T, w *world) {
				for i, s := range w.stripes[0].Shards() {
					if lost>>i&1 == 1 {
						w.lose(s.CID)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				b, err := w.Rescue(ctx, w.want(0))
				if losses > 2 {
					if err == nil {
						t.Errorf("a block came out of three shards")
					}
					return
				}
				if err != nil || !bytes.Equal(b.RawData(), w.data[0].RawData()) {
					t.Fatalf("rebuilt %v, %v", b, err)
				}
				for i, d := range w.data[1:] { // lost neighbours are kept
					i++
					if _, err := w.Get(ctx, d.Cid()); err != nil && lost>>i&1 == 1 {
						t.Errorf("block %d was lost and is not kept", i)
					}
				}
			})
		})
	}
}

func TestOneRescueForAllReaders(t *testing.T) {
	inWorld(t, 4, 2, 40, Config{}, func(t *testing.T, w *world) {
		w.lose(w.data[8].Cid(), w.data[9].Cid())
		var readers sync.WaitGroup
		for i := range 100 {
			readers.Go(func() {
				b, err := w.Rescue(t.Context(), w.want(8+i%2))
				if err != nil || !bytes.Equal(b.RawData(), w.data[8+i%2].RawData()) {
					t.Errorf("reader %d: %v", i, err)
				}
			})
		}
		readers.Wait()
		if s := w.Stats(); s.Stripes != 1 || s.Rebuilt != 2 || s.Shards != 5 || s.Blocks != 100 {
			t.Errorf("%+v", s)
		}
		for c, n := range w.fetched {
			if n > 1 && c.Prefix().Codec == cid.Raw { // the engine shares fetches of manifests' parts
				t.Errorf("%s was fetched %d times", c, n)
			}
		}
	})
}

func TestLocalShardsAreNotFetched(t *testing.T) {
	inWorld(t, 4, 2, 4, Config{}, func(t *testing.T, w *world) {
		for _, i := range []int{1, 3} {
			w.here[w.data[i].Cid()] = w.data[i]
		}
		w.lose(w.data[0].Cid())
		if _, err := w.Rescue(t.Context(), w.want(0)); err != nil {
			t.Fatal(err)
		}
		if s := w.Stats(); s.Shards != 2 || w.fetched[w.data[1].Cid()] != 0 {
			t.Errorf("%d shards were fetched, want 2", s.Shards)
		}
	})
}

func TestSlowShardsAreOvertaken(t *testing.T) {
	inWorld(t, 4, 2, 4, Config{MoreAfter: 100 * time.Millisecond}, func(t *testing.T, w *world) {
		w.lose(w.data[0].Cid())
		w.slow[w.data[1].Cid()] = time.Hour
		began := time.Now()
		if _, err := w.Rescue(t.Context(), w.want(0)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestRescueEndsWithItsReaders(t *testing.T) {
	inWorld(t, 4, 2, 4, Config{}, func(t *testing.T, w *world) {
		w.lose(w.data[0].Cid(), w.data[1].Cid(), w.data[2].Cid())
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := w.Rescue(ctx, w.want(0)); !errors.Is(err, erasure.ErrTooFew) || ctx.Err() != nil {
			t.Errorf("too few shards: %v", err)
		}
		w.slow[w.data[3].Cid()] = time.Hour // somebody has it: there is hope as long as anybody waits
		w.peers[w.data[1].Cid()] = w.data[1]
		if _, err := w.Rescue(ctx, w.want(0)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a shard that does not come: %v", err)
		}
		synctest.Wait()
		if s := w.Stats(); s.Active != 0 || s.Failures != 2 {
			t.Errorf("%+v", s)
		}
		clear(w.slow)
		// What comes back is used.
		if _, err := w.Rescue(t.Context(), w.want(0)); err != nil {
			t.Error(err)
		}
	})
}

func TestForgedManifest(t *testing.T) {
	inWorld(t, 2, 1, 2, Config{}, func(t *testing.T, w *world) {
		// A stripe that names a lost block beside parity of something else.
		other := block(t, bytes.Repeat([]byte{9}, len(w.data[1].RawData())))
		parity := block(t, bytes.Repeat([]byte{7}, max(len(w.data[0].RawData()), len(other.RawData()))))
		w.peers[other.Cid()], w.peers[parity.Cid()] = other, parity
		mw, err := erasure.NewManifestWriter(w.root, 2, 1, func(p erasure.Part) error {
			b, err := blocks.NewBlockWithCid(p.Data, p.CID)
			w.peers[p.CID] = b
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = mw.Add(erasure.Stripe{Data: []erasure.Shard{{CID: w.data[0].Cid(), Bytes: len(w.data[0].RawData())}, {CID: other.Cid(), Bytes: len(other.RawData())}},
			Parity: []erasure.Shard{{CID: parity.Cid(), Bytes: len(parity.RawData())}}})
		if err != nil {
			t.Fatal(err)
		}
		forged, err := mw.Close()
		if err != nil {
			t.Fatal(err)
		}
		w.lose(w.data[0].Cid())
		if err := w.cfg.Register.Add(t.Context(), w.root, forged); err != nil { // learned last, tried first
			t.Fatal(err)
		}
		b, err := w.Rescue(t.Context(), w.want(0))
		if err != nil || !bytes.Equal(b.RawData(), w.data[0].RawData()) {
			t.Fatalf("beside a forged manifest: %v", err)
		}
		if _, lied := w.forged[forged]; !lied || w.put != 0 {
			t.Errorf("lied: %v; %d blocks were kept", lied, w.put)
		}
		clear(w.here)
		if _, err := w.by(t.Context(), forged, w.root, w.want(0)); !errors.Is(err, ErrForged) {
			t.Errorf("the forged one alone: %v", err)
		}
	})
}

func TestPeersAreAskedForManifests(t *testing.T) {
	var w *world
	asked := 0
	ask := func(_ context.Context, root cid.Cid) ([]cid.Cid, error) {
		asked++
		if root != w.root {
			return nil, nil
		}
		return []cid.Cid{w.data[1].Cid(), w.manifest}, nil // the first is no manifest
	}
	inWorld(t, 4, 2, 8, Config{Ask: ask}, func(t *testing.T, world *world) {
		w = world
		w.lose(w.data[0].Cid(), w.data[5].Cid())
		for _, i := range []int{0, 5} {
			if _, err := w.Rescue(t.Context(), w.want(i)); err != nil {
				t.Fatal(err)
			}
		}
		if asked != 1 {
			t.Errorf("peers were asked %d times", asked)
		}
		stranger := exchange.Want{CID: w.data[0].Cid(), Dataset: w.data[2].Cid()}
		for range 3 {
			if _, err := w.Rescue(t.Context(), stranger); !errors.Is(err, ErrNoManifest) {
				t.Errorf("another dataset: %v", err)
			}
		}
		if asked != 2 {
			t.Errorf("peers were asked %d times", asked)
		}
	})
}

// TestPeersThatCameAreAsked: who knows of no manifest is asked again when its patience is over, or others have come.
func TestPeersThatCameAreAsked(t *testing.T) {
	var w *world
	asked, news := 0, uint64(1)
	ask := func(_ context.Context, root cid.Cid) ([]cid.Cid, error) {
		if asked++; news < 3 {
			return nil, nil
		}
		return []cid.Cid{w.manifest}, nil
	}
	inWorld(t, 4, 2, 8, Config{Ask: ask, News: func() uint64 { return news }}, func(t *testing.T, world *world) {
		w = world
		w.lose(w.data[0].Cid())
		for i, step := range []struct {
			pause time.Duration
			news  uint64
			asked int
		}{{0, 1, 1}, {5 * time.Second, 1, 1}, {0, 2, 2}, {100 * time.Millisecond, 2, 2}, {11 * time.Second, 2, 3}, {100 * time.Millisecond, 3, 3}} {
			time.Sleep(step.pause) // virtual
			news = step.news
			if _, err := w.Rescue(t.Context(), w.want(0)); !errors.Is(err, ErrNoManifest) || asked != step.asked {
				t.Fatalf("step %d: %d askings, want %d: %v", i, asked, step.asked, err)
			}
		}
		time.Sleep(time.Second) // virtual
		if _, err := w.Rescue(t.Context(), w.want(0)); err != nil || asked != 4 {
			t.Errorf("%d askings: %v", asked, err)
		}
	})
}

func TestStripesAreBoundedInMemory(t *testing.T) {
	inWorld(t, 4, 2, 40, Config{Bytes: 20_000}, func(t *testing.T, w *world) {
		var readers sync.WaitGroup
		for i := 0; i < 40; i += 4 {
			w.lose(w.data[i].Cid())
			readers.Go(func() {
				if _, err := w.Rescue(t.Context(), w.want(i)); err != nil {
					t.Error(err)
				}
			})
		}
		readers.Wait()
	})
	inWorld(t, 4, 2, 4, Config{Bytes: 5000, Stripe: 8000}, func(t *testing.T, w *world) {
		w.lose(w.data[0].Cid())
		if _, err := w.Rescue(t.Context(), w.want(0)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a stripe above the bound: %v", err)
		}
	})
}

func TestFullStoreWithholdsNothing(t *testing.T) {
	inWorld(t, 4, 2, 4, Config{}, func(t *testing.T, w *world) {
		w.lose(w.data[2].Cid())
		w.full = true
		if _, err := w.Rescue(t.Context(), w.want(2)); err != nil {
			t.Error(err)
		}
	})
}

func TestRegisterRemembers(t *testing.T) {
	store := dssync.MutexWrap(ds.NewMapDatastore())
	r, err := OpenRegister(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	root := block(t, []byte("root")).Cid()
	var last cid.Cid
	for i := range maxManifests + 3 {
		last = block(t, []byte{byte(i)}).Cid()
		for range 2 {
			if err := r.Add(t.Context(), root, last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := store.Put(t.Context(), ds.NewKey("nonsense"), []byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), ds.NewKey(last.String()), []byte{200, 1}); err != nil {
		t.Fatal(err)
	}
	if r, err = OpenRegister(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	got, err := r.Of(t.Context(), root)
	if err != nil || len(got) != maxManifests || got[0] != last || len(r.Roots()) != 1 {
		t.Errorf("%d manifests are known, the first %v, of %d roots; %v", len(got), got[0], len(r.Roots()), err)
	}
}

// TestChunksAreLookedFor: shards that nobody is known to have are looked for by their chunks as well.
func TestChunksAreLookedFor(t *testing.T) {
	inWorld(t, 4, 2, 8, Config{}, func(t *testing.T, w *world) {
		m, err := w.open(t.Context(), w.manifest)
		if err != nil {
			t.Fatal(err)
		}
		found, err := m.Find(t.Context(), w.data[0].Cid())
		if err != nil {
			t.Fatal(err)
		}
		lost := []int{0, 2}
		w.byChunk = make(map[cid.Cid]map[cid.Cid]bool)
		for _, i := range lost {
			c := found.Stripe.Shards()[i].CID
			w.lose(c)
			w.byChunk[c] = make(map[cid.Cid]bool)
		}
		if _, err := w.Rescue(t.Context(), exchange.Want{CID: found.Stripe.Shards()[0].CID, Dataset: w.root}); err != nil {
			t.Fatal(err)
		}
		for _, i := range lost {
			if c := found.Stripe.Shards()[i].CID; !w.byChunk[c][found.Chunks[i]] {
				t.Errorf("shard %d was not looked for by its chunk", i)
			}
		}
	})
}
