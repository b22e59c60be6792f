package exchange

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
)

func TestDownloadFetchesWhatIsNotHere(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(500, 1000, 20)
		p := s.net.add("p", all...)
		p.connect()
		here := all[:200]
		s.store.Put(s.ctx, arrivalsOf(here))
		d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{TotalBytes: 12345})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Wait(s.ctx); err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			if _, err := s.store.Get(s.ctx, b.Cid()); err != nil {
				t.Fatal(err)
			}
		}
		for _, b := range here {
			if p.sent[b.Cid()] > 0 {
				t.Fatal("a local block was fetched")
			}
		}
		got := d.Progress()
		if !got.Done || got.Blocks != uint64(len(all)) || got.FoundBlocks != got.Blocks || got.LocalBlocks != 200 || got.LocalBytes != 200*1000 || got.TotalBytes != 12345 {
			t.Errorf("%+v of %d blocks", got, len(all))
		}
		s.store.mu.Lock()
		defer s.store.mu.Unlock()
		for c, n := range s.store.puts {
			if n != 1 {
				t.Errorf("%s was stored %d times", c, n)
			}
		}
	})
}

func arrivalsOf(bs []blocks.Block) (as []Arrival) {
	for _, b := range bs {
		as = append(as, Arrival{Block: b})
	}
	return as
}

func TestEqualDownloadsShare(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(300, 10*kib, 20)
		p := s.net.add("p", all...)
		p.rate = mib
		p.connect()
		var watchers sync.WaitGroup
		for i := range 10 {
			d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			events := d.Events()
			if i == 9 { // the first to be told is the state so far
				if first := <-events; first.Blocks == 0 {
					t.Error("a late subscriber was told nothing")
				}
			}
			watchers.Go(func() {
				last := Progress{}
				for e := range events {
					if e.Blocks < last.Blocks || e.Bytes < last.Bytes {
						t.Errorf("progress went back from %+v to %+v", last, e)
					}
					last = e
				}
				if !last.Done || last.Blocks != uint64(len(all)) {
					t.Errorf("last event: %+v", last)
				}
			})
			if i > 6 { // nobody reads these until the end
				d.Events()
			}
			s.after(100 * time.Millisecond)
		}
		watchers.Wait()
		if n := s.sentTwice(); n != 0 {
			t.Errorf("%d blocks were sent twice", n)
		}
	})
}

func TestSlowSubscriberHoldsNothingUp(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(300, 1000, 20)
		s.net.add("p", all...).connect()
		d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		events := d.Events()
		if err := d.Wait(s.ctx); err != nil {
			t.Fatal(err)
		}
		if e, ok := <-events; !ok || !e.Done {
			t.Errorf("the last event is %+v", e)
		}
		if _, ok := <-events; ok {
			t.Error("the channel is not closed")
		}
		if e := <-d.Events(); e.Blocks != 0 {
			t.Error("a closed channel says something")
		}
	})
}

func TestLastIntentCancelsTheDownload(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(3000, 10*kib, 100)
		p := s.net.add("p", all...)
		p.rate = mib
		p.connect()
		start := func(ctx context.Context) *Download {
			d, err := s.Download(ctx, Want{CID: root.Cid()}, DownloadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		first := start(s.ctx)
		ctx, stop := context.WithCancel(s.ctx)
		second := start(ctx)
		s.after(time.Second)
		events := first.Events()
		first.Cancel()
		if err := first.Wait(s.ctx); !errors.Is(err, errWithdrawn) {
			t.Errorf("the cancelled one ends with %v", err)
		}
		s.after(time.Second)
		for range events { // it is closed, though the download goes on
		}
		if e := second.Progress(); e.Done || e.Blocks < 100 {
			t.Errorf("the other one stopped: %+v", e)
		}
		stop()
		if err := second.Wait(s.ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the other one ends with %v", err)
		}
		s.after(time.Second)
		if p.listLength() != 0 || s.Stats().Wants != 0 || s.Stats().Downloads != 0 {
			t.Errorf("%d on the list, %+v", p.listLength(), s.Stats())
		}
		third := start(s.ctx) // goes on where the others stopped
		if err := third.Wait(s.ctx); err != nil || third.Progress().LocalBlocks == 0 {
			t.Errorf("%v, %+v", err, third.Progress())
		}
	})
}

func TestFullDisk(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(50, 1000, 20)
		s.net.add("p", all...).connect()
		s.store.err = errors.New("disk is full")
		s.mustFetch(Want{CID: root.Cid()}, time.Second)
		d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Wait(s.ctx); !errors.Is(err, s.store.err) {
			t.Errorf("the download ends with %v", err)
		}
		for _, p := range s.Peers() {
			if p.Failures != 0 || p.Banned != 0 {
				t.Errorf("a peer is blamed: %+v", p)
			}
		}
	})
}

func TestDownloadOfABadNodeFails(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		bad := newBlock(0x71, []byte("not CIDs"))
		root := node(leaf(1, 10), bad)
		s.net.add("p", root, leaf(1, 10), bad).connect()
		d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Wait(s.ctx); err == nil {
			t.Error("it succeeded")
		}
	})
}

// TestDownloadOfARepetitiveDAG: sixty levels of nodes that link the next one twice are sixty blocks.
func TestDownloadOfARepetitiveDAG(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		all := []blocks.Block{leaf(1, 1000)}
		for range 60 {
			below := all[len(all)-1]
			all = append(all, node(below, below))
		}
		root := all[len(all)-1]
		s.net.add("p", all...).connect()
		s.download(root, time.Minute)
	})
}

func TestDownloadsWaitForAPlace(t *testing.T) {
	simulate(t, Limits{Downloads: 2}, func(s *sim) {
		p := s.net.add("p")
		p.connect()
		var all []*Download
		for i := range 5 {
			root := node(leaf(i, 1000))
			p.gain(root)
			if i > 2 {
				p.gain(leaf(i, 1000))
			}
			d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, d)
			synctest.Wait()
		}
		s.after(time.Second)
		if st := s.Stats(); st.Downloads != 5 || st.Wants != 2 {
			t.Errorf("%d downloads, %d wants", st.Downloads, st.Wants)
		}
		for i := range 3 {
			all[i].Cancel()
		}
		for _, d := range all[3:] {
			if err := d.Wait(s.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestWalkIsBounded: a DAG of many more links than a download may keep.
func TestWalkIsBounded(t *testing.T) {
	simulate(t, Limits{DownloadLinks: 500}, func(s *sim) {
		const leaves = 20_000
		root, all := tree(leaves, 16, 100)
		s.net.add("p", all...).connect()
		s.store.Put(s.ctx, arrivalsOf(all[leaves:]))
		w := newWalk(s.Exchange, &transfer{root: Want{CID: root.Cid()}, part: wholeDAG})
		most := 0
		w.watch = func() { most = max(most, w.waiting+len(w.aside)) }
		if err := w.run(s.ctx); err != nil {
			t.Fatal(err)
		}
		if got := w.t.progress.Blocks; got != uint64(len(all)) {
			t.Errorf("%d blocks of %d", got, len(all))
		}
		t.Logf("at most %d links were kept", most)
		if most > 500+100+3*250 {
			t.Errorf("%d links were kept", most)
		}
	})
}

func TestNothingWorksAfterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newSimNet()
		x, err := New(Config{Network: net, Providers: net, Store: newSimStore(), Links: simLinks})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- x.Run(ctx) }()
		synctest.Wait()
		net.add("p").connect()
		root := leaf(1, 10)
		waiting := make(chan error, 2)
		d, err := x.Download(t.Context(), Want{CID: root.Cid()}, DownloadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		go func() { waiting <- d.Wait(t.Context()) }()
		go func() {
			_, err := x.Fetch(t.Context(), Want{CID: leaf(2, 10).Cid()})
			waiting <- err
		}()
		synctest.Wait()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-waiting; err == nil {
				t.Error("a waiting caller was told that all went well")
			}
		}
		if _, err := x.Fetch(t.Context(), Want{CID: root.Cid()}); !errors.Is(err, ErrClosed) {
			t.Errorf("fetch: %v", err)
		}
		if _, err := x.Download(t.Context(), Want{CID: root.Cid()}, DownloadOptions{}); !errors.Is(err, ErrClosed) {
			t.Errorf("download: %v", err)
		}
		if err := x.Run(t.Context()); err == nil {
			t.Error("it ran twice")
		}
		if x.Stats() != (Stats{}) || x.Peers() != nil {
			t.Error("there are figures after the end")
		}
		net.tasks.Wait()
	})
}
