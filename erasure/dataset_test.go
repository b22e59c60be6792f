package erasure

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
)

// The whole way: blocks are planned, coded and written down; then, of every stripe, any m shards are
// lost, and every block comes back by the manifest alone.
func TestDatasetSurvives(t *testing.T) {
	for _, km := range codes {
		k, m := km[0], km[1]
		t.Run(fmt.Sprintf("%d,%d", k, m), func(t *testing.T) {
			r := seeded(t)
			store, parts := make(map[cid.Cid][]byte), new(shelf)
			blocks, manifest := protect(t, r, k, m, store, parts)
			codec, man := mustCodec(t, k, m), openManifest(t, parts, manifest)
			lostOf := make(map[cid.Cid][]int) // by the stripe's first block
			for _, c := range blocks {
				f, err := man.Find(t.Context(), c)
				if err != nil {
					t.Fatalf("find %s: %v", c, err)
				}
				first := f.Stripe.Data[0].CID
				if lostOf[first] == nil {
					lostOf[first] = r.Perm(len(f.Stripe.Data) + m)
				}
				got, err := recover1(codec, f, store, lostOf[first][:m])
				if err != nil || !bytes.Equal(got, store[c]) {
					t.Fatalf("block %s: %v", c, err)
				}
				lost := lostOf[first][:m+1]
				empty := func(i int) bool { return f.Stripe.Lengths()[i] == 0 }
				if !slices.Contains(lost, f.Shard) || slices.ContainsFunc(lost, empty) {
					continue // not lost, or no more than m are, as an empty block never is
				}
				if _, err := recover1(codec, f, store, lost); !errors.Is(err, ErrTooFew) {
					t.Fatalf("lost %d: got %v, want ErrTooFew", m+1, err)
				}
			}
		})
	}
}

// protect makes a dataset and returns its blocks and its manifest.
func protect(tb testing.TB, r *rand.Rand, k, m int, store map[cid.Cid][]byte, parts *shelf) ([]cid.Cid, cid.Cid) {
	tb.Helper()
	codec := mustCodec(tb, k, m)
	w, err := NewManifestWriter(testCID(tb, cid.DagProtobuf, 0), k, m, parts.put)
	if err != nil {
		tb.Fatalf("writer: %v", err)
	}
	p, err := NewPlanner(k, nil, func(data []Shard) error {
		bodies := make([][]byte, len(data))
		for i, d := range data {
			bodies[i] = store[d.CID]
		}
		s, parity, err := codec.Protect(data, bodies, nil)
		if err != nil {
			return err
		}
		for i, shard := range s.Parity {
			store[shard.CID] = parity[i]
		}
		return w.Add(s)
	})
	if err != nil {
		tb.Fatalf("planner: %v", err)
	}
	var blocks []cid.Cid
	for i := range 500 {
		b := randomBytes(r, r.IntN(1+3*i))
		c := sumCID(cid.DagProtobuf, b)
		if i%3 > 0 {
			c = sumCID(cid.Raw, b)
		}
		blocks, store[c] = append(blocks, c), b
		if err := p.Add(Shard{c, len(b)}); err != nil {
			tb.Fatalf("plan: %v", err)
		}
	}
	if err := p.Close(); err != nil {
		tb.Fatalf("plan: %v", err)
	}
	manifest, err := w.Close()
	if err != nil {
		tb.Fatalf("close: %v", err)
	}
	return blocks, manifest
}

// recover1 returns the block that was found, from a store that has lost some shards of its stripe.
func recover1(codec *Codec, f Found, store map[cid.Cid][]byte, lost []int) ([]byte, error) {
	all := f.Stripe.Shards()
	shards, want := make([][]byte, len(all)), make([]bool, len(all))
	for i, s := range all {
		if !slices.Contains(lost, i) {
			shards[i] = store[s.CID]
		}
	}
	want[f.Shard] = true
	err := codec.Reconstruct(shards, f.Stripe.Lengths(), want)
	return shards[f.Shard], err
}

// FuzzReconstruct gives the codec lists of any shape: it may refuse, never panic.
func FuzzReconstruct(f *testing.F) {
	f.Add(uint8(4), uint8(2), []byte{9, 9, 9, 9, 9, 9}, uint64(0b010110))
	f.Add(uint8(1), uint8(2), []byte{5, 5, 5}, uint64(0b1001))
	f.Add(uint8(3), uint8(0), []byte{0, 2}, uint64(0))
	f.Fuzz(func(t *testing.T, k, m uint8, lengths []byte, bits uint64) {
		c, err := New(int(k), int(m))
		if err != nil {
			return
		}
		shards, sizes, want := make([][]byte, len(lengths)), make([]int, len(lengths)), make([]bool, len(lengths))
		for i, n := range lengths {
			sizes[i] = int(int8(n)) * 3
			if bits>>(i%64)&1 == 0 && sizes[i] > 0 {
				shards[i] = make([]byte, sizes[i])
			}
			want[i] = bits>>(i*7%64)&1 == 1
		}
		if err := c.Reconstruct(shards, sizes, want); err == nil {
			for i := range want {
				if want[i] && (shards[i] == nil || len(shards[i]) != sizes[i]) {
					t.Fatalf("shard %d of %d bytes was not made", i, sizes[i])
				}
			}
		} else if !errors.Is(err, ErrShape) && !errors.Is(err, ErrTooFew) {
			t.Fatalf("error without a name: %v", err)
		}
	})
}
