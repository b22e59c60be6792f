package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// served runs a raw stream to the provider: fn writes whatever it likes.
func (n *node) served(from peer.ID, fn func(s net.Conn)) error {
	n.t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- n.p.Serve(context.Background(), from, theirs) }()
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(io.Discard, ours) })
	fn(ours)
	err := <-done
	_ = ours.Close()
	reader.Wait()
	return err
}

// othersAreServed proves that an honest writer gets on.
func (n *node) othersAreServed(seed uint64) {
	n.t.Helper()
	l := n.newLink(fmt.Sprintf("honest %d", seed), 1, makePiece(n.t, 1000+seed, 70_000))
	l.mustStore()
	must(n.t, l.release())
	n.checkSums()
}

func TestGarbage(t *testing.T) {
	n := newNode(t, nil)
	for name, b := range map[string][]byte{
		"nothing": {}, "zeros": make([]byte, 100), "a billion segments": {0xff, 0xff, 0xff, 0x7f, 4<<3 | 2},
		"text": []byte("GET / HTTP/1.1\r\n\r\n"), "cut off": {100, 1<<3 | 2, 5}, "endless length": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		err := n.served("mallory", func(s net.Conn) {
			_, _ = s.Write(b)
			_ = s.Close()
		})
		if err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	n.othersAreServed(1)
}

func TestLies(t *testing.T) {
	n := newNode(t, nil)
	pc := makePiece(t, 1, 100_000, 50_000)
	l := n.newLink("mallory", 1, pc)
	t.Run("descriptor of another chunk", func(t *testing.T) {
		q := l.request()
		q.Descriptor = makePiece(t, 2, 150_000).descriptor
		wantRefusal(t, n.ask(l.from, q, &seal.StoreAnswer{}), seal.RefusedMismatch)
		q = l.request()
		q.Descriptor = []byte("no descriptor")
		wantRefusal(t, n.ask(l.from, q, &seal.StoreAnswer{}), seal.RefusedMismatch)
		q = l.request()
		q.Bytes--
		wantRefusal(t, n.ask(l.from, q, &seal.StoreAnswer{}), seal.RefusedMismatch)
	})
	_, err := l.agree()
	must(t, err)
	t.Run("data before the map", func(t *testing.T) {
		_, err := l.send(seal.AllSegments(1))
		wantRefusal(t, err, seal.RefusedNotStored)
	})
	t.Run("map and root", func(t *testing.T) {
		q := &seal.Segments{Link: l.id, Key: l.key, Root: [32]byte{1}, Map: l.m}
		wantRefusal(t, n.ask(l.from, q, &seal.SegmentsAnswer{}), seal.RefusedMismatch)
		short := makePiece(t, 3, 100)
		m, err := l.key.Seal(make([]byte, 100), short.bytes)
		must(t, err)
		q = &seal.Segments{Link: l.id, Key: l.key, Root: m.Root(), Map: m}
		wantRefusal(t, n.ask(l.from, q, &seal.SegmentsAnswer{}), seal.RefusedMismatch)
	})
	missing, err := l.sendMap()
	must(t, err)
	t.Run("another map", func(t *testing.T) {
		other := *l
		other.key[0] ^= 1
		other.m, err = other.key.Seal(make([]byte, len(pc.bytes)), pc.bytes)
		must(t, err)
		_, err := other.sendMap()
		wantRefusal(t, err, seal.RefusedMismatch)
	})
	t.Run("segments", func(t *testing.T) {
		for name, write := range map[string]func(s net.Conn) error{
			"wrong bytes":  func(s net.Conn) error { return seal.WriteSegment(s, 0, make([]byte, seal.SegmentBytes)) },
			"short":        func(s net.Conn) error { return seal.WriteSegment(s, 0, l.segment(0)[1:]) },
			"out of range": func(s net.Conn) error { return seal.WriteSegment(s, 3, l.segment(0)) },
			"wrong place":  func(s net.Conn) error { return seal.WriteSegment(s, 1, l.segment(0)) },
		} {
			err := n.talk(l.from, func(s net.Conn) error {
				if err := errors.Join(seal.WriteMessage(s, &seal.Data{Link: l.id}), write(s)); err != nil {
					return err
				}
				var a seal.DataAnswer
				return errors.Join(seal.NewReader(s).ReadAnswer(&a), a.Refused())
			})
			if !errors.Is(err, &seal.Refusal{Code: seal.RefusedMismatch}) {
				t.Errorf("%s: %v", name, err)
			}
		}
		err := n.served(l.from, func(s net.Conn) {
			must(t, seal.WriteMessage(s, &seal.Data{Link: l.id}))
			_, _ = s.Write([]byte{0xff, 0xff, 0x7f}) // a frame of 2 MiB
		})
		if !errors.Is(err, seal.ErrMalformed) {
			t.Errorf("a segment over size: %v", err)
		}
		err = n.served(l.from, func(s net.Conn) { // the same for ever
			must(t, seal.WriteMessage(s, &seal.Data{Link: l.id}))
			for seal.WriteSegment(s, 0, l.segment(0)) == nil {
			}
		})
		must(t, err) // it was answered
	})
	t.Run("signature before the data", func(t *testing.T) {
		_, err := l.sign()
		wantRefusal(t, err, seal.RefusedNotStored)
	})
	missing, err = l.send(missing)
	must(t, err)
	if missing.Count() > 0 {
		t.Errorf("%d segments are missing", missing.Count())
	}
	if got := n.p.Stats(); got.BadSegments != 4 {
		t.Errorf("%d bad segments are counted", got.BadSegments)
	}
	n.othersAreServed(2)
}

// A writer whose blocks are not those of the descriptor gets no pledge, and leaves nothing.
func TestWrongBlocks(t *testing.T) {
	n := newNode(t, nil)
	l := n.newLink("mallory", 1, makePiece(t, 1, 100_000, 50_000))
	other := makePiece(t, 2, 100_000, 50_000)
	var err error
	l.m, err = l.key.Seal(l.sealed, other.bytes)
	must(t, err)
	_, err = l.agree()
	must(t, err)
	missing, err := l.sendMap()
	must(t, err)
	_, err = l.send(missing)
	wantRefusal(t, err, seal.RefusedMismatch)
	_, err = l.sign()
	wantRefusal(t, err, seal.RefusedUnknownLink)
	if st := n.p.Stats(); st.UsedBytes != 0 || st.Lies != 1 {
		t.Errorf("%d bytes are used, %d lies counted", st.UsedBytes, st.Lies)
	}
	for _, s := range append(l.piece.chunk, other.chunk...) {
		if ok, err := n.p.Has(t.Context(), s.CID); ok || err != nil {
			t.Errorf("a block of the lie is served (%v)", err)
		}
	}
	n.checkSums()
}

// What belongs to another writer can't be reached, whatever IDs are used.
func TestAnothersLinks(t *testing.T) {
	n := newNode(t, nil)
	ann := n.newLink("ann", 1, makePiece(t, 1, 70_000))
	pledge := ann.mustStore()
	bob := *ann
	_, bob.from = testKey(t, "bob")
	_, err := bob.sign()
	wantRefusal(t, err, seal.RefusedUnknownLink)
	_, err = bob.audit(0)
	wantRefusal(t, err, seal.RefusedUnknownLink)
	_, err = bob.sendMap()
	wantRefusal(t, err, seal.RefusedUnknownLink)
	_, err = bob.send(seal.AllSegments(2))
	wantRefusal(t, err, seal.RefusedUnknownLink)
	_, err = bob.renew(linkID(2), ann.expiry.Add(time.Hour), 0)
	wantRefusal(t, err, seal.RefusedUnknownLink)
	wantRefusal(t, bob.pay(1), seal.RefusedUnknownLink)
	wantRefusal(t, bob.release(), seal.RefusedUnknownLink)
	again, err := ann.sign()
	must(t, err)
	if string(again.Signature) != string(pledge.Signature) {
		t.Error("the pledge has changed")
	}
	other := n.newLink("bob", 1, ann.piece) // the same link ID, and the same chunk: a copy of his own
	if p := other.mustStore(); p.SealedRoot == pledge.SealedRoot {
		t.Error("two writers have one sealed copy")
	}
	if st := n.p.Stats(); st.Whole != 2 {
		t.Errorf("%d copies, want 2", st.Whole)
	}
	must(t, other.release())
	if _, err := n.p.Get(t.Context(), ann.piece.chunk[0].CID); err != nil {
		t.Errorf("after the other's release: %v", err)
	}
	n.checkSums()
}

// Thousands of agreements without data cost a bounded share of the quota, and lapse.
func TestAgreementsWithoutData(t *testing.T) {
	n := newNode(t, func(c *Config) {
		c.Limits.ReservedPerPeer, c.Limits.ReservedBytes, c.Limits.Agreements = 16<<20, 64<<20, 100
	})
	refused := map[seal.RefusalCode]int{}
	for i := range 3000 {
		l := &link{n: n, from: peer.ID(fmt.Sprintf("sybil %d", i%40)), expiry: n.clock.now().Add(time.Hour)}
		if i%100 == 0 || i < 400 {
			l.piece = makePiece(t, uint64(i%100), 1<<20)
		} else {
			l.piece = makePiece(t, uint64(i%5), 1<<10)
		}
		copy(l.id[:], fmt.Sprint(i))
		_, err := l.agree()
		var r *seal.Refusal
		if errors.As(err, &r) {
			refused[r.Code]++
		} else {
			must(t, err)
		}
		if st := n.p.Stats(); st.ReservedBytes > 64<<20 || st.Agreements > 100 {
			t.Fatalf("%d bytes are reserved by %d agreements", st.ReservedBytes, st.Agreements)
		}
	}
	if refused[seal.RefusedLimit] < 2000 {
		t.Errorf("refusals: %v", refused)
	}
	n.checkSums()
	n.clock.advance(11 * time.Minute)
	n.tend()
	n.checkSums()
	if st := n.p.Stats(); st.UsedBytes != 0 || st.Agreements != 0 || st.Tombstones != 0 || len(n.p.books.writers) != 0 {
		t.Errorf("after the deadline: %+v", st)
	}
	must(t, n.p.sweepWriters())
	all, err := n.p.Earnings(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("%d writers are remembered (%v)", len(all), err)
	}
	n.othersAreServed(3)
}

// Streams that stall are closed; others are served meanwhile, and no more than three of one peer.
func TestSlowDrip(t *testing.T) {
	n := newNode(t, func(c *Config) { c.Patience = 300 * time.Millisecond })
	l := n.newLink("ann", 1, makePiece(t, 1, 200_000))
	_, err := l.agree()
	must(t, err)
	missing, err := l.sendMap()
	must(t, err)
	var wg sync.WaitGroup
	errs := make([]error, 3)
	begun := make(chan struct{}, 3)
	for i := range errs {
		wg.Go(func() {
			errs[i] = n.served(l.from, func(s net.Conn) {
				must(t, seal.WriteMessage(s, &seal.Data{Link: l.id}))
				begun <- struct{}{}
				for { // a byte now and then: the frame of a segment never ends
					if _, err := s.Write([]byte{0xff}[:1]); err != nil {
						return
					}
					if _, err := s.Write([]byte{0xff, 3}); err != nil { // now a frame of 64 KiB has begun
						return
					}
					for range 1000 {
						if _, err := s.Write([]byte{1}); err != nil {
							return
						}
						pause(t.Context(), 5*time.Millisecond)
					}
				}
			})
		})
	}
	for range errs {
		<-begun
	}
	_, err = l.sign()
	wantRefusal(t, err, seal.RefusedBusy)
	n.othersAreServed(4)
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			t.Error("a drip was served to its end")
		}
	}
	_, err = l.send(missing)
	must(t, err)
}

// The whole house is closed to streams over the limit, whoever sends them, and open again after.
func TestStreamLimits(t *testing.T) {
	n := newNode(t, func(c *Config) { c.Limits.Streams, c.Patience = 5, 10*time.Second })
	var wg sync.WaitGroup
	var conns []net.Conn
	for i := range 5 {
		ours, theirs := net.Pipe()
		conns = append(conns, ours)
		wg.Go(func() { _ = n.p.Serve(context.Background(), peer.ID(fmt.Sprint("peer ", i)), theirs) })
		_, err := ours.Write([]byte{2}) // the length of a request that never comes
		must(t, err)
	}
	wantRefusal(t, n.ask("another", &seal.Quote{}, &seal.QuoteAnswer{}), seal.RefusedBusy)
	for _, c := range conns {
		must(t, c.Close())
	}
	wg.Wait()
	must(t, n.ask("another", &seal.Quote{}, &seal.QuoteAnswer{}))
	if len(n.p.gate.peers) != 0 || n.p.gate.all != 0 {
		t.Errorf("the gate counts %d streams", n.p.gate.all)
	}
}

// Large requests that are begun and not ended share a bounded memory.
func TestMemoryOfRequests(t *testing.T) {
	n := newNode(t, func(c *Config) { c.Limits.MemoryBytes = 4 << 20; c.Patience = time.Second })
	var wg sync.WaitGroup
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var conns []net.Conn
	for i := range 20 {
		ours, theirs := net.Pipe()
		conns = append(conns, ours)
		wg.Go(func() { _ = n.p.Serve(context.Background(), peer.ID(fmt.Sprint("peer ", i)), theirs) })
		wg.Go(func() {
			_, _ = ours.Write(append([]byte{0x80, 0x80, 0x40, 2<<3 | 2, 0xfd, 0xff, 0x3f}, make([]byte, 900<<10)...))
		})
	}
	for n.p.memory.TryAcquire(3 << 20) { // until requests are being read
		n.p.memory.Release(3 << 20)
		runtime.Gosched()
	}
	runtime.ReadMemStats(&after)
	if grew := int64(after.HeapInuse) - int64(before.HeapInuse); grew > 64<<20 {
		t.Errorf("%d bytes are held by requests", grew)
	}
	for _, c := range conns {
		must(t, c.Close())
	}
	wg.Wait()
	if !n.p.memory.TryAcquire(4 << 20) {
		t.Fatal("memory was not given back")
	}
	n.p.memory.Release(4 << 20)
	n.othersAreServed(5)
}

func TestServeEndsWithContext(t *testing.T) {
	n := newNode(t, nil)
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.p.Serve(ctx, "ann", theirs) }()
	_, err := ours.Write([]byte{100})
	must(t, err)
	cancel()
	if err := <-done; err == nil {
		t.Error("a request that never came was served")
	}
	must(t, ours.Close())
	n.stop()
	n.p.gate.closed = false // as a stream that was let in just before
	wantRefusal(t, n.ask("ann", &seal.Quote{}, &seal.QuoteAnswer{}), seal.RefusedClosing)
	if _, err := n.p.Get(t.Context(), makePiece(t, 1, 5).id); !errors.Is(err, ErrClosed) {
		t.Errorf("get after close: %v", err)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	n := newNode(t, func(c *Config) {
		c.PricePerGiBDay = 1 << 30
		c.MaxExpiry = 40 * 24 * time.Hour
		c.QuotaBytes = 100 << 20
	})
	var q seal.QuoteAnswer
	must(t, n.ask("ann", &seal.Quote{Now: n.clock.now().Add(9 * time.Minute)}, &q))
	if q.FreeBytes != 100<<20 || q.PricePerGiBDay != 1<<30 || !q.MaxExpiry.Equal(n.clock.now().Add(40*24*time.Hour)) || !q.Now.Equal(n.clock.now()) {
		t.Errorf("quote %+v", q)
	}
	wantRefusal(t, n.ask("ann", &seal.Quote{Now: n.clock.now().Add(-time.Hour)}, &q), seal.RefusedClockSkew)
	for _, c := range []struct {
		change func(q *seal.StoreRequest)
		code   seal.RefusalCode
		says   string
	}{
		{func(q *seal.StoreRequest) { q.Now = q.Now.Add(time.Hour) }, seal.RefusedClockSkew, "1h0m0s"},
		{func(q *seal.StoreRequest) { q.Now = q.Now.Add(-11 * time.Minute) }, seal.RefusedClockSkew, "11m"},
		{func(q *seal.StoreRequest) { q.Price-- }, seal.RefusedPrice, "at least"},
		{func(q *seal.StoreRequest) { q.Expiry = q.Now }, seal.RefusedExpiry, "past"},
		{func(q *seal.StoreRequest) { q.Expiry = q.Now.Add(41 * 24 * time.Hour) }, seal.RefusedExpiry, "later"},
	} {
		l := n.newLink("ann", 1, makePiece(t, 1, 1000))
		r := l.request()
		c.change(r)
		err := n.ask(l.from, r, &seal.StoreAnswer{})
		wantRefusal(t, err, c.code)
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q does not say %q", err, c.says)
		}
	}
	n.checkSums()
}
