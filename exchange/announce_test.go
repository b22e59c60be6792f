package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
)

// provideLog is a provider map that keeps what it was told to provide.
type provideLog struct {
	mu      sync.Mutex
	fail    error
	slow    time.Duration // how long an announcement takes
	times   map[cid.Cid][]time.Time
	running int
	most    int // running at once
}

func newProvideLog() *provideLog { return &provideLog{times: make(map[cid.Cid][]time.Time)} }

// FindProviders implements ProviderMap.
func (p *provideLog) FindProviders(context.Context, cid.Cid, int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	close(out)
	return out
}

// Provide implements ProviderMap.
func (p *provideLog) Provide(ctx context.Context, c cid.Cid) error {
	p.mu.Lock()
	p.times[c] = append(p.times[c], time.Now())
	p.running++
	p.most = max(p.most, p.running)
	fail, slow := p.fail, p.slow
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running--
	}()
	if slow > 0 && !sleep(ctx, slow) {
		return ctx.Err()
	}
	return fail
}

func (p *provideLog) setFail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

func (p *provideLog) of(c cid.Cid) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]time.Time(nil), p.times[c]...)
}

// runQueue runs a queue; the function returned stops it and waits.
func runQueue(t *testing.T, cfg AnnounceConfig) (*AnnounceQueue, func()) {
	t.Helper()
	q, err := OpenAnnounceQueue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	return q, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
}

func TestAnnounceAndAgainBeforeExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, store := newProvideLog(), dssync.MutexWrap(ds.NewMapDatastore())
		q, stop := runQueue(t, AnnounceConfig{Providers: log, Datastore: store})
		defer stop()
		c := testCID(1)
		if err := q.Announce(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(log.of(c)); n != 1 {
			t.Fatalf("announced %d times at once, want 1", n)
		}
		if err := q.Announce(t.Context(), c); err != nil { // fresh still
			t.Fatal(err)
		}
		sleep(t.Context(), 20*time.Hour)
		synctest.Wait()
		if n := len(log.of(c)); n != 1 {
			t.Fatalf("announced %d times in 20 h, want 1", n)
		}
		sleep(t.Context(), 2*time.Hour+time.Minute)
		synctest.Wait()
		if n := len(log.of(c)); n != 2 {
			t.Errorf("announced %d times in 22 h, want 2", n)
		}
		if s := q.Stats(); s != (AnnounceStats{Entries: 1}) {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestAnnounceWaitsForPeersAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, store := newProvideLog(), dssync.MutexWrap(ds.NewMapDatastore())
		var mu sync.Mutex
		ready := false
		q, stop := runQueue(t, AnnounceConfig{Providers: log, Datastore: store, Ready: func() bool {
			mu.Lock()
			defer mu.Unlock()
			return ready
		}})
		defer stop()
		c := testCID(1)
		log.setFail(errors.New("nobody answers"))
		if err := q.Announce(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		sleep(t.Context(), time.Hour)
		if n := len(log.of(c)); n != 0 {
			t.Fatalf("announced %d times with nobody there", n)
		}
		mu.Lock()
		ready = true
		mu.Unlock()
		sleep(t.Context(), 8*time.Second) // tried at 0, 1, 3, 7 s
		synctest.Wait()
		if n := len(log.of(c)); n != 4 {
			t.Errorf("tried %d times in 8 s, want 4", n)
		}
		sleep(t.Context(), 2*time.Hour)
		before := len(log.of(c))
		sleep(t.Context(), 10*time.Minute)
		synctest.Wait()
		if n := len(log.of(c)) - before; n != 1 {
			t.Errorf("tried %d times in 10 min after long failure, want 1", n)
		}
		if s := q.Stats(); s.Pending != 1 {
			t.Errorf("stats %+v, want one pending", s)
		}
		log.setFail(nil)
		sleep(t.Context(), 11*time.Minute)
		synctest.Wait()
		if s := q.Stats(); s.Pending != 0 {
			t.Errorf("stats %+v after success, want none pending", s)
		}
	})
}

func TestAnnounceSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, store := newProvideLog(), dssync.MutexWrap(ds.NewMapDatastore())
		cfg := AnnounceConfig{Providers: log, Datastore: store}
		q, stop := runQueue(t, cfg)
		done, failed, gone := testCID(1), testCID(2), testCID(3)
		for _, c := range []cid.Cid{done, gone} {
			if err := q.Announce(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		log.setFail(errors.New("nobody answers"))
		if err := q.Announce(t.Context(), failed); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := q.Withdraw(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := store.Put(t.Context(), ds.NewKey("damaged"), []byte{9}); err != nil {
			t.Fatal(err)
		}
		log.setFail(nil)
		q, stop = runQueue(t, cfg)
		defer stop()
		synctest.Wait()
		if n := len(log.of(failed)); n != 2 {
			t.Errorf("what had failed was announced %d times, want 2", n)
		}
		if n := len(log.of(done)); n != 1 {
			t.Errorf("what was announced was announced %d times after a restart, want 1", n)
		}
		sleep(t.Context(), 23*time.Hour)
		synctest.Wait()
		if n := len(log.of(done)); n != 2 {
			t.Errorf("announced %d times in 23 h over a restart, want 2", n)
		}
		if n := len(log.of(gone)); n != 1 {
			t.Errorf("what was withdrawn was announced %d times, want 1", n)
		}
		if s := q.Stats(); s.Entries != 2 {
			t.Errorf("stats %+v, want two entries", s)
		}
	})
}

func TestAnnounceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, store := newProvideLog(), dssync.MutexWrap(ds.NewMapDatastore())
		log.slow = time.Minute
		q, stop := runQueue(t, AnnounceConfig{Providers: log, Datastore: store, Workers: 3, Max: 20})
		defer stop()
		for i := range 20 {
			if err := q.Announce(t.Context(), testCID(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Announce(t.Context(), testCID(20)); !errors.Is(err, errAnnounceFull) {
			t.Errorf("announced into a full queue: %v", err)
		}
		sleep(t.Context(), 10*time.Minute)
		synctest.Wait()
		if log.most != 3 {
			t.Errorf("%d announcements at once, want 3", log.most)
		}
		for i := range 20 {
			if n := len(log.of(testCID(i))); n != 1 {
				t.Errorf("%d announced %d times, want 1", i, n)
			}
		}
	})
}

func TestAnnounceRefuses(t *testing.T) {
	q, err := OpenAnnounceQueue(t.Context(), AnnounceConfig{Providers: newProvideLog(), Datastore: ds.NewMapDatastore()})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Announce(t.Context(), cid.Undef); !errors.Is(err, ErrInvalid) {
		t.Errorf("announced nothing: %v", err)
	}
	if _, err := OpenAnnounceQueue(t.Context(), AnnounceConfig{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("opened without parts: %v", err)
	}
	broken := brokenDatastore{ds.NewMapDatastore()}
	q, err = OpenAnnounceQueue(t.Context(), AnnounceConfig{Providers: newProvideLog(), Datastore: broken})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Announce(t.Context(), testCID(1)); !errors.Is(err, errBroken) {
		t.Errorf("announce over a broken datastore: %v", err)
	}
	if s := q.Stats(); s.Entries != 0 {
		t.Errorf("stats %+v, want no entry that is not stored", s)
	}
}

var errBroken = fmt.Errorf("disk is broken")

// brokenDatastore takes no writes.
type brokenDatastore struct{ ds.Batching }

// Put implements ds.Datastore.
func (brokenDatastore) Put(context.Context, ds.Key, []byte) error { return errBroken }
