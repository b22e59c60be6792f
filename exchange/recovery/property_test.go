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

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

// codes are those that everything has to hold for.
var codes = [][2]int{{1, 2}, {2, 1}, {4, 2}, {8, 4}, {10, 4}, {16, 4}, {64, 32}}

// TestAnyLossOfEveryStripe loses up to m random shards of every stripe: all comes back bit for bit, of as many shards
// as a stripe has blocks. With one more lost from one stripe, its lost blocks fail and no others.
func TestAnyLossOfEveryStripe(t *testing.T) {
	for _, code := range codes {
		for seed := range uint64(12) {
			k, m := code[0], code[1]
			t.Run(fmt.Sprintf("%d,%d/%d", k, m, seed), func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, uint64(k)))
				n := 5*k + random.IntN(2*k) // the last stripe is shortened, mostly
				inWorld(t, k, m, n, Config{}, func(t *testing.T, w *world) {
					worst := random.IntN(len(w.stripes))
					beyond := w.loseShards(random, m, worst)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					w.readAll(ctx, beyond)
					w.countShards(worst)
				})
			})
		}
	}
}

// loseShards takes up to m shards of every stripe, and of one stripe m+1, one of its blocks among them. It returns the
// blocks that nothing brings back.
func (w *world) loseShards(random *rand.Rand, m, worst int) *cid.Set {
	beyond := cid.NewSet()
	for i, s := range w.stripes {
		shards := s.Shards()
		lose := random.Perm(len(shards))[:random.IntN(m+1)]
		if w.copies { // parity is one block, as often as it occurs
			lose = []int{0}
		}
		if i == worst {
			first := random.IntN(len(s.Data))
			lose = []int{first}
			for _, j := range random.Perm(len(shards)) {
				if j != first && len(lose) <= m {
					lose = append(lose, j)
				}
			}
		}
		for _, j := range lose {
			w.lose(shards[j].CID)
			if i == worst && j < len(s.Data) {
				beyond.Add(shards[j].CID)
			}
		}
	}
	return beyond
}

// readAll rescues every block that is lost, in no order and at once.
func (w *world) readAll(ctx context.Context, beyond *cid.Set) {
	w.t.Helper()
	var readers sync.WaitGroup
	for i, b := range w.data {
		if _, ok := w.peers[b.Cid()]; ok {
			continue
		}
		readers.Go(func() {
			got, err := w.Rescue(ctx, w.want(i))
			switch {
			case beyond.Has(b.Cid()):
				if !errors.Is(err, erasure.ErrTooFew) {
					w.t.Errorf("block %d, of which too little is left: %v", i, err)
				}
			case err != nil:
				w.t.Errorf("block %d: %v", i, err)
			case !bytes.Equal(got.RawData(), b.RawData()) || !got.Cid().Equals(b.Cid()):
				w.t.Errorf("block %d is another one", i)
			}
		})
	}
	readers.Wait()
}

// countShards fails the test if more shards came of a stripe than it has blocks, or any of one that lost none.
func (w *world) countShards(worst int) {
	w.t.Helper()
	for i, s := range w.stripes {
		came, lost := make(map[cid.Cid]struct{}), 0
		for j, shard := range s.Shards() {
			_, there := w.peers[shard.CID]
			if there && w.fetched[shard.CID] > 0 {
				came[shard.CID] = struct{}{}
			}
			if !there && j < len(s.Data) {
				lost++
			}
		}
		want := len(s.Data)
		if lost == 0 {
			want = 0
		}
		if i == worst && len(came) >= want || i != worst && len(came) != want {
			w.t.Errorf("%d shards came of stripe %d, which lost %d of %d blocks", len(came), i, lost, len(s.Data))
		}
	}
}

// TestHopelessStripesHoldNobodyUp has room in memory for one stripe, and rebuilds one while others wait for shards
// that nobody has. When one is there again, what waits for it comes too.
func TestHopelessStripesHoldNobodyUp(t *testing.T) {
	inWorld(t, 4, 2, 40, Config{Bytes: 10_000, GiveUp: time.Hour}, func(t *testing.T, w *world) {
		var readers sync.WaitGroup
		for i := range 36 { // nine stripes, of which three shards are left
			if i%4 != 3 {
				w.lose(w.data[i].Cid())
			}
		}
		for i := 0; i < 36; i += 4 {
			readers.Go(func() {
				b, err := w.Rescue(t.Context(), w.want(i))
				if err != nil || !bytes.Equal(b.RawData(), w.data[i].RawData()) {
					t.Errorf("block %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		time.Sleep(time.Second) // of the bubble
		w.lose(w.data[37].Cid())
		began := time.Now()
		if _, err := w.Rescue(t.Context(), w.want(37)); err != nil || time.Since(began) > time.Second {
			t.Errorf("beside stripes without hope: %v after %v", err, time.Since(began))
		}
		w.comeBack()
		readers.Wait()
	})
}

// comeBack gives everybody what was lost of all blocks.
func (w *world) comeBack() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.data {
		w.peers[b.Cid()] = b
	}
	close(w.back)
	w.back = make(chan struct{})
}

// TestStripeLargerThanTheBound is rebuilt alone.
func TestStripeLargerThanTheBound(t *testing.T) {
	inWorld(t, 64, 32, 128, Config{Bytes: 20_000}, func(t *testing.T, w *world) {
		var readers sync.WaitGroup
		for _, i := range []int{0, 64} {
			w.lose(w.data[i].Cid())
			readers.Go(func() {
				if _, err := w.Rescue(t.Context(), w.want(i)); err != nil {
					t.Error(err)
				}
			})
		}
		readers.Wait()
	})
}

// TestUselessManifestsDelayOnly: manifests that peers tell of, and that name shards which never come, or no stripe at
// all, are tried beside the one that helps, which then is remembered and tried first.
func TestUselessManifestsDelayOnly(t *testing.T) {
	var w *world
	var useless []cid.Cid
	ask := func(context.Context, cid.Cid) ([]cid.Cid, error) { return append(useless, w.manifest), nil }
	inWorld(t, 4, 2, 8, Config{Ask: ask}, func(t *testing.T, world *world) {
		w = world
		w.lose(w.data[0].Cid(), w.data[5].Cid())
		useless = []cid.Cid{w.forge(t, nil), w.forge(t, w.strangers(t, time.Hour)), block(t, []byte("nothing")).Cid()}
		began := time.Now()
		if _, err := w.Rescue(t.Context(), w.want(0)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		known, err := w.cfg.Register.Of(t.Context(), w.root)
		if err != nil || len(known) != 1 || known[0] != w.manifest {
			t.Errorf("remembered %v, %v", known, err)
		}
		began = time.Now()
		if _, err := w.Rescue(t.Context(), w.want(5)); err != nil || time.Since(began) > 500*time.Millisecond {
			t.Errorf("the next one: %v after %v", err, time.Since(began))
		}
	})
}

// strangers is a stripe of the first block and others that come late.
func (w *world) strangers(t *testing.T, late time.Duration) []erasure.Stripe {
	t.Helper()
	n := len(w.data[0].RawData())
	s := erasure.Stripe{Data: []erasure.Shard{{CID: w.data[0].Cid(), Bytes: n}}}
	for i := range 5 {
		b := block(t, bytes.Repeat([]byte{byte(i), 77}, n)[:n])
		w.peers[b.Cid()], w.slow[b.Cid()] = b, late
		if i < 3 {
			s.Data = append(s.Data, erasure.Shard{CID: b.Cid(), Bytes: n})
		} else {
			s.Parity = append(s.Parity, erasure.Shard{CID: b.Cid(), Bytes: n})
		}
	}
	return []erasure.Stripe{s}
}

// forge makes a manifest for the world's dataset of these stripes.
func (w *world) forge(t *testing.T, stripes []erasure.Stripe) cid.Cid {
	t.Helper()
	mw, err := erasure.NewManifestWriter(w.root, 4, 2, func(p erasure.Part) error {
		w.peers[p.CID] = mustBlock(t, p.Data, p.CID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stripes {
		if err := mw.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	c, err := mw.Close()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
