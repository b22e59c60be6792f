package erasure

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/reedsolomon"
)

// shapes are k, m and the length of a block.
var shapes = [][3]int{{4, 2, 1 << 20}, {4, 2, 10 << 10}, {10, 4, 1 << 20}, {64, 32, 256 << 10}}

// batch is how many stripes are encoded in parallel at once.
const batch = 16

// BenchmarkEncode sets ours (stripes over the cores, memory taken and given back, short blocks padded)
// beside the library's own benchmark (one stripe over and over, split over the cores, nothing allocated).
func BenchmarkEncode(b *testing.B) {
	for _, s := range shapes {
		k, m, size := s[0], s[1], s[2]
		name := fmt.Sprintf("%dx%dx%dK", k, m, size>>10)
		b.Run(name+"/library", func(b *testing.B) { benchLibrary(b, k, m, size) })
		b.Run(name+"/equal", func(b *testing.B) { benchOurs(b, k, m, size, 0) })
		b.Run(name+"/unequal", func(b *testing.B) { benchOurs(b, k, m, size, size/10) })
	}
}

func benchLibrary(b *testing.B, k, m, size int) {
	enc, err := reedsolomon.New(k, m, reedsolomon.WithAutoGoroutines(size))
	if err != nil {
		b.Fatal(err)
	}
	shards := enc.(reedsolomon.Extensions).AllocAligned(size)
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range shards[:k] {
		copy(s, randomBytes(r, size))
	}
	b.SetBytes(int64(size * (k + m)))
	b.ReportAllocs()
	for b.Loop() {
		if err := enc.Encode(shards); err != nil {
			b.Fatal(err)
		}
	}
}

func benchOurs(b *testing.B, k, m, size, shorter int) {
	c := mustCodec(b, k, m)
	r := rand.New(rand.NewPCG(1, 1))
	// As in the library's benchmark all stripes have the same bytes.
	blocks := make([][]byte, k)
	for i := range blocks {
		blocks[i] = randomBytes(r, size-r.IntN(shorter+1))
	}
	b.SetBytes(int64(size * (k + m) * batch))
	b.ReportAllocs()
	for b.Loop() {
		err := Parallel(batch, func(int) error {
			parity, err := c.Encode(blocks, nil)
			Recycle(parity...)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReconstruct(b *testing.B) {
	for _, s := range shapes {
		k, m, size := s[0], s[1], s[2]
		b.Run(fmt.Sprintf("%dx%dx%dK", k, m, size>>10), func(b *testing.B) {
			c, r := mustCodec(b, k, m), rand.New(rand.NewPCG(1, 1))
			shards, lengths, want := make([][]byte, k), make([]int, k+m), make([]bool, k+m)
			for i := range shards {
				shards[i] = randomBytes(r, size)
			}
			parity, err := c.Encode(shards, nil)
			if err != nil {
				b.Fatal(err)
			}
			shards = append(shards, parity...)
			for i := range lengths {
				lengths[i] = size
			}
			want[0] = true
			b.SetBytes(int64(size * k))
			b.ReportAllocs()
			for b.Loop() {
				Recycle(shards[0])
				shards[0] = nil
				if err := c.Reconstruct(shards, lengths, want); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
