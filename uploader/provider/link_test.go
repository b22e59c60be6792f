package provider

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// Data goes on from the first missing segment, after a broken connection and after a restart.
func TestResume(t *testing.T) {
	n := newNode(t, nil)
	l := n.newLink("ann", 1, makePiece(t, 1, 20*seal.SegmentBytes+5))
	_, err := l.agree()
	must(t, err)
	_, err = l.sendMap()
	must(t, err)
	some := seal.AllSegments(7)
	some.Set(12)
	missing, err := l.send(some)
	must(t, err)
	if want := some.Missing(21); missing != want {
		t.Errorf("missing %v, want %v", missing, want)
	}
	n.restart()
	a, err := l.agree()
	must(t, err)
	if a.Have != some || a.Stored {
		t.Errorf("after the restart: %+v", a)
	}
	again, err := l.sendMap()
	must(t, err)
	if again != missing {
		t.Errorf("the map is answered with %v missing, want %v", again, missing)
	}
	missing, err = l.send(missing)
	must(t, err)
	if missing.Count() != 0 {
		t.Errorf("%d are missing", missing.Count())
	}
	if a, err = l.agree(); err != nil || !a.Stored {
		t.Errorf("stored: %+v, %v", a, err)
	}
	if again, err = l.sendMap(); err != nil || again.Count() != 0 {
		t.Errorf("stored, and %d are missing (%v)", again.Count(), err)
	}
	if missing, err = l.send(seal.AllSegments(21)); err != nil || missing.Count() != 0 {
		t.Errorf("sent again: %d missing, %v", missing.Count(), err)
	}
	if got := n.p.Stats().ReceivedBytes; got != int64(len(l.sealed))-int64(some.Count())*seal.SegmentBytes {
		t.Errorf("%d bytes were taken after the restart", got)
	}
	_, err = l.sign()
	must(t, err)
}

// Streams of one link may run side by side.
func TestParallelData(t *testing.T) {
	n := newNode(t, nil)
	l := n.newLink("ann", 1, makePiece(t, 1, 20*seal.SegmentBytes, 20*seal.SegmentBytes))
	_, err := l.agree()
	must(t, err)
	missing, err := l.sendMap()
	must(t, err)
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { _, errs[i] = l.send(missing) })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	pledges := make([]seal.Pledge, 3)
	for i := range errs {
		wg.Go(func() { pledges[i], errs[i] = l.sign() })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	for _, p := range pledges {
		if !bytes.Equal(p.Signature, pledges[0].Signature) {
			t.Error("two pledges for one link")
		}
	}
	n.checkSums()
}

// Links of one writer share a copy where the sealed bytes are the same.
func TestTwins(t *testing.T) {
	n := newNode(t, nil)
	pc := makePiece(t, 1, 200_000)
	one, two, half := n.newLink("ann", 1, pc), n.newLink("ann", 2, pc), n.newLink("ann", 3, pc)
	other := n.newLink("ann", 4, pc)
	other.key[0] ^= 1
	var err error
	other.m, err = other.key.Seal(other.sealed, pc.bytes)
	must(t, err)
	_, err = half.agree()
	must(t, err)
	_, err = half.sendMap()
	must(t, err)
	_, err = half.send(seal.AllSegments(2))
	must(t, err)
	_, err = one.agree()
	must(t, err)
	missing, err := one.sendMap() // joins what the other link has sent
	must(t, err)
	if missing.Count() != 2 {
		t.Errorf("%d are missing", missing.Count())
	}
	one.mustStore()
	two.expiry = two.expiry.Add(time.Hour)
	if a, err := two.agree(); err != nil || a.Stored {
		t.Errorf("another link is stored without its map: %v", err)
	}
	if missing, err = two.sendMap(); err != nil || missing.Count() != 0 {
		t.Errorf("the sealed chunk is here and %d are missing (%v)", missing.Count(), err)
	}
	two.mustStore()
	other.mustStore()
	if st := n.p.Stats(); st.Copies != 2 || st.Pledges != 3 {
		t.Errorf("%d copies and %d pledges, want 2 and 3", st.Copies, st.Pledges)
	}
	n.checkSums()
	n.clock.advance(one.expiry.Sub(n.clock.now()))
	n.tend()
	if st := n.p.Stats(); st.Copies != 1 || st.Pledges != 1 || st.Agreements != 0 {
		t.Errorf("after the first expiry %+v", st)
	}
	_, err = two.audit(0)
	must(t, err)
	n.clock.advance(time.Hour)
	n.tend()
	if st := n.p.Stats(); st.Copies != 0 || st.UsedBytes != 0 {
		t.Errorf("after the last expiry %+v", st)
	}
	_, err = two.sign()
	wantRefusal(t, err, seal.RefusedExpiry)
	n.checkSums()
}

func TestRenew(t *testing.T) {
	n := newNode(t, func(c *Config) { c.PricePerGiBDay = 1 << 30 })
	l := n.newLink("ann", 1, makePiece(t, 1, 70_000))
	l.mustStore()
	must(t, l.pay(l.price))
	later := l.expiry.Add(10 * 24 * time.Hour)
	price := seal.PriceOf(n.cfg.PricePerGiBDay, 70_000, 10*24*time.Hour)
	_, err := l.renew(linkID(2), l.expiry, 1<<40)
	wantRefusal(t, err, seal.RefusedExpiry)
	_, err = l.renew(linkID(2), l.expiry.Add(400*24*time.Hour), 1<<40)
	wantRefusal(t, err, seal.RefusedExpiry)
	_, err = l.renew(linkID(2), later, price-1)
	wantRefusal(t, err, seal.RefusedPrice)
	first, err := l.renew(linkID(2), later, price)
	must(t, err)
	want := l.want()
	want.Price, want.Expiry = price, later
	must(t, first.Check(want))
	again, err := l.renew(linkID(2), later, price)
	must(t, err)
	if !bytes.Equal(first.Signature, again.Signature) {
		t.Error("a renewal has two pledges")
	}
	_, err = l.renew(linkID(2), later.Add(time.Hour), price)
	wantRefusal(t, err, seal.RefusedMismatch)
	n.clock.advance(2 * time.Hour) // the renewal is not paid: it alone is dropped
	n.tend()
	o := *l
	o.id = linkID(2)
	_, err = o.sign()
	wantRefusal(t, err, seal.RefusedUnpaid)
	_, err = l.audit(0)
	must(t, err)
	o.id = linkID(3)
	_, err = l.renew(o.id, later, price)
	must(t, err)
	must(t, o.pay(l.price+price))
	n.clock.advance(l.expiry.Sub(n.clock.now()))
	n.tend()
	_, err = o.audit(0)
	must(t, err)
	n.checkSums()
}

func TestDeadlines(t *testing.T) {
	n := newNode(t, nil)
	l := n.newLink("ann", 1, makePiece(t, 1, 30*seal.SegmentBytes))
	a, err := l.agree()
	must(t, err)
	if a.Deadline != 10*time.Minute {
		t.Errorf("deadline in %v", a.Deadline)
	}
	_, err = l.sendMap()
	must(t, err)
	for i := range 13 { // progress moves the deadline, up to two hours
		n.clock.advance(9 * time.Minute)
		n.tend()
		var one seal.Bitmap
		one.Set(i)
		if _, err = l.send(one); err != nil {
			t.Fatalf("after %d segments: %v", i, err)
		}
	}
	n.clock.advance(9 * time.Minute)
	n.tend()
	_, err = l.send(seal.AllSegments(30))
	wantRefusal(t, err, seal.RefusedUnknownLink)
	if st := n.p.Stats(); st.UsedBytes != 0 || st.Copies != 0 {
		t.Errorf("after the last deadline %+v", st)
	}
	l.mustStore() // the ID was never signed for, so it begins anew
	n.checkSums()
}

// Blocks are found by their hash, of any kind that a chunk may have.
func TestBlocksByHash(t *testing.T) {
	n := newNode(t, nil)
	pc := makePiece(t, 1, 1000, 2000)
	hash, err := mh.Sum(pc.blocks[1], mh.BLAKE3, 32)
	must(t, err)
	pc.chunk[1].CID = cid.NewCidV1(cid.Raw, hash)
	pc.id, pc.descriptor, err = pc.chunk.Encode()
	must(t, err)
	l := n.newLink("ann", 1, pc)
	l.mustStore()
	for _, c := range []cid.Cid{pc.chunk[0].CID, cid.NewCidV1(cid.DagProtobuf, pc.chunk[0].CID.Hash()), cid.NewCidV0(pc.chunk[0].CID.Hash()), pc.chunk[1].CID} {
		b, err := n.p.Get(t.Context(), c)
		must(t, err)
		if !b.Cid().Equals(c) {
			t.Errorf("got %s, want %s", b.Cid(), c)
		}
	}
	if _, err := n.p.Get(t.Context(), cid.Undef); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
}

// A chunk of more blocks than one transaction takes.
func TestManyBlocks(t *testing.T) {
	m := newMortal(t, 3, func(c *Config) { c.PricePerGiBDay = 0 })
	lengths := make([]int, 5000)
	for i := range lengths {
		lengths[i] = 20 + i%50
	}
	l := m.newLink("ann", 1, makePiece(t, 1, lengths...))
	_, err := l.agree()
	must(t, err)
	missing, err := l.sendMap()
	must(t, err)
	m.left = 5 // in the middle of the index
	_, err = l.send(missing)
	if err == nil || !m.dead {
		t.Fatalf("sent in spite of the crash: %v", err)
	}
	m.rise(false)
	l.mustStore()
	for i := 0; i < len(lengths); i += 97 {
		b, err := m.p.Get(t.Context(), l.piece.chunk[i].CID)
		must(t, err)
		if !bytes.Equal(b.RawData(), l.piece.blocks[i]) {
			t.Fatal("wrong bytes")
		}
	}
	must(t, l.release())
	places, err := m.p.places(l.piece.chunk[4999].CID)
	if err != nil || len(places) != 0 {
		t.Errorf("%d index entries are left (%v)", len(places), err)
	}
}

// announcements are what a network was told.
type announcements struct {
	p     *Provider // asked about each chunk, if set
	mu    sync.Mutex
	told  map[cid.Cid]int
	fails bool
}

func (a *announcements) Announce(ctx context.Context, c cid.Cid) error {
	if a.p != nil { // an announcer may look into what it announces
		if ok, err := a.p.Has(ctx, c); err != nil || !ok {
			return errors.New("not here")
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fails {
		return errors.New("nobody is near")
	}
	a.told[c]++
	return nil
}

func TestAnnounce(t *testing.T) {
	a := &announcements{told: map[cid.Cid]int{}, fails: true}
	n := newNode(t, func(c *Config) { c.Announcer = a })
	l := n.newLink("ann", 1, makePiece(t, 1, 1000))
	step := func(want int) {
		t.Helper()
		_, err := n.p.announceDue(t.Context())
		must(t, err)
		if got := a.told[l.piece.id]; got != want {
			t.Fatalf("announced %d times, want %d", got, want)
		}
	}
	l.mustStore()
	step(0)
	a.fails = false
	step(0)
	n.clock.advance(2 * time.Minute)
	n.restart()
	a.p = n.p
	step(1)
	step(1)
	n.clock.advance(13 * time.Hour)
	step(2)
	must(t, l.release())
	n.clock.advance(13 * time.Hour)
	step(2)
	if chunks, err := n.p.dueChunks(1 << 50); err != nil || len(chunks) != 0 {
		t.Errorf("%d chunks are to be announced (%v)", len(chunks), err)
	}
}

func TestRun(t *testing.T) {
	a := &announcements{told: map[cid.Cid]int{}}
	n := newNode(t, func(c *Config) { c.Announcer = a })
	l := n.newLink("ann", 1, makePiece(t, 1, 1000))
	l.mustStore()
	n.clock.advance(40 * 24 * time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.p.Run(ctx) }()
	for n.p.Stats().Copies > 0 { // until the expired copy is gone
		if !pause(ctx, time.Millisecond) {
			t.Fatal("ended")
		}
	}
	cancel()
	must(t, <-done)
}

func TestLists(t *testing.T) {
	n := newNode(t, func(c *Config) { c.PricePerGiBDay = 1 << 30 })
	one, two := n.newLink("ann", 1, makePiece(t, 1, 70_000)), n.newLink("bob", 2, makePiece(t, 2, 100_000))
	one.mustStore()
	_, err := two.agree()
	must(t, err)
	got := map[string]Link{}
	must(t, n.p.Links(t.Context(), func(l Link) bool { got[l.ID.String()] = l; return true }))
	if len(got) != 2 {
		t.Fatalf("%d links", len(got))
	}
	a, b := got[one.id.String()], got[two.id.String()]
	if a.State != StatePledged || a.Have != 70_000 || a.Paid || !a.PayBy.Equal(n.clock.now().Add(time.Hour)) || a.Writer != one.from {
		t.Errorf("got %+v", a)
	}
	if b.State != StateAgreed || b.Have != 0 || !b.PayBy.IsZero() || !b.Expiry.Equal(two.expiry) || !b.Chunk.Equals(two.piece.id) {
		t.Errorf("got %+v", b)
	}
}

func TestOpenRefuses(t *testing.T) {
	db := openDB(t, t.TempDir())
	defer db.Close()
	key, _ := testKey(t, "provider")
	for name, cfg := range map[string]Config{
		"nothing": {}, "no key": {DB: db, Dir: t.TempDir()}, "price without till": {DB: db, Dir: t.TempDir(), Key: key, PricePerGiBDay: 1},
		"long region": {DB: db, Dir: t.TempDir(), Key: key, Region: string(make([]byte, 33))},
		"negative":    {DB: db, Dir: t.TempDir(), Key: key, Grace: -1}, "memory": {DB: db, Dir: t.TempDir(), Key: key, Limits: Limits{MemoryBytes: 1}},
	} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}
