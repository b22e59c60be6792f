package provider

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// A full disk is refused cleanly in the middle of everything, and what is here stays.
func TestFullDisk(t *testing.T) {
	m := newMortal(t, 1, func(c *Config) { c.PricePerGiBDay = 0 })
	l := m.newLink("ann", 1, makePiece(t, 1, 10*seal.SegmentBytes))
	m.fs.room = 0
	_, err := l.agree()
	wantRefusal(t, err, seal.RefusedFull)
	m.checkSums()
	if used := m.p.Stats().UsedBytes; used != 0 {
		t.Errorf("%d bytes are reserved for what was refused", used)
	}
	m.fs.room = int64(len(l.piece.descriptor))
	_, err = l.agree()
	must(t, err)
	_, err = l.sendMap()
	wantRefusal(t, err, seal.RefusedFull)
	m.fs.room = 32*10 + 4*seal.SegmentBytes + 100
	missing, err := l.sendMap()
	must(t, err)
	_, err = l.send(missing)
	wantRefusal(t, err, seal.RefusedFull)
	m.checkSums()
	m.fs.room = -1
	a, err := l.agree()
	must(t, err)
	if a.Have.Count() != 4 {
		t.Errorf("%d segments are here, want 4", a.Have.Count())
	}
	missing, err = l.send(a.Have.Missing(10))
	must(t, err)
	if missing.Count() != 0 {
		t.Errorf("%d are missing", missing.Count())
	}
	_, err = l.sign()
	must(t, err)
}

// After a sync that failed nothing that came since the last one counts.
func TestSyncFails(t *testing.T) {
	m := newMortal(t, 1, func(c *Config) { c.PricePerGiBDay = 0 })
	l := m.newLink("ann", 1, makePiece(t, 1, 10*seal.SegmentBytes))
	_, err := l.agree()
	must(t, err)
	missing, err := l.sendMap()
	must(t, err)
	_, err = l.send(seal.AllSegments(3))
	must(t, err)
	m.fs.sick = syscall.EIO
	_, err = l.send(missing)
	wantRefusal(t, err, seal.RefusedFailed)
	m.fs.sick = nil
	a, err := l.agree()
	must(t, err)
	if a.Have != seal.AllSegments(3) {
		t.Errorf("%d segments count", a.Have.Count())
	}
	_, err = l.sign()
	wantRefusal(t, err, seal.RefusedNotStored)
	l.mustStore()
}

func TestQuota(t *testing.T) {
	n := newNode(t, func(c *Config) { c.QuotaBytes = 300_000 })
	one := n.newLink("ann", 1, makePiece(t, 1, 200_000))
	two := n.newLink("bob", 2, makePiece(t, 2, 100_000))
	one.mustStore()
	_, err := two.agree()
	wantRefusal(t, err, seal.RefusedFull)
	must(t, one.release())
	two.mustStore()
	n.checkSums()
}

// A damaged file is noticed: by a reader, by an audit, by the look after an unclean stop.
func TestDamage(t *testing.T) {
	for _, how := range []string{"read", "audit", "unclean", "map", "short", "gone"} {
		t.Run(how, func(t *testing.T) {
			n := newNode(t, nil)
			l := n.newLink("ann", 1, makePiece(t, 1, 100_000, 100_000))
			l.mustStore()
			names, err := filepath.Glob(n.path("chunks/*"))
			must(t, err)
			if len(names) != 1 {
				t.Fatalf("%d files", len(names))
			}
			n.stop()
			b, err := os.ReadFile(names[0])
			must(t, err)
			switch how {
			case "map":
				b[200_000] ^= 1
			case "short":
				b = b[:150_000]
			default:
				b[5] ^= 1
			}
			must(t, os.WriteFile(names[0], b, 0o600))
			if how == "gone" {
				must(t, os.Remove(names[0]))
			}
			n.start()
			ctx := t.Context()
			switch how {
			case "read", "gone", "short":
				_, err := n.p.Get(ctx, l.piece.chunk[1].CID)
				if (how == "read") != (err == nil) {
					t.Errorf("get: %v", err)
				}
				if _, err = n.p.Get(ctx, l.piece.chunk[0].CID); how == "read" && !errors.Is(err, ErrNotFound) {
					t.Errorf("get of the damaged block: %v", err)
				}
			case "unclean":
				n.kill()
				n.start()
				must(t, n.p.rehashAll(ctx, 0))
				if st := n.p.Stats(); st.Rehashed != 1 {
					t.Errorf("%d copies hashed", st.Rehashed)
				}
			}
			_, err = l.audit(0)
			wantRefusal(t, err, seal.RefusedNotStored)
			if st := n.p.Stats(); st.Damaged != 1 || st.DamagedSegments == 0 {
				t.Errorf("%d copies damaged, %d segments", st.Damaged, st.DamagedSegments)
			}
			_, err = l.renew(linkID(9), l.expiry.Add(time.Hour), 0)
			wantRefusal(t, err, seal.RefusedNotStored)
			again := n.newLink("ann", 2, l.piece) // a new link gets a new copy
			again.mustStore()
			if b, err := n.p.Get(ctx, l.piece.chunk[0].CID); err != nil || !bytes.Equal(b.RawData(), l.piece.blocks[0]) {
				t.Errorf("get: %v", err)
			}
			must(t, l.release())
		})
	}
}

// A power cut in the middle of a release leaves the chunk whole or gone: a file goes only after the
// record that needs it has gone for good.
func TestReleaseAndPowerCut(t *testing.T) {
	for seed := range uint64(24) {
		m := newMortal(t, seed, func(c *Config) { c.PricePerGiBDay = 0 })
		l := m.newLink("ann", 1, makePiece(t, seed, 1000))
		l.mustStore()
		m.left = 1 + int(seed%7)
		err := l.release()
		if !m.dead {
			must(t, err)
		}
		m.rise(true)
		must(t, m.p.rehashAll(t.Context(), 0))
		if st := m.p.Stats(); st.Damaged > 0 {
			t.Fatalf("seed %d: the file went before the record", seed)
		}
		_, err = m.p.Get(t.Context(), l.piece.chunk[0].CID)
		if gone := errors.Is(err, ErrNotFound); gone != (m.p.Stats().Pledges == 0) {
			t.Fatalf("seed %d: get: %v", seed, err)
		}
		must(t, m.p.tend(t.Context()))
		m.checkSums()
		m.stop()
	}
}

// With the database's disk almost full nothing is taken any more, and what is to end still ends.
func TestFullDatabaseDisk(t *testing.T) {
	n := newNode(t, nil)
	l, other := n.newLink("ann", 1, makePiece(t, 1, 1000)), n.newLink("ann", 2, makePiece(t, 2, 1000))
	l.mustStore()
	n.p.dbFree = func() (uint64, error) { return 1 << 19, nil }
	wantRefusal(t, l.release(), seal.RefusedFull)
	n.p.dbFree = func() (uint64, error) { return 2 << 20, nil }
	_, err := other.agree()
	wantRefusal(t, err, seal.RefusedFull)
	n.checkSums()
	must(t, l.release())
	if used := n.p.Stats().UsedBytes; used != 0 {
		t.Errorf("%d bytes are used", used)
	}
	n.p.dbFree = func() (uint64, error) { return 1 << 30, nil }
	other.mustStore()
}

// Segments that were answered as here are here after a power cut.
func TestDataIsDurable(t *testing.T) {
	for seed := range uint64(10) {
		m := newMortal(t, seed, func(c *Config) { c.PricePerGiBDay = 0 })
		l := m.newLink("ann", 1, makePiece(t, seed, 5*seal.SegmentBytes))
		_, err := l.agree()
		must(t, err)
		_, err = l.sendMap()
		must(t, err)
		sent := seal.AllSegments(1 + int(seed%5))
		_, err = l.send(sent)
		must(t, err)
		m.rise(true)
		a, err := l.agree()
		must(t, err)
		if a.Have != sent || a.Stored != (sent.Count() == 5) {
			t.Fatalf("seed %d: %d of %d segments are left", seed, a.Have.Count(), sent.Count())
		}
		m.stop()
	}
}
