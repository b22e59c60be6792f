package provider

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

func TestStore(t *testing.T) {
	for _, price := range []uint64{0, 1 << 30} {
		n := newNode(t, func(c *Config) { c.PricePerGiBDay = price })
		l := n.newLink("ann", 1, makePiece(t, 1, 100_000, 1, 300_000, 65_536))
		pledge := l.mustStore()
		if price > 0 {
			must(t, l.pay(l.price))
		}
		again, err := l.store()
		must(t, err)
		if !bytes.Equal(again.Signature, pledge.Signature) {
			t.Error("the same link has two pledges")
		}
		for i, s := range l.piece.chunk {
			b, err := n.p.Get(t.Context(), s.CID)
			must(t, err)
			if !bytes.Equal(b.RawData(), l.piece.blocks[i]) {
				t.Errorf("block %d has other bytes", i)
			}
			size, err := n.p.SizeOf(t.Context(), s.CID)
			must(t, err)
			if size != s.Bytes {
				t.Errorf("block %d has %d bytes, want %d", i, size, s.Bytes)
			}
		}
		d, err := n.p.Get(t.Context(), l.piece.id)
		must(t, err)
		if size, err := n.p.SizeOf(t.Context(), l.piece.id); err != nil || size != len(d.RawData()) || !bytes.Equal(d.RawData(), l.piece.descriptor) {
			t.Errorf("descriptor of %d bytes, %v", size, err)
		}
		n.checkSums()
		n.restart()
		n.checkSums()
		a, err := l.audit(0, 7, 3)
		must(t, err)
		for i, want := range []int{0, 7, 3} {
			must(t, a.Segments[i].Proof.Verify(pledge.SealedRoot, len(l.m.Segments), want, a.Segments[i].Bytes))
		}
		must(t, l.release())
		must(t, l.release())
		if _, err := n.p.Get(t.Context(), l.piece.chunk[0].CID); !errors.Is(err, ErrNotFound) {
			t.Errorf("get of a released block: %v", err)
		}
		n.checkSums()
		if st := n.p.Stats(); st.UsedBytes != 0 || st.Tombstones != 1 {
			t.Errorf("after the release %d bytes are used, %d tombstones", st.UsedBytes, st.Tombstones)
		}
		_, err = l.agree()
		wantRefusal(t, err, seal.RefusedNotStored)
		_, err = l.sign()
		wantRefusal(t, err, seal.RefusedNotStored)
		n.clock.advance(100 * 24 * time.Hour)
		n.tend()
		n.checkSums()
		if st := n.p.Stats(); st.Tombstones != 0 {
			t.Errorf("%d tombstones are left", st.Tombstones)
		}
	}
}
