package exchange

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	mh "github.com/multiformats/go-multihash"
)

// keySet is a store's worth of blocks in the order of their bytes.
type keySet struct {
	mu   sync.Mutex
	cids []cid.Cid
	fail error
	most int // asked for at once
	met  func()
}

func newKeySet(n int) *keySet {
	k := &keySet{}
	for i := range n {
		k.cids = append(k.cids, testCID(i))
	}
	slices.SortFunc(k.cids, compareCIDs)
	return k
}

func compareCIDs(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) }

func (k *keySet) add(c cid.Cid) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, _ := slices.BinarySearchFunc(k.cids, c, compareCIDs)
	k.cids = slices.Insert(k.cids, at, c)
}

// list implements Keys.
func (k *keySet) list(ctx context.Context, after cid.Cid, max int) ([]cid.Cid, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.met != nil {
		k.met()
	}
	k.most = max
	if k.fail != nil {
		return nil, k.fail
	}
	at := 0
	if after.Defined() {
		var found bool
		if at, found = slices.BinarySearchFunc(k.cids, after, compareCIDs); found {
			at++
		}
	}
	return slices.Clone(k.cids[at:min(at+max, len(k.cids))]), ctx.Err()
}

// runSweeper runs a sweeper; the function returned stops it and waits.
func runSweeper(t *testing.T, cfg SweepConfig) (*Sweeper, func()) {
	t.Helper()
	s, err := OpenSweeper(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
}

// wantTimes expects each block to have been announced so often.
func wantTimes(t *testing.T, log *provideLog, cids []cid.Cid, want int) {
	t.Helper()
	for i, c := range cids {
		if n := len(log.of(c)); n != want {
			t.Fatalf("block %d of %d was announced %d times, want %d", i, len(cids), n, want)
		}
	}
}

func (p *provideLog) total() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, times := range p.times {
		n += len(times)
	}
	return n
}

func newDisk() ds.Batching { return dssync.MutexWrap(ds.NewMapDatastore()) }

func TestSweepAndAgainBeforeExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys := newProvideLog(), newKeySet(1000)
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: newDisk()})
		defer stop()
		began := time.Now()
		synctest.Wait()
		wantTimes(t, log, keys.cids, 1)
		got := s.Stats()
		if got.Swept != 1000 || got.Announced != 1000 || got.Sweeping || !got.Began.Equal(began) || got.Ended.IsZero() || got.Strategy != AnnounceAll {
			t.Errorf("stats %+v", got)
		}
		sleep(t.Context(), 22*time.Hour-time.Second)
		synctest.Wait()
		wantTimes(t, log, keys.cids, 1)
		sleep(t.Context(), 2*time.Second)
		synctest.Wait()
		wantTimes(t, log, keys.cids, 2)
	})
}

// TestSweepTimesFromItsBeginning: a sweep that takes long is followed by the next in time for what it
// told first, and one that takes longer than that by the next at once.
func TestSweepTimesFromItsBeginning(t *testing.T) {
	for _, slow := range []time.Duration{30 * time.Minute, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			log, keys := newProvideLog(), newKeySet(10)
			log.slow = slow
			_, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: newDisk(),
				Workers: 1, Timeout: 4 * time.Hour})
			defer stop()
			began := time.Now()
			sleep(t.Context(), 50*time.Hour)
			synctest.Wait()
			times := log.of(keys.cids[0])
			if got, want := times[1].Sub(began), max(22*time.Hour, 10*slow); got != want {
				t.Errorf("at %v each, the second sweep began after %v, want %v", slow, got, want)
			}
		})
	}
}

func TestSweepGoesOnAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys, store := newProvideLog(), newKeySet(1000), newDisk()
		log.slow = time.Second
		cfg := SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: store, Workers: 10, Page: 50}
		s, stop := runSweeper(t, cfg)
		began := time.Now()
		sleep(t.Context(), 32500*time.Millisecond) // six pages and a half
		if got := s.Stats(); got.Swept != 300 || !got.Sweeping {
			t.Errorf("stats %+v, want 300 swept", got)
		}
		stop()
		if n := log.total(); n != 330 {
			t.Errorf("%d announcements had begun, want 330", n)
		}
		sleep(t.Context(), time.Hour)
		s, stop = runSweeper(t, cfg)
		defer stop()
		if got := s.Stats(); got.Swept != 300 || !got.Sweeping || got.Began.Unix() != began.Unix() {
			t.Errorf("stats after the restart %+v", got)
		}
		sleep(t.Context(), 10*time.Minute)
		synctest.Wait()
		wantTimes(t, log, keys.cids[:300], 1)
		wantTimes(t, log, keys.cids[330:], 1)
		wantTimes(t, log, keys.cids[300:330], 2) // of the page that was not whole
		sleep(t.Context(), 22*time.Hour-time.Since(began)-time.Second)
		wantTimes(t, log, keys.cids[:1], 1)
		sleep(t.Context(), 3*time.Second)
		wantTimes(t, log, keys.cids[:1], 2)
	})
}

// crowded is a provider map that counts goroutines.
type crowded struct {
	*provideLog
	most atomic.Int64
}

// Provide implements ProviderMap.
func (p *crowded) Provide(ctx context.Context, c cid.Cid) error {
	p.mu.Lock()
	p.most.Store(max(p.most.Load(), int64(runtime.NumGoroutine())))
	p.mu.Unlock()
	return p.provideLog.Provide(ctx, c)
}

// TestSweepManyBlocks: what is done at once, and kept, does not grow with the blocks.
func TestSweepManyBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 100_000
		log, keys := newProvideLog(), newKeySet(count)
		log.slow = 100 * time.Millisecond
		before, crowd := runtime.NumGoroutine(), &crowded{provideLog: log}
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: crowd, Datastore: newDisk()})
		defer stop()
		began := time.Now()
		sleep(t.Context(), time.Hour)
		synctest.Wait()
		if got := s.Stats(); got.Announced != count || got.Swept != count || got.Sweeping {
			t.Errorf("stats %+v", got)
		}
		wantTimes(t, log, keys.cids, 1)
		if log.most != 16 || keys.most != 512 {
			t.Errorf("%d announcements at once from pages of %d, want 16 of 512", log.most, keys.most)
		}
		// Those that have announced may not be gone yet, but are before the next page begins.
		if n := crowd.most.Load(); n > int64(before+512+16) {
			t.Errorf("%d goroutines, %d before", n, before)
		}
		if took := s.Stats().Ended.Sub(began); took > count/16*100*time.Millisecond*11/10 {
			t.Errorf("took %v", took)
		}
	})
}

// endless is as many blocks as asked for, of which none is kept: each has its number as its digest.
func endless(count uint64) Keys {
	return func(_ context.Context, after cid.Cid, max int) (out []cid.Cid, _ error) {
		next := uint64(0)
		if after.Defined() {
			next = binary.BigEndian.Uint64(after.Hash()[2:]) + 1
		}
		for ; next < count && len(out) < max; next++ {
			hash := append([]byte{mh.SHA2_256, 32}, binary.BigEndian.AppendUint64(nil, next)...)
			out = append(out, cid.NewCidV1(cid.Raw, append(hash, make([]byte, 24)...)))
		}
		return out, nil
	}
}

// weighed is a provider map that weighs the heap now and then.
type weighed struct {
	ProviderMap
	calls, most atomic.Uint64
}

// Provide implements ProviderMap.
func (p *weighed) Provide(context.Context, cid.Cid) error {
	if p.calls.Add(1)%20_000 == 0 {
		p.most.Store(max(p.most.Load(), heapBytes()))
	}
	return nil
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSweepMemory: what is kept does not grow with the blocks, newcomers among them.
func TestSweepMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 200_000
		scale := &weighed{}
		before := heapBytes()
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: endless(count), Providers: scale, Datastore: newDisk()})
		defer stop()
		for i := range 20_000 {
			s.Stored(t.Context(), testCID(i))
		}
		synctest.Wait()
		got := s.Stats()
		if got.Swept != count || got.Announced+got.Missed != count+20_000 || got.Announced != scale.calls.Load() {
			t.Errorf("stats %+v", got)
		}
		if most := scale.most.Load(); most > before+8<<20 {
			t.Errorf("%d bytes in use while %d blocks are announced, %d before", most, count, before)
		}
	})
}

func TestSweepWaitsForPeersAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys := newProvideLog(), newKeySet(500)
		var ready atomic.Bool
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnouncePinned, Keys: keys.list, Providers: log, Datastore: newDisk(),
			Ready: ready.Load, Workers: 4, Page: 100})
		defer stop()
		log.setFail(errors.New("nobody answers"))
		s.Pinned(t.Context(), testCID(9999))
		sleep(t.Context(), time.Hour)
		if got := s.Stats(); log.total() != 0 || !got.Began.IsZero() || got.Pending != 1 {
			t.Fatalf("%d announced with nobody there, %+v", log.total(), got)
		}
		ready.Store(true)
		sleep(t.Context(), 12*time.Hour)
		synctest.Wait()
		// Four at a time, each at 1, 3, 7 … s and from 17 min on every 10 min: none is passed over.
		got := s.Stats()
		if n := log.total(); n > 4*(11+6*12) || n < 4*(9+6*11) || got.Failed != uint64(n) || got.Swept != 0 || got.Left != 0 || len(log.times) > 4 {
			t.Errorf("%d attempts of %d blocks in 12 h, %+v", n, len(log.times), got)
		}
		log.setFail(nil)
		tried := log.total()
		sleep(t.Context(), 11*time.Minute)
		synctest.Wait()
		got = s.Stats()
		if n := log.total() - tried; n != 501 || got.Announced != 501 || got.Swept != 500 || got.Pending != 0 {
			t.Errorf("%d attempts when it was over, %+v", n, got)
		}
	})
}

// stubborn is a provider map that never takes one block.
type stubborn struct {
	*provideLog
	never cid.Cid
}

// Provide implements ProviderMap.
func (p stubborn) Provide(ctx context.Context, c cid.Cid) error {
	if err := p.provideLog.Provide(ctx, c); err != nil || !c.Equals(p.never) {
		return err
	}
	return errors.New("not that one")
}

// TestSweepLeavesWhatAlwaysFails: one block that can't be announced holds up no sweep.
func TestSweepLeavesWhatAlwaysFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys := newProvideLog(), newKeySet(200)
		never := keys.cids[20]
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: stubborn{log, never},
			Datastore: newDisk(), Page: 50})
		defer stop()
		sleep(t.Context(), time.Minute)
		synctest.Wait()
		got := s.Stats()
		if got.Swept != 200 || got.Announced != 199 || got.Failed != 5 || got.Left != 1 || got.Sweeping {
			t.Errorf("stats %+v", got)
		}
		sleep(t.Context(), 21*time.Hour)
		if n := len(log.of(never)); n != 5 {
			t.Errorf("tried %d times in a sweep, want 5", n)
		}
		sleep(t.Context(), 2*time.Hour)
		if n := len(log.of(never)); n != 10 {
			t.Errorf("tried %d times in two sweeps, want 10", n)
		}
	})
}

func TestSweepStrategyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, pinned, all, store := newProvideLog(), newKeySet(30), newKeySet(100), newDisk()
		run := func(strategy AnnounceStrategy, keys *keySet, announced int) {
			t.Helper()
			before := log.total()
			s, stop := runSweeper(t, SweepConfig{Strategy: strategy, Keys: keys.list, Providers: log, Datastore: store})
			defer stop()
			s.Stored(t.Context(), testCID(100)) // told, and in no set
			s.Pinned(t.Context(), testCID(200))
			sleep(t.Context(), time.Minute)
			synctest.Wait()
			if n := log.total() - before; n != announced {
				t.Errorf("%s: announced %d, want %d", strategy, n, announced)
			}
		}
		run(AnnounceRoots, all, 0)
		run(AnnouncePinned, pinned, 31)
		run(AnnouncePinned, pinned, 1) // swept a minute ago
		run(AnnounceAll, all, 101)
		run(AnnouncePinned, pinned, 31)
		run(AnnounceRoots, all, 0)
		run(AnnouncePinned, pinned, 31) // what it told may have expired meanwhile
		if n := len(log.of(testCID(200))); n != 4 {
			t.Errorf("a block just pinned was announced %d times, want 4", n)
		}
	})
}

// TestSweepLeavesOutWhatEverybodyHas: identity CIDs and the empty block, under any hash.
func TestSweepLeavesOutWhatEverybodyHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys := newProvideLog(), newKeySet(3)
		good := slices.Clone(keys.cids)
		var bad []cid.Cid
		for _, code := range []uint64{mh.SHA2_256, mh.SHA2_512, mh.BLAKE3, mh.BLAKE2B_MIN + 31, mh.IDENTITY} {
			c, err := (cid.Prefix{Version: 1, Codec: cid.Raw, MhType: code, MhLength: -1}).Sum(nil)
			if err != nil {
				t.Fatal(err)
			}
			keys.add(c)
			bad = append(bad, c)
		}
		other, err := (cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.BLAKE3, MhLength: -1}).Sum([]byte("something"))
		if err != nil {
			t.Fatal(err)
		}
		keys.add(other)
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: newDisk()})
		defer stop()
		s.Stored(t.Context(), append(bad, cid.Undef)...)
		synctest.Wait()
		wantTimes(t, log, append(good, other), 1)
		wantTimes(t, log, bad, 0)
		if got := s.Stats(); got.Pending != 0 || got.Announced != 4 {
			t.Errorf("stats %+v", got)
		}
	})
}

func TestSweepKeysFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys := newProvideLog(), newKeySet(10)
		keys.fail = errBroken
		asked := 0
		keys.met = func() { asked++ }
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: newDisk()})
		defer stop()
		sleep(t.Context(), time.Hour)
		synctest.Wait()
		if asked > 20 || s.Stats().Swept != 0 {
			t.Errorf("asked %d times in an hour, %+v", asked, s.Stats())
		}
		keys.mu.Lock()
		keys.fail = nil
		keys.mu.Unlock()
		sleep(t.Context(), 11*time.Minute)
		wantTimes(t, log, keys.cids, 1)
	})
}

func TestSweepRefuses(t *testing.T) {
	keys, log := newKeySet(1), newProvideLog()
	for name, cfg := range map[string]SweepConfig{
		"no datastore":     {Strategy: AnnounceAll, Keys: keys.list, Providers: log},
		"no keys":          {Strategy: AnnounceAll, Providers: log, Datastore: newDisk()},
		"no providers":     {Strategy: AnnouncePinned, Keys: keys.list, Datastore: newDisk()},
		"another strategy": {Strategy: "some", Keys: keys.list, Providers: log, Datastore: newDisk()},
	} {
		if _, err := OpenSweeper(t.Context(), cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: opened, %v", name, err)
		}
	}
}

func TestSweepState(t *testing.T) {
	whole := sweepState{strategy: AnnouncePinned, began: time.Unix(5, 0), ended: time.Unix(9, 0), after: testCID(1), swept: 7, owed: true}
	for _, want := range []sweepState{whole, {strategy: AnnounceRoots}, {strategy: AnnounceAll, began: time.Unix(1<<40, 0)}} {
		got, err := parseSweep(want.encode())
		if err != nil || got != want {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
	}
	good := whole.encode()
	unknown := slices.Clone(good)
	unknown[1] = 99
	for name, b := range map[string][]byte{"nothing": nil, "short": good[:sweepBytes-1], "half a CID": good[:sweepBytes+5],
		"another version": append([]byte{9}, good[1:]...), "an unknown strategy": unknown} {
		if _, err := parseSweep(b); err == nil {
			t.Errorf("parsed %s", name)
		}
	}
	store := newDisk()
	if err := store.Put(t.Context(), sweepKey, good[:9]); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSweeper(t.Context(), SweepConfig{Strategy: AnnouncePinned, Keys: newKeySet(1).list, Providers: newProvideLog(), Datastore: store})
	if err != nil || !s.Stats().Began.IsZero() {
		t.Errorf("opened over damage: %v", err)
	}
}

// TestSweepWithoutDisk: it goes on when nothing can be noted.
func TestSweepWithoutDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys := newProvideLog(), newKeySet(50)
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: brokenDatastore{newDisk()}})
		defer stop()
		s.Stored(t.Context(), testCID(100))
		synctest.Wait()
		wantTimes(t, log, append(keys.cids, testCID(100)), 1)
	})
}
