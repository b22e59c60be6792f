package unixfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// A round is the virtual time of one fetch: a listing that takes n of them waited n times, one after another.
const round = 20 * time.Millisecond

// oddBlocks is a memBlocks with one block that is slow, or missing.
type oddBlocks struct {
	*memBlocks
	odd  cid.Cid
	slow time.Duration
	fail error
}

func (o *oddBlocks) Get(ctx context.Context, w Want) (blocks.Block, error) {
	if w.CID != o.odd {
		return o.memBlocks.Get(ctx, w)
	}
	select {
	case <-time.After(o.slow):
	case <-ctx.Done():
	}
	if o.fail != nil {
		return nil, o.fail
	}
	return o.m[w.CID], ctx.Err()
}

// shardsOf counts the blocks of the HAMT below c.
func shardsOf(t testing.TB, store *memBlocks, c cid.Cid) int {
	t.Helper()
	n, err := decodeNode(store.m[c].RawData())
	if err != nil {
		t.Fatal(err)
	}
	count := 1
	for i := range n.links {
		if l := n.link(i); len(l.name) == int(n.shard.digits) {
			count += shardsOf(t, store, mustCID(t, l))
		}
	}
	return count
}

func mustCID(t testing.TB, l pbLink) cid.Cid {
	t.Helper()
	c, err := castCID(l.cid)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// childShard returns the CID of link i of the HAMT node c.
func childShard(t testing.TB, store *memBlocks, c cid.Cid, i int) cid.Cid {
	t.Helper()
	n, err := decodeNode(store.m[c].RawData())
	if err != nil {
		t.Fatal(err)
	}
	return mustCID(t, n.link(i))
}

// TestListRounds counts the rounds of waiting that a cold listing takes, at once and in the batches of a mount.
func TestListRounds(t *testing.T) {
	tests := []struct {
		names, fanout int
		batch         int // the largest; 0: all at once
		rounds        int
	}{
		{1000, 256, 0, 14},
		{10_000, 256, 0, 32},
		{10_000, 256, 1024, 40},
		{20_000, 256, 256, 90},
		{20_000, 256, 0, 60},
		{2000, 8, 0, 40},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			store, names := newMemBlocks(), manyNames(tt.names)
			root := boxoDir(t, store, true, tt.fanout, names)
			slices.SortFunc(names, func(a, b string) int { return cmp.Compare(nameHash([]byte(a)), nameHash([]byte(b))) })
			synctest.Test(t, func(t *testing.T) {
				store.delay = round
				r := NewReader(store, Config{})
				begin := time.Now()
				var got []string
				for at, size := Cursor(0), min(128, tt.batch); ; size = min(2*size, tt.batch) {
					page := listed(t, openDir(t, r, root), at, size-1)
					for _, e := range page {
						got, at = append(got, e.Name), e.Next
					}
					if len(page) < size-1 || tt.batch == 0 {
						break
					}
				}
				if !slices.Equal(got, names) {
					t.Errorf("%d names, want %d, or another order", len(got), len(names))
				}
				took := int((time.Since(begin) + round - 1) / round)
				t.Logf("%d rounds, %d fetches, %d at once", took, store.count(), store.busiest)
				if took > tt.rounds {
					t.Errorf("%d rounds of waiting, want %d", took, tt.rounds)
				}
				if all := shardsOf(t, store, root); len(store.gets) != all || tt.batch == 0 && store.count() != all {
					t.Errorf("%d fetches of %d blocks, want %d", store.count(), len(store.gets), all)
				}
				if store.busiest > 64 {
					t.Errorf("%d fetches at once", store.busiest)
				}
			})
		})
	}
}

// TestListPastSlowShard: what lies behind a slow shard is fetched meanwhile, and what lies below it quickly after.
func TestListPastSlowShard(t *testing.T) {
	const slow = 100
	for _, tt := range []struct{ names, fanout, rounds int }{{10_000, 256, slow + 30}, {2000, 8, slow + 30}} {
		store := newMemBlocks()
		root := boxoDir(t, store, true, tt.fanout, manyNames(tt.names))
		odd := &oddBlocks{memBlocks: store, odd: childShard(t, store, root, tt.fanout/4), slow: slow * round}
		synctest.Test(t, func(t *testing.T) {
			store.delay = round
			begin := time.Now()
			if got := listed(t, openDir(t, NewReader(odd, Config{}), root), 0, -1); len(got) != tt.names {
				t.Errorf("%d names", len(got))
			}
			took := int(time.Since(begin) / round)
			t.Logf("%d names: %d rounds", tt.names, took)
			if took > tt.rounds {
				t.Errorf("%d names: %d rounds of waiting, want %d", tt.names, took, tt.rounds)
			}
		})
	}
}

// TestListStoppedEarly: who stops has had at most two shards fetched ahead for each that it came to, from the start and
// from the middle, and waits for none of them.
func TestListStoppedEarly(t *testing.T) {
	store := newMemBlocks()
	root := bigShard(store, 50_000)
	for _, after := range []Cursor{0, 1<<61 + 12345} {
		for _, stop := range []int{1, 10, 100, 1000} {
			synctest.Test(t, func(t *testing.T) {
				clear(store.gets)
				store.delay = round
				d := openDir(t, NewReader(store, Config{}), root)
				var last EntryAt
				var at time.Time
				count := 0
				for e, err := range d.Entries(context.Background(), after) {
					if err != nil {
						t.Fatal(err)
					}
					last, at = e, time.Now()
					if count++; count == stop {
						break
					}
				}
				if !time.Now().Equal(at) || store.busy != 0 {
					t.Errorf("%d entries: waited %v, %d fetches going on", stop, time.Since(at), store.busy)
				}
				taken := d.r.paces.resume(root, last.Next)
				if got := store.count(); got > 1+3*taken || got > 20+stop {
					t.Errorf("%d entries from %d: %d fetches, %d shards came to", stop, after, got, taken)
				}
			})
		}
	}
}

// TestListFailsInPlace: all that comes before a missing shard is listed, and the listing goes on when it is there.
func TestListFailsInPlace(t *testing.T) {
	store := newMemBlocks()
	root := bigShard(store, 5000)
	all := listed(t, openDir(t, NewReader(store, Config{}), root), 0, -1)
	odd := &oddBlocks{memBlocks: store, odd: childShard(t, store, root, 128), fail: errors.New("nobody has it")}
	d := openDir(t, NewReader(odd, Config{}), root)
	var got []EntryAt
	var last error
	for e, err := range d.Entries(context.Background(), 0) {
		if last = err; err == nil {
			got = append(got, e)
		}
	}
	if !errors.Is(last, odd.fail) || nameHash([]byte(all[len(got)].Name))>>56 != 128 {
		t.Fatalf("%v after %d of %d names", last, len(got), len(all))
	}
	odd.fail = nil
	if got = append(got, listed(t, d, got[len(got)-1].Next, -1)...); !slices.Equal(got, all) {
		t.Errorf("%d names, want %d", len(got), len(all))
	}
}

// TestListHoldsBoundedBytes: while a listing waits, shards as large as an enemy likes pile up to a bound.
func TestListHoldsBoundedBytes(t *testing.T) {
	store := newMemBlocks()
	leaf := store.put(cid.Raw, []byte("x"))
	fanout, hash := uint64(256), uint64(hashMurmur3)
	shard := func(links []link) cid.Cid {
		return store.node(&pb.Data{Type: pb.Data_HAMTShard.Enum(), Data: bytes.Repeat([]byte{0xff}, 32), HashType: &hash, Fanout: &fanout}, links...)
	}
	top := make([]link, fanout)
	for i := range top {
		links := make([]link, fanout)
		for j := range links {
			links[j] = link{name: fmt.Sprintf("%02X%d%s", j, i, strings.Repeat("n", 240)), c: leaf}
		}
		top[i] = link{name: fmt.Sprintf("%02X", i), c: shard(links)}
	}
	const before = 100
	odd := &oddBlocks{memBlocks: store, odd: top[before].c, slow: 1000 * round}
	synctest.Test(t, func(t *testing.T) {
		store.delay = round
		ctx, cancel := context.WithTimeout(context.Background(), 500*round)
		defer cancel()
		for range openDir(t, NewReader(odd, Config{}), shard(top)).Entries(ctx, 0) {
		}
		size := len(store.m[top[0].c].RawData())
		if held := (store.count() - 1 - before); held < 20 || held > aheadBytes/size+64 {
			t.Errorf("%d shards of %d bytes held", held, size)
		}
	})
}
