package blockcache

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
)

func blockCIDs(es []Entry) []cid.Cid {
	var cs []cid.Cid
	for _, e := range es {
		cs = append(cs, e.Block.Cid())
	}
	return cs
}

// TestSpansAgainstBits compares spans with the dumb way to keep a set.
func TestSpansAgainstBits(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var s spans
	bits := make([]bool, 64)
	for range 20000 {
		lo := r.IntN(64)
		hi := lo + r.IntN(65-lo)
		add := r.IntN(2) == 0
		if add {
			s = s.add(uint64(lo), uint64(hi))
		} else {
			s = s.remove(uint64(lo), uint64(hi))
		}
		for i := lo; i < hi; i++ {
			bits[i] = add
		}
		lo = r.IntN(64)
		hi = lo + 1 + r.IntN(64-lo)
		part := bits[lo:hi]
		if s.covers(uint64(lo), uint64(hi)) == slices.Contains(part, false) {
			t.Fatalf("covers [%d,%d) of %v", lo, hi, s)
		}
		if s.overlaps(uint64(lo), uint64(hi)) != slices.Contains(part, true) {
			t.Fatalf("overlaps [%d,%d) of %v", lo, hi, s)
		}
		got, ok := decodeSpans(s.encode())
		if !ok || !slices.Equal(got, s) {
			t.Fatalf("%v came back as %v", s, got)
		}
		for i := 1; i < len(s); i++ {
			if s[i-1].hi >= s[i].lo {
				t.Fatalf("not normal: %v", s)
			}
		}
	}
}

// FuzzScan: any bytes at all are scanned without panic, within bounds, and records among them are found.
func FuzzScan(f *testing.F) {
	b := randBlock(f, 1, 50)
	rec := append(appendHeader(nil, b.Cid(), 50, checksum(b.RawData())), b.RawData()...)
	f.Add([]byte{}, []byte{})
	f.Add(rec[:30], rec)
	f.Add(magic[:], magic[:3])
	f.Fuzz(func(t *testing.T, before, after []byte) {
		if len(before)+len(after) > 1<<20 {
			return
		}
		pack := slices.Concat(before, rec, after)
		found := false
		end, err := scanRecords(bytes.NewReader(pack), 0, int64(len(pack)), func(r record) error {
			if r.off < headerBytes || r.end() > int64(len(pack)) {
				t.Fatalf("record at %d of %d bytes in a pack of %d", r.off, r.n, len(pack))
			}
			found = found || r.cid.Equals(b.Cid())
			return nil
		})
		if err != nil || end > int64(len(pack)) {
			t.Fatalf("end %d: %v", end, err)
		}
		if !found && !bytes.Contains(before, magic[:]) {
			t.Fatal("the record was not found")
		}
	})
}

func TestLoanCodec(t *testing.T) {
	t.Parallel()
	for _, l := range []Loan{{Name: "a"}, {Name: "a/b", Hint: "c", Stamp: Stamp{7, -8, 1 << 62}}} {
		got, ok := decodeLoan((&loan{Loan: l}).append(nil), uint64(l.Stamp.Bytes))
		if !ok || got.Loan != l {
			t.Errorf("%+v came back as %+v, %v", l, got, ok)
		}
	}
}

// FuzzDecoders: index values of any kind are decoded without panic, and what is accepted is in bounds.
func FuzzDecoders(f *testing.F) {
	f.Add(encodePlaces([]place{{inPack, 1, 2, 3, 4}, {inBody, 5, 6, 7, 8}}))
	f.Add(spans{{1, 2}, {5, 9}}.encode())
	f.Add(leaf{key: "abc", n: 5, crc: 6}.encode())
	f.Add((&loan{Loan: Loan{Name: "name", Hint: "hint", Stamp: Stamp{7, -8, 9}}}).append(nil))
	f.Fuzz(func(t *testing.T, v []byte) {
		for _, p := range decodePlaces(v) {
			if p.n == 0 || p.n > MaxBlockBytes || p.off > maxFileBytes {
				t.Fatalf("place %+v", p)
			}
		}
		if l, ok := decodeLeaf(0, v); ok && (l.n == 0 || l.n > MaxBlockBytes) {
			t.Fatalf("leaf %+v", l)
		}
		if s, ok := decodeSpans(v); ok && !slices.IsSortedFunc(s, func(a, b span) int { return int(int64(a.lo - b.lo)) }) && len(s) > 1 && s[len(s)-1].hi < 1<<62 {
			t.Fatalf("spans %v", s)
		}
		_, _, _ = decodeUints(v, 3)
		if b, ok := loadBody(make([]byte, 8), v); ok && b.loan.Load() != nil && !b.lent() {
			t.Fatal("a loan is taken over without its file")
		}
		if l, ok := decodeLoan(v, 7); ok && (l.Stamp.Bytes != 7 || len(l.Name) > maxLoanName || len(l.Hint) > maxLoanHint) {
			t.Fatalf("loan %+v", l)
		}
		_, _, _ = splitPair(v)
	})
}
