package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// randomWorld sends every request in any order, repeated, cut off, between crashes, and holds the
// provider to what it has answered.
type randomWorld struct {
	*mortal
	pieces   []*piece
	writers  []string
	links    []*link
	pledges  map[string][]byte // writer and link → signature of the first pledge seen
	live     map[string]*link  // of those, links that were neither released nor can have expired
	paid     map[peer.ID]uint64
	renewals byte
	sums     struct{ pledges, crashes, refused, audits int }
}

func newRandomWorld(t testing.TB, seed uint64) *randomWorld {
	w := &randomWorld{pledges: map[string][]byte{}, live: map[string]*link{}, paid: map[peer.ID]uint64{}, writers: []string{"ann", "bob"}}
	w.mortal = newMortal(t, seed, func(c *Config) {
		c.QuotaBytes = 2 << 20
		if seed%2 == 0 {
			c.saveEvery = 1 // after every segment
		}
		c.Limits.ReservedPerPeer, c.Limits.ReservedBytes = 1<<20, 1<<20
		c.Limits.AgreementsPerPeer, c.Limits.CopiesPerChunk, c.Limits.LinksPerCopy = 5, 4, 3
		c.Limits.OpenFiles, c.Limits.Tombstones = 2, 1000
		if seed%3 == 0 {
			c.PricePerGiBDay = 0
		}
	})
	w.pieces = []*piece{makePiece(t, seed, 70_000, 1000), makePiece(t, seed+1, 66_000, 90_000, 1), makePiece(t, seed+2, 300)}
	w.pieces = append(w.pieces, makePiece(t, seed, 70_000, 2000)) // shares its first block with the first
	return w
}

func (l *link) name() string { return string(l.from) + l.id.String() }

// pick returns a link that was used before, mostly, or a new one.
func (w *randomWorld) pick() *link {
	if len(w.links) > 0 && w.r.IntN(5) > 0 {
		return w.links[w.r.IntN(len(w.links))]
	}
	l := w.newLink(w.writers[w.r.IntN(2)], byte(w.r.IntN(100)), w.pieces[w.r.IntN(len(w.pieces))])
	if w.r.IntN(6) == 0 { // the same writer with another secret: another copy
		l.key = seal.KeyFor([]byte("another secret"), w.id, l.piece.id)
		l.m, _ = l.key.Seal(l.sealed, l.piece.bytes)
	}
	w.links = append(w.links, l)
	return l
}

func (w *randomWorld) event() string {
	l := w.pick()
	var err error
	what := ""
	switch n := w.r.IntN(100); {
	case n < 15:
		what = "agree"
		_, err = l.agree()
	case n < 20:
		what = "channel"
		err = l.openChannel()
	case n < 33:
		what = "map"
		_, err = l.sendMap()
	case n < 53:
		what, err = w.sendSome(l)
	case n < 68:
		what, err = w.signOne(l)
	case n < 74:
		what, err = w.payOne(l)
	case n < 79:
		what, err = w.auditOne(l)
	case n < 83:
		what, err = w.renewOne(l)
	case n < 86:
		what, err = w.releaseOne(l)
	case n < 90:
		what, err = w.lie(l)
	case n < 95:
		what = "tend"
		w.passTime()
	default:
		what, err = "quote", w.ask(l.from, &seal.Quote{Now: w.clock.now()}, &seal.QuoteAnswer{})
	}
	var refusal *seal.Refusal
	switch {
	case w.dead || err == nil:
	case errors.As(err, &refusal) && refusal.Code != seal.RefusedFailed:
		w.sums.refused++
	case what != "cut off":
		w.t.Fatalf("%s: %v", what, err)
	}
	return what
}

// story stores one link in order, so that there is something to disturb.
func (w *randomWorld) story() {
	l := w.pick()
	for _, step := range []func() error{
		func() error { _, err := l.agree(); return err }, l.openChannel,
		func() error { _, err := l.sendMap(); return err },
		func() error { _, err := l.send(seal.AllSegments(len(l.m.Segments))); return err },
		func() error { _, err := w.signOne(l); return err },
		func() error { _, err := w.payOne(l); return err },
	} {
		if w.dead {
			return
		}
		_ = step() // refusals are part of it; signOne and payOne look at what they get
	}
}

func (w *randomWorld) sendSome(l *link) (string, error) {
	set := seal.AllSegments(len(l.m.Segments))
	if w.r.IntN(3) == 0 {
		set.Clear(w.r.IntN(len(l.m.Segments)))
	}
	if w.r.IntN(4) > 0 {
		_, err := l.send(set)
		return "data", err
	}
	return "cut off", w.talk(l.from, func(s net.Conn) error { // the connection breaks
		var reader sync.WaitGroup
		reader.Go(func() { _, _ = io.Copy(io.Discard, s) })
		defer reader.Wait()
		defer s.Close()
		if err := seal.WriteMessage(s, &seal.Data{Link: l.id}); err != nil {
			return err
		}
		for i := set.Next(0); i >= 0 && w.r.IntN(3) > 0; i = set.Next(i + 1) {
			if err := seal.WriteSegment(s, i, l.segment(i)); err != nil {
				return err
			}
		}
		return io.ErrClosedPipe
	})
}

func (w *randomWorld) signOne(l *link) (string, error) {
	pledge, err := l.sign()
	if w.dead || err != nil {
		return "sign", err
	}
	want := l.want()
	want.Expiry, want.Price = pledge.Expiry, pledge.Price // another of our links may have the ID
	want.Chunk, want.SealedRoot, want.Bytes = pledge.Chunk, pledge.SealedRoot, pledge.Bytes
	must(w.t, pledge.Check(want))
	w.sawPledge(l, pledge)
	return "sign", nil
}

// sawPledge holds a pledge against the first one of its link.
func (w *randomWorld) sawPledge(l *link, pledge seal.Pledge) {
	w.t.Helper()
	if first := w.pledges[l.name()]; first != nil && !bytes.Equal(first, pledge.Signature) {
		w.t.Fatalf("link %s has two pledges", l.id)
	}
	w.pledges[l.name()] = pledge.Signature
	if !pledge.Chunk.Equals(l.piece.id) {
		return
	}
	held := *l
	held.expiry, held.price = pledge.Expiry, pledge.Price
	w.live[l.name()] = &held
	w.sums.pledges++
}

func (w *randomWorld) payOne(l *link) (string, error) {
	more := l.price
	if w.r.IntN(3) == 0 {
		more = w.r.Uint64N(l.price + 2)
	}
	before, err := w.till.Received(context.Background(), l.from)
	must(w.t, err)
	return "pay", l.pay(before + more*uint64(w.r.IntN(2)))
}

func (w *randomWorld) auditOne(l *link) (string, error) {
	i := w.r.IntN(len(l.m.Segments))
	a, err := l.audit(uint32(i))
	if w.dead || err != nil {
		return "audit", err
	}
	w.sums.audits++
	m := l.m
	if a.Segments[0].Proof.Verify(m.Root(), len(m.Segments), i, a.Segments[0].Bytes) != nil { // sealed with the other secret
		for _, o := range w.links {
			if o.from == l.from && o.piece == l.piece && a.Segments[0].Proof.Verify(o.m.Root(), len(m.Segments), i, a.Segments[0].Bytes) == nil {
				return "audit", nil
			}
		}
		w.t.Fatal("an audit's proof leads to no root")
	}
	return "audit", nil
}

func (w *randomWorld) renewOne(l *link) (string, error) {
	w.renewals++
	o := *l
	o.id = linkID(100 + w.renewals%100)
	expiry := l.expiry.Add(time.Duration(w.r.IntN(60*24)) * time.Hour)
	pledge, err := l.renew(o.id, expiry, l.price*3)
	if !w.dead && err == nil {
		must(w.t, pledge.Verify())
		w.sawPledge(&o, pledge)
	}
	return "renew", err
}

func (w *randomWorld) releaseOne(l *link) (string, error) {
	for name, o := range w.live { // from now on nothing is promised, whether this is answered or not
		if o.from == l.from && o.piece.id.Equals(l.piece.id) {
			delete(w.live, name)
		}
	}
	return "release", l.release()
}

// lie sends what is not so, and wants it refused.
func (w *randomWorld) lie(l *link) (string, error) {
	bad := *l
	switch w.r.IntN(3) {
	case 0: // other bytes than the map says; a provider that has them all answers before it looks
		bad.sealed = append([]byte{}, l.sealed...)
		bad.sealed[w.r.IntN(len(bad.sealed))] ^= 1
		_, err := bad.send(seal.AllSegments(len(l.m.Segments)))
		return "bad data", err
	case 1: // a map of other bytes than the descriptor's, sent to the end
		other := append([]byte{}, l.piece.bytes...)
		other[w.r.IntN(len(other))] ^= 1
		bad.sealed = make([]byte, len(other))
		bad.m, _ = l.key.Seal(bad.sealed, other)
		if _, err := bad.sendMap(); err != nil {
			return "bad map", err
		}
		_, err := bad.send(seal.AllSegments(len(l.m.Segments)))
		if err == nil && !w.dead {
			w.t.Fatal("a chunk of other blocks was taken")
		}
		return "bad blocks", err
	}
	bad.from = "somebody else"
	err := bad.release()
	if !w.dead && !errors.Is(err, &seal.Refusal{Code: seal.RefusedUnknownLink}) {
		w.t.Fatalf("another's release: %v", err)
	}
	return "another's release", err
}

func (w *randomWorld) passTime() {
	w.clock.advance([]time.Duration{time.Second, 5 * time.Minute, time.Hour, 5 * 24 * time.Hour}[w.r.IntN(4)])
	now := w.clock.now()
	for name, l := range w.live {
		if !l.expiry.After(now) || l.price > 0 { // it may have expired, or its grace may have ended
			delete(w.live, name)
		}
	}
	if err := w.p.tend(context.Background()); err != nil && !w.dead {
		w.t.Fatal(err)
	}
}

// check looks at everything that was promised.
func (w *randomWorld) check() {
	w.t.Helper()
	w.checkSums()
	for _, pc := range w.pieces {
		for i, s := range pc.chunk {
			b, err := w.p.Get(context.Background(), s.CID)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			must(w.t, err)
			if !bytes.Equal(b.RawData(), pc.blocks[i]) {
				w.t.Fatal("a wrong block was served")
			}
		}
	}
	for _, l := range w.live {
		for _, s := range l.piece.chunk {
			if ok, err := w.p.Has(context.Background(), s.CID); err != nil || !ok {
				w.t.Fatalf("a pledged block is not served: %v", err)
			}
		}
	}
	for _, name := range w.writers {
		_, id := testKey(w.t, name)
		rec, err := w.p.writer(id)
		must(w.t, err)
		got, err := w.till.Received(context.Background(), id)
		must(w.t, err)
		if !rec.Accepting && rec.Earned+rec.Credit != got {
			w.t.Fatalf("earned %d and credit %d of %d received", rec.Earned, rec.Credit, got)
		}
	}
	if st := w.p.Stats(); st.Failed > 0 || st.Damaged > 0 {
		w.t.Fatalf("%d requests failed, %d copies are damaged", st.Failed, st.Damaged)
	}
}

func TestRandomEvents(t *testing.T) {
	var all struct{ pledges, crashes, refused, audits int }
	for seed := range uint64(randomLives) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			w := newRandomWorld(t, seed)
			for range 150 {
				if w.r.IntN(12) == 0 {
					w.left = w.r.IntN(25)
				}
				if w.r.IntN(4) == 0 {
					w.story()
				} else {
					w.event()
				}
				if w.dead {
					w.sums.crashes++
					w.rise(w.r.IntN(2) == 0)
				}
				left := w.left
				w.left = -1
				w.check()
				w.left = left
			}
			w.left = -1
			all.pledges += w.sums.pledges
			all.crashes += w.sums.crashes
			all.refused += w.sums.refused
			all.audits += w.sums.audits
		})
	}
	if all.pledges == 0 || all.crashes == 0 || all.refused == 0 || all.audits == 0 {
		t.Errorf("the events never led to all of: %+v", all)
	}
	t.Logf("%+v", all)
}
