package uploader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/semaphore"

	"github.com/holdfastfs/holdfast/erasure"
)

// stripes makes groups of stripes as a dataset does, and all of their shards. Sizes are blocks of each stripe.
func stripes(t *testing.T, k, m int, sizes ...int) (groups []Group, shards map[cid.Cid][]byte) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(k), uint64(len(sizes))))
	shards = make(map[cid.Cid][]byte)
	codec, err := erasure.New(k, m)
	if err != nil {
		t.Fatal(err)
	}
	grouper, err := erasure.NewGrouper(k, m, func(g erasure.Group) error {
		out := Group{Parity: m, Data: k}
		for _, s := range g.Stripes {
			out.Stripes = append(out.Stripes, len(s.Data))
		}
		for _, c := range g.Columns() {
			id, descriptor, err := c.Encode()
			if err != nil {
				return err
			}
			out.Columns = append(out.Columns, Column{Chunk: id, Descriptor: descriptor})
		}
		groups = append(groups, out)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range sizes {
		var data []erasure.Shard
		var blocks [][]byte
		for range n {
			b := make([]byte, 1+random.IntN(3000))
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			c := cidOf(string(b))
			data, blocks, shards[c] = append(data, erasure.Shard{CID: c, Bytes: len(b)}), append(blocks, b), b
		}
		s, parity, err := codec.Protect(data, blocks, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range s.Parity {
			shards[p.CID] = parity[i]
		}
		if err := grouper.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := grouper.Flush(); err != nil {
		t.Fatal(err)
	}
	return groups, shards
}

// vault gives shards, but for those that are lost: nobody ever answers for them.
type vault struct {
	shards map[cid.Cid][]byte
	lost   map[cid.Cid]bool
	fails  bool // it says so
}

func (v vault) ReadShard(ctx context.Context, c cid.Cid) ([]byte, bool, error) {
	if !v.lost[c] {
		return v.shards[c], false, nil
	}
	if v.fails {
		return nil, false, errors.New("nobody has it")
	}
	<-ctx.Done()
	return nil, false, ctx.Err()
}

// TestRebuild loses columns of groups whose stripes are of different lengths, as many as there is parity and one
// more, and reads them.
func TestRebuild(t *testing.T) {
	cases := map[string]struct {
		k, m  int
		sizes []int
	}{
		"one short stripe": {4, 2, []int{2}},
		"full stripes":     {4, 2, []int{4, 4, 4}},
		"short at the end": {4, 2, []int{4, 4, 4, 1}},
		"short in between": {4, 2, []int{3, 4, 1, 4, 2, 4, 1}},
		"none full":        {6, 3, []int{5, 2, 4}},
		"many":             {3, 1, []int{3, 2, 3, 2, 3, 3, 3, 3, 2, 2, 3, 3, 3, 2, 2, 3, 3, 3, 3, 3}}, // of one block and one parity both are the same
	}
	for name, c := range cases {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprint(name, fails), func(t *testing.T) {
				groups, shards := stripes(t, c.k, c.m, c.sizes...)
				f, err := File{Groups: groups}.check()
				if err != nil {
					t.Fatal(err)
				}
				for i, g := range groups {
					rec := groupRecord{ID: g.ID(), Parity: g.Parity, Code: f.groups[i].code}
					for _, column := range g.Columns {
						rec.Chunks = append(rec.Chunks, column.Chunk)
					}
					for j := range g.Columns {
						checkRebuilt(t, rec, g, vault{shards: shards, fails: fails}, j)
					}
				}
			})
		}
	}
}

// checkRebuilt loses columns from j on and reads that one.
func checkRebuilt(t *testing.T, rec groupRecord, g Group, v vault, j int) {
	t.Helper()
	n := len(g.Columns)
	v.lost = make(map[cid.Cid]bool)
	lose := func(k int) {
		chunk, err := erasure.DecodeChunk(g.Columns[k%n].Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range chunk {
			v.lost[s.CID] = true
		}
	}
	for k := range g.Parity {
		lose(j + k)
	}
	synctest.Test(t, func(t *testing.T) {
		got, want, err := readColumn(t, rec, g, v, j)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("column %d, %d lost: %d bytes of %d are right, %v", j, g.Parity, len(got), len(want), err)
		}
	})
	for k := range n - 1 {
		lose(j + k)
	}
	synctest.Test(t, func(t *testing.T) {
		if _, _, err := readColumn(t, rec, g, v, j); err == nil {
			t.Errorf("column %d is rebuilt out of one", j)
		}
	})
}

func readColumn(t *testing.T, rec groupRecord, g Group, v vault, j int) (got, want []byte, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	r := &rebuilder{chunks: v, groups: []groupRecord{rec}, memory: semaphore.NewWeighted(rebuildBytes), shards: func(c cid.Cid) (erasure.Chunk, error) {
		for _, column := range g.Columns {
			if column.Chunk.Equals(c) {
				return erasure.DecodeChunk(column.Descriptor)
			}
		}
		return nil, errors.New("no such chunk")
	}}
	chunk, err := erasure.DecodeChunk(g.Columns[j].Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range chunk {
		want = append(want, v.shards[s.CID]...)
	}
	got = make([]byte, len(want))
	return got, want, r.read(ctx, g.Columns[j].Chunk, chunk, got)
}

// TestWrongCodes: a group must have the columns that its stripes make.
func TestWrongCodes(t *testing.T) {
	for name, spoil := range map[string]func(g *Group){
		"no stripe":        func(g *Group) { g.Stripes = g.Stripes[:1] },
		"another length":   func(g *Group) { g.Stripes[0]-- },
		"too long":         func(g *Group) { g.Stripes[0] = 9 },
		"empty":            func(g *Group) { g.Stripes[0] = 0 },
		"smaller code":     func(g *Group) { g.Data = 2 },
		"impossible code":  func(g *Group) { g.Data = 255 },
		"a column is gone": func(g *Group) { g.Columns = g.Columns[1:] },
	} {
		groups, _ := stripes(t, 4, 2, 4, 3, 4)
		spoil(&groups[0])
		if _, err := (File{Groups: groups}).check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	groups, _ := stripes(t, 4, 2, 4, 3, 4)
	groups[0].Data, groups[0].Stripes = 0, nil // nobody says: it is kept all the same
	if c, err := (File{Groups: groups}).check(); err != nil || c.groups[0].code.Data != 0 {
		t.Errorf("group of unknown stripes: %+v, %v", c.groups, err)
	}
}
