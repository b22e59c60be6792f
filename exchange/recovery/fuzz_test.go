package recovery

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/erasure"
)

// mostFetched is how often one rescue may ask for something, whatever a small manifest says: each shard of a stripe of
// the largest code, and parts of the manifest.
const mostFetched = erasure.MaxShards + 64

// FuzzRescue has blocks rebuilt by the manifest whose head and page are given: it never gives wrong bytes, never asks
// without end, and ends when nobody waits.
func FuzzRescue(f *testing.F) {
	for _, code := range [][2]int{{1, 2}, {2, 1}, {4, 2}, {10, 4}} {
		for _, parts := range partsOf(f, code[0], code[1]) {
			f.Add(parts[0], parts[1])
		}
	}
	f.Fuzz(func(t *testing.T, head, page []byte) {
		synctest.Test(t, func(t *testing.T) { rescueBy(t, head, page) })
	})
}

// partsOf are the head and the page of an honest manifest, and both in some bad states.
func partsOf(f *testing.F, k, m int) (seeds [][2][]byte) {
	f.Helper()
	w := newWorld(f, k, m, 9)
	head := w.peers[w.manifest].RawData()
	var page []byte
	for c, b := range w.peers {
		if c.Type() == cid.DagCBOR && bytes.Contains(head, c.Bytes()) {
			page = b.RawData()
		}
	}
	seeds = append(seeds, [2][]byte{head, page}, [2][]byte{head[:len(head)/2], page}, [2][]byte{head, page[:len(page)/2]})
	first, second := w.data[1].Cid().Bytes(), w.data[2].Cid().Bytes()
	swapped := bytes.ReplaceAll(page, first, second)
	return append(seeds, [2][]byte{head, swapped}, [2][]byte{head, bytes.Replace(page, first, w.stripes[0].Parity[0].CID.Bytes(), 1)})
}

// rescueBy loses the first block of every stripe of a world and has all rebuilt by the manifest. A page that differs
// from the honest one is linked in its stead.
func rescueBy(t *testing.T, head, page []byte) {
	w := newWorld(t, 4, 2, 9)
	honest := w.peers[w.manifest].RawData()
	for c := range w.peers {
		if c.Type() == cid.DagCBOR && bytes.Contains(honest, c.Bytes()) {
			head = bytes.ReplaceAll(head, c.Bytes(), cborCID(page).Bytes())
		}
	}
	w.peers[cborCID(page)] = mustBlock(t, page, cborCID(page))
	w.manifest = cborCID(head)
	w.peers[w.manifest] = mustBlock(t, head, w.manifest)
	w.recover(t, Config{})
	defer w.Close()
	for i, b := range w.data {
		if i%4 < 2 {
			w.lose(b.Cid())
		}
	}
	for i, b := range w.data {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		before := w.asked()
		got, err := w.Rescue(ctx, w.want(i))
		cancel()
		if err == nil && (!bytes.Equal(got.RawData(), b.RawData()) || !got.Cid().Equals(b.Cid())) {
			t.Fatalf("block %d came out as other bytes", i)
		}
		if n := w.asked() - before; n > mostFetched {
			t.Fatalf("%d fetches for one block", n)
		}
	}
	for c, b := range w.here {
		if sum, err := c.Prefix().Sum(b.RawData()); err != nil || !sum.Equals(c) {
			t.Fatalf("wrong bytes were kept for %s", c)
		}
	}
	synctest.Wait()
	if s := w.Stats(); s.Active != 0 {
		t.Fatalf("%d stripes are still being rebuilt", s.Active)
	}
}

// asked is how many fetches there were.
func (w *world) asked() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.fetched {
		n += f
	}
	return n
}

func cborCID(data []byte) cid.Cid {
	c, err := cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: mh.SHA2_256, MhLength: 32}.Sum(data)
	if err != nil {
		panic(err)
	}
	return c
}
