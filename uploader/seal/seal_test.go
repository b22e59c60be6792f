package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func TestXORAtAnyOffset(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	key := Key(randBytes(1, 32))
	plain := randBytes(2, 3*SegmentBytes+777)
	block, err := aes.NewCipher(key[:])
	must(t, err)
	whole := make([]byte, len(plain))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(whole, plain)
	for range 2000 {
		lo := r.IntN(len(plain) + 1)
		hi := lo + r.IntN(len(plain)-lo+1)
		if r.IntN(2) == 0 {
			hi = min(len(plain), lo+r.IntN(40))
		}
		got := make([]byte, hi-lo)
		key.XORAt(got, plain[lo:hi], int64(lo))
		if !bytes.Equal(got, whole[lo:hi]) {
			t.Fatalf("range %d to %d differs from the whole", lo, hi)
		}
		key.XORAt(got, got, int64(lo))
		if !bytes.Equal(got, plain[lo:hi]) {
			t.Fatalf("range %d to %d does not unseal in place", lo, hi)
		}
	}
}

func TestKeysDiffer(t *testing.T) {
	_, a := testKey(t, "a")
	_, b := testKey(t, "b")
	secret, other := randBytes(1, 32), randBytes(2, 32)
	k := KeyFor(secret, a, testCID(t, 1))
	if k != KeyFor(secret, a, testCID(t, 1)) {
		t.Error("equal arguments give different keys")
	}
	if k == KeyFor(other, a, testCID(t, 1)) || k == KeyFor(secret, b, testCID(t, 1)) || k == KeyFor(secret, a, testCID(t, 2)) {
		t.Error("different arguments give equal keys")
	}
}

func TestSealMaps(t *testing.T) {
	for _, n := range []int{1, 15, SegmentBytes - 1, SegmentBytes, SegmentBytes + 1, 5*SegmentBytes + 3, MaxChunkBytes} {
		plain := randBytes(uint64(n), n)
		key := Key(randBytes(9, 32))
		sealed := make([]byte, n)
		m, err := key.Seal(sealed, plain)
		must(t, err)
		must(t, m.Check())
		read, err := MapOf(iotest.HalfReader(bytes.NewReader(sealed)))
		must(t, err)
		if read.Root() != m.Root() || read.Bytes != m.Bytes {
			t.Errorf("a chunk of %d bytes maps in two ways", n)
		}
		for i := range m.Segments {
			off := i * SegmentBytes
			must(t, m.CheckSegment(i, sealed[off:off+SegmentLen(m.Bytes, i)]))
		}
		wantErr(t, m.CheckSegment(len(m.Segments), nil), ErrMap)
		wantErr(t, m.CheckSegment(-1, nil), ErrMap)
		wantErr(t, m.CheckSegment(0, sealed[:SegmentLen(m.Bytes, 0)-1]), ErrMap)
	}
	_, err := Key{}.Seal(nil, nil)
	wantErr(t, err, ErrMap)
	_, err = Key{}.Seal(make([]byte, MaxChunkBytes+1), make([]byte, MaxChunkBytes+1))
	wantErr(t, err, ErrMap)
	_, err = MapOf(bytes.NewReader(nil))
	wantErr(t, err, ErrMap)
	_, err = MapOf(io.LimitReader(zeros{}, MaxChunkBytes+1))
	wantErr(t, err, ErrMap)
	_, err = MapOf(iotest.ErrReader(io.ErrClosedPipe))
	wantErr(t, err, io.ErrClosedPipe)
	wantErr(t, Map{Bytes: 1 << 40, Segments: make([][32]byte, 1)}.Check(), ErrMap)
	wantErr(t, Map{Bytes: SegmentBytes + 1, Segments: make([][32]byte, 1)}.Check(), ErrMap)
	wantErr(t, Map{}.Check(), ErrMap)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func mapOfSize(n int) (Map, [][]byte) {
	m := Map{Bytes: int64(n) * SegmentBytes}
	var segments [][]byte
	for i := range n {
		b := randBytes(uint64(i), 100)
		segments = append(segments, b)
		m.Segments = append(m.Segments, sha256.Sum256(b))
	}
	return m, segments
}

func TestProofs(t *testing.T) {
	roots := map[[32]byte]int{}
	for n := 1; n <= MaxSegments; n++ {
		m, segments := mapOfSize(n)
		root := m.Root()
		if root != dumbRoot(m) {
			t.Fatalf("the root of %d segments is not that of the dumb twin", n)
		}
		if was, ok := roots[root]; ok {
			t.Fatalf("maps of %d and %d segments have one root", was, n)
		}
		roots[root] = n
		for i := range n {
			p := m.Prove(i)
			if len(p) > maxProof {
				t.Fatalf("proof of %d hashes", len(p))
			}
			must(t, p.Verify(root, n, i, segments[i]))
			wantErr(t, p.Verify(root, n, (i+1)%n, append(segments[i], 1)), ErrProof)
			wantErr(t, p.Verify(root, n+1, i, segments[i]), ErrProof)
			wantErr(t, append(p, [32]byte{}).Verify(root, n, i, segments[i]), ErrProof)
			if n > 1 {
				wantErr(t, p.Verify(root, n, (i+1)%n, segments[i]), ErrProof)
				wantErr(t, p[1:].Verify(root, n, i, segments[i]), ErrProof)
				p[len(p)/2][5] ^= 1
				wantErr(t, p.Verify(root, n, i, segments[i]), ErrProof)
			}
		}
		if m.Prove(n) != nil || m.Prove(-1) != nil {
			t.Fatal("a proof of no segment")
		}
	}
	m, _ := mapOfSize(2)
	inner := append(append([]byte{}, m.Segments[0][:]...), m.Segments[1][:]...)
	wantErr(t, Proof{}.Verify(m.Root(), 1, 0, inner), ErrProof)
	wantErr(t, Proof{}.Verify(m.Root(), 0, 0, nil), ErrProof)
	wantErr(t, Proof{}.Verify(m.Root(), 1<<30, 1<<29, nil), ErrProof)
}

// dumbRoot joins neighbours level by level; one without a neighbour moves up as it is. That is the
// same tree as splitting at powers of two.
func dumbRoot(m Map) [32]byte {
	var level [][32]byte
	for _, s := range m.Segments {
		level = append(level, sha256.Sum256(append([]byte{0}, s[:]...)))
	}
	for len(level) > 1 {
		var up [][32]byte
		for i := 0; i < len(level); i += 2 {
			if i+1 == len(level) {
				up = append(up, level[i])
				continue
			}
			up = append(up, sha256.Sum256(append(append([]byte{1}, level[i][:]...), level[i+1][:]...)))
		}
		level = up
	}
	b := append([]byte("\x02holdfast/seal/map/1"), 0, 0, 0, byte(len(m.Segments)))
	return sha256.Sum256(append(b, level[0][:]...))
}

func TestBitmap(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 200 {
		n := 1 + r.IntN(MaxSegments)
		var b Bitmap
		twin := map[int]bool{}
		for range r.IntN(300) {
			i := r.IntN(n)
			if r.IntN(3) == 0 {
				b.Clear(i)
				delete(twin, i)
			} else {
				b.Set(i)
				twin[i] = true
			}
		}
		missing := b.Missing(n)
		seen := 0
		for i := b.Next(0); i >= 0; i = b.Next(i + 1) {
			seen++
			if !twin[i] {
				t.Fatalf("segment %d is not in the set", i)
			}
		}
		if seen != len(twin) || b.Count() != seen || missing.Count() != n-seen {
			t.Fatalf("%d of %d segments, %d are counted, %d missing", seen, n, b.Count(), missing.Count())
		}
	}
	var b Bitmap
	b.Set(-1)
	b.Set(MaxSegments)
	b.Clear(MaxSegments)
	if b != (Bitmap{}) || b.Has(-1) || b.Has(MaxSegments) || b.Next(MaxSegments) != -1 || AllSegments(1000).Count() != MaxSegments {
		t.Error("segments that no chunk has are in a set")
	}
}
