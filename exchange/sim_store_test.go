package exchange

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// TestPeersWaitWhileTheStoreIsBehind: no more is taken from the network than may wait for the store,
// peers that are not heard then are not blamed, and all goes on once the store does.
func TestPeersWaitWhileTheStoreIsBehind(t *testing.T) {
	simulate(t, Limits{StoreBytes: 4 * mib, TotalBytes: 16 * mib}, func(s *sim) {
		gate := make(chan struct{})
		s.store.gate = gate
		root, all := tree(40, mib, 100)
		a := s.net.add("A", all...)
		a.connect()
		var readers sync.WaitGroup
		for _, b := range all {
			readers.Go(func() { s.mustFetch(Want{CID: b.Cid(), Dataset: root.Cid()}, time.Hour) })
		}
		s.after(time.Minute)
		st := s.Stats()
		// One batch may be stepped in before anybody looks; a message of the network is one block or two.
		if st.Storing < 4*mib || st.Storing > 8*mib || st.Resolved != 0 {
			t.Errorf("while the store is behind: %+v", st)
		}
		// Callers are heard all the same, and the machine can be asked.
		if took, err := s.fetch(Want{CID: leaf(1000, 10).Cid()}, time.Second); !errors.Is(err, ErrTimeout) || took != time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		close(gate)
		readers.Wait()
		st = s.Stats()
		if st.Bans != 0 || st.Storing != 0 || st.Late > 40 {
			t.Errorf("in the end: %+v", st)
		}
		for _, p := range s.Peers() {
			if p.Failures != 0 {
				t.Errorf("a peer is blamed: %+v", p)
			}
		}
	})
}

// TestStopsWhileTheStoreIsBehind: what waits for the store ends with Run.
func TestStopsWhileTheStoreIsBehind(t *testing.T) {
	simulate(t, Limits{StoreBytes: mib}, func(s *sim) {
		ctx, stop := context.WithCancel(s.ctx)
		gate := make(chan struct{})
		s.store.gate = gate
		b := leaf(1, mib)
		s.net.add("A", b).connect()
		ended := make(chan error)
		go func() {
			_, err := s.Fetch(ctx, Want{CID: b.Cid()})
			ended <- err
		}()
		s.after(time.Second)
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if st := s.Stats(); st.Storing != mib {
			t.Errorf("%d bytes wait for the store", st.Storing)
		}
		close(gate)
	})
}
