package erasure

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/reedsolomon"
)

// codes are the codes that must hold.
var codes = [][2]int{{1, 2}, {2, 1}, {4, 2}, {8, 4}, {10, 4}, {16, 4}, {64, 32}}

// seeded returns random numbers and, if the test fails, says how to get them again.
func seeded(tb testing.TB) *rand.Rand {
	tb.Helper()
	seed := rand.Uint64()
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func mustCodec(tb testing.TB, k, m int) *Codec {
	tb.Helper()
	c, err := New(k, m)
	if err != nil {
		tb.Fatalf("codec (%d,%d): %v", k, m, err)
	}
	return c
}

// patterns yields every way to choose m of n, or random ones if those are more than mostPatterns.
func patterns(r *rand.Rand, n, m int) [][]int {
	count := 1
	for i := range m {
		if count = count * (n - i) / (i + 1); count > mostPatterns {
			var out [][]int
			for range mostPatterns / 2 {
				out = append(out, r.Perm(n)[:m])
			}
			return out
		}
	}
	var out [][]int
	var choose func(from int, chosen []int)
	choose = func(from int, chosen []int) {
		if len(chosen) == m {
			out = append(out, slices.Clone(chosen))
			return
		}
		for i := from; i < n; i++ {
			choose(i+1, append(chosen, i))
		}
	}
	choose(0, nil)
	return out
}

// makeStripe returns the shards of a stripe of n blocks of up to size bytes, of which some are empty.
func makeStripe(tb testing.TB, r *rand.Rand, c *Codec, n, size int) [][]byte {
	tb.Helper()
	data := make([][]byte, n)
	for i := range data {
		length := size
		switch r.IntN(4) {
		case 0:
			length = r.IntN(size + 1)
		case 1:
			length = max(0, size-r.IntN(70))
		}
		if r.IntN(12) == 0 {
			length = 0
		}
		data[i] = randomBytes(r, length)
	}
	parity, err := c.Encode(data, nil)
	if err != nil {
		tb.Fatalf("encode: %v", err)
	}
	return append(data, parity...)
}

// checkLoss loses shards, asks for a random part of them and compares.
func checkLoss(tb testing.TB, r *rand.Rand, c *Codec, shards [][]byte, lost []int) {
	tb.Helper()
	damaged, lengths, want := slices.Clone(shards), make([]int, len(shards)), make([]bool, len(shards))
	for i, s := range shards {
		lengths[i], want[i] = len(s), r.IntN(3) > 0
	}
	for _, i := range lost {
		damaged[i] = nil
	}
	if err := c.Reconstruct(damaged, lengths, want); err != nil {
		tb.Fatalf("lost %v of %v: %v", lost, lengths, err)
	}
	for i, s := range damaged {
		switch {
		case slices.Contains(lost, i) && !want[i]:
			if s != nil {
				tb.Fatalf("lost %v: shard %d was rebuilt and not asked for", lost, i)
			}
		case s == nil || !bytes.Equal(s, shards[i]):
			tb.Fatalf("lost %v of %v: shard %d differs", lost, lengths, i)
		}
	}
}

func TestLoseAnyM(t *testing.T) {
	for _, km := range codes {
		k, m := km[0], km[1]
		t.Run(fmt.Sprintf("%d,%d", k, m), func(t *testing.T) {
			r, c := seeded(t), mustCodec(t, k, m)
			for _, n := range []int{k, 1 + r.IntN(k)} {
				shards := makeStripe(t, r, c, n, 500+r.IntN(300))
				for _, lost := range patterns(r, n+m, m) {
					checkLoss(t, r, c, shards, lost)
				}
			}
		})
	}
}

// Stripes longer than one step, so that padding meets the steps' borders.
func TestLoseAnyMOfLongBlocks(t *testing.T) {
	for _, km := range [][2]int{{4, 2}, {16, 4}} {
		r, c := seeded(t), mustCodec(t, km[0], km[1])
		for range 10 {
			shards := makeStripe(t, r, c, 1+r.IntN(km[0]), 3*step+r.IntN(100))
			checkLoss(t, r, c, shards, r.Perm(len(shards))[:km[1]])
		}
	}
}

func TestLoseMoreThanM(t *testing.T) {
	for _, km := range codes {
		k, m := km[0], km[1]
		r, c := seeded(t), mustCodec(t, k, m)
		data := make([][]byte, k)
		for i := range data {
			data[i] = randomBytes(r, 100)
		}
		parity, err := c.Encode(data, nil)
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		shards := append(data, parity...)
		for _, lost := range patterns(r, k+m, m+1) {
			damaged, lengths, want := slices.Clone(shards), make([]int, k+m), make([]bool, k+m)
			for i := range lengths {
				lengths[i] = 100
			}
			for _, i := range lost {
				damaged[i] = nil
			}
			want[lost[r.IntN(len(lost))]] = true
			before := slices.Clone(damaged)
			if err := c.Reconstruct(damaged, lengths, want); !errors.Is(err, ErrTooFew) {
				t.Fatalf("(%d,%d) lost %v: got %v, want ErrTooFew", k, m, lost, err)
			}
			if !slices.EqualFunc(before, damaged, bytes.Equal) {
				t.Fatalf("(%d,%d): a failed reconstruction changed shards", k, m)
			}
		}
	}
}

// The twin: the library with everything copied and padded, nothing shortened.
func TestParityIsTheLibrarys(t *testing.T) {
	r := seeded(t)
	for _, km := range append([][2]int{{3, 5}, {255, 1}, {1, 255}, {128, 128}}, codes...) {
		k, m := km[0], km[1]
		c := mustCodec(t, k, m)
		enc, err := reedsolomon.New(k, m)
		if err != nil {
			t.Fatalf("library: %v", err)
		}
		for _, n := range []int{k, 1 + r.IntN(k)} {
			shards := makeStripe(t, r, c, n, 1+r.IntN(20000))
			plain := enc.(reedsolomon.Extensions).AllocAligned(len(shards[n]))
			if len(shards[n]) == 0 {
				continue
			}
			for i := range n {
				copy(plain[i], shards[i])
			}
			if err := enc.Encode(plain); err != nil {
				t.Fatalf("library: %v", err)
			}
			if !slices.EqualFunc(plain[k:], shards[n:], bytes.Equal) {
				t.Fatalf("(%d,%d) with %d blocks: parity differs from the library's", k, m, n)
			}
		}
	}
}

func TestSpecialShapes(t *testing.T) {
	c := mustCodec(t, 1, 2)
	parity, err := c.Encode([][]byte{[]byte("copy")}, nil)
	if err != nil || string(parity[0]) != "copy" || string(parity[1]) != "copy" {
		t.Errorf("k=1: parity %q, %v; want two copies", parity, err)
	}
	empty, err := mustCodec(t, 4, 2).Encode([][]byte{{}, nil}, nil)
	if err != nil || len(empty) != 2 || len(empty[0])+len(empty[1]) != 0 {
		t.Errorf("empty blocks: parity %v, %v; want two empty", empty, err)
	}
	shards := [][]byte{nil, nil, nil, nil}
	if err := mustCodec(t, 2, 2).Reconstruct(shards, make([]int, 4), []bool{true, true, false, true}); err != nil ||
		shards[0] == nil || shards[3] == nil || shards[2] != nil {
		t.Errorf("empty stripe: %v, %v", shards, err)
	}
	plain := mustCodec(t, 3, 0)
	if parity, err := plain.Encode([][]byte{{1}}, nil); err != nil || len(parity) != 0 {
		t.Errorf("m=0: %v, %v", parity, err)
	}
	if err := plain.Reconstruct([][]byte{{1}, nil}, []int{1, 1}, []bool{false, true}); !errors.Is(err, ErrTooFew) {
		t.Errorf("m=0: got %v, want ErrTooFew", err)
	}
}

func TestMemoryGivenIsUsed(t *testing.T) {
	c := mustCodec(t, 2, 2)
	data := [][]byte{[]byte("first"), []byte("second")}
	own := [][]byte{make([]byte, 0, 10), make([]byte, 3)}
	parity, err := c.Encode(data, own)
	if err != nil || &parity[0][0] != &own[0][:1][0] || len(parity[1]) != 6 {
		t.Fatalf("own buffers: %v, %v", parity, err)
	}
	room := make([]byte, 0, 64)
	shards := [][]byte{room, data[1], parity[0], nil}
	if err := c.Reconstruct(shards, []int{5, 6, 6, 6}, []bool{true, false, false, false}); err != nil ||
		string(shards[0]) != "first" || &shards[0][0] != &room[:1][0] {
		t.Fatalf("own memory: %q, %v", shards[0], err)
	}
}

func TestBadShapes(t *testing.T) {
	for _, km := range [][2]int{{0, 1}, {-1, 2}, {1, -1}, {200, 57}, {1 << 62, 1 << 62}, {257, 0}} {
		if _, err := New(km[0], km[1]); !errors.Is(err, ErrShape) {
			t.Errorf("code %v: got %v, want ErrShape", km, err)
		}
	}
	c := mustCodec(t, 2, 1)
	if _, err := c.Encode(nil, nil); !errors.Is(err, ErrShape) {
		t.Errorf("no block: got %v", err)
	}
	if _, err := c.Encode(make([][]byte, 3), nil); !errors.Is(err, ErrShape) {
		t.Errorf("too many blocks: got %v", err)
	}
	if _, err := c.Encode([][]byte{make([]byte, MaxBlock+1)}, nil); !errors.Is(err, ErrShape) {
		t.Errorf("too long a block: got %v", err)
	}
	if _, _, err := c.Protect([]Shard{{Bytes: 2}}, [][]byte{{1}}, nil); !errors.Is(err, ErrShape) {
		t.Errorf("block of another length: got %v", err)
	}
	one, yes := []byte{1}, []bool{true, true, true}
	for i, bad := range []struct {
		shards  [][]byte
		lengths []int
		want    []bool
	}{
		{nil, nil, nil},
		{[][]byte{one}, []int{1}, yes[:1]},
		{[][]byte{one, one, one, one}, []int{1, 1, 1, 1}, append(yes, true)},
		{[][]byte{one, one, one}, []int{1, 1}, yes},
		{[][]byte{one, one, one}, []int{1, 1, 1}, yes[:2]},
		{[][]byte{one, nil, one}, []int{1, -1, 1}, yes},
		{[][]byte{one, nil, one}, []int{1, MaxBlock + 1, 1}, yes},
		{[][]byte{one, nil, one}, []int{1, 2, 1}, yes},
		{[][]byte{one, nil, one}, []int{2, 1, 2}, yes},
	} {
		if err := c.Reconstruct(bad.shards, bad.lengths, bad.want); !errors.Is(err, ErrShape) {
			t.Errorf("bad shape %d: got %v, want ErrShape", i, err)
		}
	}
}

// Many goroutines, more codes and patterns than are kept.
func TestParallelAndKept(t *testing.T) {
	seed := seeded(t).Uint64()
	err := Parallel(200, func(i int) error {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		k, m := 1+r.IntN(20), 1+r.IntN(8)
		c, err := New(k, m)
		if err != nil {
			return err
		}
		shards := makeStripe(t, r, c, k, 300)
		checkLoss(t, r, c, shards, r.Perm(k + m)[:m])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(codecs.made) > keptCodecs {
		t.Errorf("%d codecs kept", len(codecs.made))
	}
	c := mustCodec(t, 16, 4)
	r := seeded(t)
	shards := makeStripe(t, r, c, 16, 40)
	for range 3 * keptDecodes {
		checkLoss(t, r, c, shards, r.Perm(20)[:4])
	}
	if len(c.decode) > keptDecodes {
		t.Errorf("%d decoders kept", len(c.decode))
	}
	stop := errors.New("stop")
	if err := Parallel(100, func(i int) error {
		if i == 7 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) {
		t.Errorf("parallel: got %v", err)
	}
}
