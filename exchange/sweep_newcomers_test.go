package exchange

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
)

// TestSweepNewcomers: blocks that come during and after a sweep are announced as they come, behind its
// place too.
func TestSweepNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys := newProvideLog(), newKeySet(1000)
		log.slow = time.Second
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: newDisk(), Workers: 10, Page: 100})
		defer stop()
		var came []cid.Cid
		for i := range 50 {
			sleep(t.Context(), 500*time.Millisecond)
			c := testCID(5000 + i)
			came = append(came, c)
			keys.add(c)
			s.Stored(t.Context(), c, c)
			s.Pinned(t.Context(), testCID(7000)) // which that strategy is told by Stored
		}
		sleep(t.Context(), 3*time.Second)
		synctest.Wait()
		for _, c := range came {
			if len(log.of(c)) == 0 {
				t.Fatal("a newcomer was not announced soon")
			}
		}
		sleep(t.Context(), time.Hour)
		for _, c := range came {
			if n := len(log.of(c)); n > 2 {
				t.Errorf("a newcomer was announced %d times", n)
			}
		}
		late := testCID(8000)
		s.Stored(t.Context(), late)
		synctest.Wait()
		sleep(t.Context(), time.Hour)
		if got := s.Stats(); len(log.of(late)) != 1 || len(log.of(testCID(7000))) != 0 || got.Pending != 0 || got.Missed != 0 || log.most != 10 {
			t.Errorf("%d at once, stats %+v", log.most, got)
		}
	})
}

// TestSweepBeginsEarlyWhenQueueOverflows: what found no room is announced by a sweep that comes soon, and
// such sweeps don't follow upon each other without rest.
func TestSweepBeginsEarlyWhenQueueOverflows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys := newProvideLog(), newKeySet(600)
		log.slow = time.Second
		s, stop := runSweeper(t, SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: newDisk(), Workers: 2, Queue: 20})
		defer stop()
		sleep(t.Context(), time.Hour) // the sweep took five minutes
		var came []cid.Cid
		for i := range 100 {
			came = append(came, testCID(5000+i))
			keys.add(came[i])
		}
		s.Stored(t.Context(), came...)
		if got := s.Stats(); got.Pending != 20 || got.Missed != 80 {
			t.Errorf("stats %+v", got)
		}
		overflowed := time.Now()
		sleep(t.Context(), time.Second)
		s.Stored(t.Context(), testCID(9998))
		if began := s.Stats().Began; !began.Equal(overflowed) {
			t.Errorf("began at %v, want at %v", began, overflowed)
		}
		sleep(t.Context(), time.Minute)
		s.Stored(t.Context(), came...) // during the sweep: the next comes early, too
		sleep(t.Context(), 6*time.Minute)
		got := s.Stats()
		if got.Sweeping || got.Swept != 700 {
			t.Errorf("stats %+v", got)
		}
		took := got.Ended.Sub(got.Began)
		sleep(t.Context(), time.Until(got.Ended.Add(took-time.Second)))
		if s.Stats().Sweeping {
			t.Error("no rest after an early sweep")
		}
		sleep(t.Context(), 2*time.Second)
		if !s.Stats().Sweeping {
			t.Error("the second early sweep did not begin")
		}
		sleep(t.Context(), 20*time.Hour)
		if n := len(log.of(keys.cids[0])); n != 3 {
			t.Errorf("swept %d times in a day, want 3", n)
		}
	})
}

// TestNewcomers: repeated blocks take no room, and too many make the queue overflow.
func TestNewcomers(t *testing.T) {
	open := func(strategy AnnounceStrategy) *Sweeper {
		s, err := OpenSweeper(t.Context(), SweepConfig{Strategy: strategy, Keys: newKeySet(0).list, Providers: newProvideLog(),
			Datastore: newDisk(), Queue: 10})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(AnnouncePinned)
	all := s.Newcomers()
	for range 50 {
		all.Add(testCID(0), cid.Undef, testCID(1))
	}
	s.Pinned(t.Context(), all.All()...)
	if got := s.Stats(); got.Pending != 2 || got.Missed != 0 {
		t.Errorf("two blocks: %+v", got)
	}
	for i := range 50 {
		all.Add(testCID(i))
	}
	s.Pinned(t.Context(), all.All()...)
	if got := s.Stats(); got.Pending != 10 || got.Missed != 1 {
		t.Errorf("fifty blocks for a queue of ten: %+v", got)
	}
	none := open(AnnounceRoots).Newcomers()
	if none.Add(testCID(0)); len(none.All()) != 0 {
		t.Error("blocks are collected that nobody wants to know of")
	}
}

// TestSweepAfterKill: blocks that waited when the process died are announced by a sweep that begins at
// the next start; after a clean stop with nothing waiting none does.
func TestSweepAfterKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, keys, disk := newProvideLog(), newKeySet(100), newDisk()
		cfg := SweepConfig{Strategy: AnnounceAll, Keys: keys.list, Providers: log, Datastore: disk}
		s, stop := runSweeper(t, cfg)
		sleep(t.Context(), time.Hour)
		log.setFail(errors.New("nobody answers"))
		s.Stored(t.Context(), testCID(500))
		keys.add(testCID(500))
		killed, err := disk.Get(t.Context(), sweepKey)
		if err != nil {
			t.Fatal(err)
		}
		log.setFail(nil)
		sleep(t.Context(), time.Hour)
		stop()
		before := log.total()
		s, stop = runSweeper(t, cfg)
		sleep(t.Context(), time.Hour)
		if n := log.total() - before; n != 0 {
			t.Errorf("%d announced after a clean stop", n)
		}
		s.Stored(t.Context(), testCID(501))
		sleep(t.Context(), 10*time.Minute) // that it is done is noted without a stop, too
		if b, err := disk.Get(t.Context(), sweepKey); err != nil || b[2] != 0 {
			t.Errorf("blocks are said to wait, %v", err)
		}
		stop()
		if err := disk.Put(t.Context(), sweepKey, killed); err != nil {
			t.Fatal(err)
		}
		before = log.total()
		_, stop = runSweeper(t, cfg)
		defer stop()
		synctest.Wait()
		if n := log.total() - before; n != 101 {
			t.Errorf("%d announced after a kill, want 101", n)
		}
	})
}
