package blockcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// tier is what the conformance suite asks of each tier.
type tier interface {
	Put(context.Context, []Entry) error
	Get(context.Context, Want) (blocks.Block, error)
	Has(context.Context, cid.Cid) (bool, error)
	SizeOf(context.Context, cid.Cid) (int, error)
	Delete(context.Context, []cid.Cid) error
}

// memoryTier gives the memory tier the face of the others.
type memoryTier struct{ *Cache }

func TestConformance(t *testing.T) {
	tiers := map[string]func(t *testing.T) tier{
		"memory": func(t *testing.T) tier {
			c, err := New(Config{MemoryBytes: 64 << 20})
			must(t, err)
			t.Cleanup(func() { must(t, c.Close()) })
			return memoryTier{c}
		},
		"store": func(t *testing.T) tier { return newBox(t, StoreConfig{}).Store },
		"cache": func(t *testing.T) tier {
			c, err := New(Config{MemoryBytes: 1 << 20, Store: newBox(t, StoreConfig{}).Store})
			must(t, err)
			t.Cleanup(func() { must(t, c.Close()) })
			return c
		},
	}
	for name, open := range tiers {
		t.Run(name, func(t *testing.T) { testTier(t, open) })
	}
}

func testTier(t *testing.T, open func(t *testing.T) tier) {
	t.Run("sizes", func(t *testing.T) { testSizes(t, open(t)) })
	t.Run("kinds", func(t *testing.T) { testKinds(t, open(t)) })
	t.Run("inline", func(t *testing.T) { testInline(t, open(t)) })
	t.Run("delete", func(t *testing.T) { testDelete(t, open(t)) })
	t.Run("refuses", func(t *testing.T) { testRefuses(t, open(t)) })
	t.Run("ends", func(t *testing.T) { testEnds(t, open(t)) })
}

func testSizes(t *testing.T, s tier) {
	var es []Entry
	for i, n := range []int{1, 2, 100, 4095, 4096, 10 << 10, joinBytes - 1, joinBytes, joinBytes + 1, 1 << 20, MaxBlockBytes} {
		es = append(es, Entry{Block: randBlock(t, uint64(i), n)})
	}
	mustPut(t, s, es...)
	mustPut(t, s, es...) // again costs nothing and harms nothing
	for _, e := range es {
		mustGet(t, s, e.Block)
		n, err := s.SizeOf(t.Context(), e.Block.Cid())
		if err != nil || n != len(e.Block.RawData()) {
			t.Errorf("size of a block of %d bytes: %d, %v", len(e.Block.RawData()), n, err)
		}
		if ok, err := s.Has(t.Context(), e.Block.Cid()); !ok || err != nil {
			t.Errorf("has: %v, %v", ok, err)
		}
	}
	absent := randBlock(t, 99, 10).Cid()
	if _, err := s.Get(t.Context(), Want{CID: absent}); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of an absent block: %v", err)
	}
	if _, err := s.SizeOf(t.Context(), absent); !errors.Is(err, ErrNotFound) {
		t.Errorf("size of an absent block: %v", err)
	}
	if ok, err := s.Has(t.Context(), absent); ok || err != nil {
		t.Errorf("has an absent block: %v, %v", ok, err)
	}
}

// testKinds stores a block under one CID and reads it under others of the same hash.
func testKinds(t *testing.T, s tier) {
	for _, hash := range []uint64{mh.SHA2_256, mh.SHA2_512, mh.BLAKE3, mh.BLAKE2B_MIN + 31, mh.SHA3_256} {
		data := randBytes(hash, 500)
		pb := sumCID(t, cid.DagProtobuf, hash, data)
		mustPut(t, s, Entry{Block: withCID(data, pb)})
		others := []cid.Cid{pb, cid.NewCidV1(cid.Raw, pb.Hash()), cid.NewCidV1(cid.DagCBOR, pb.Hash())}
		if hash == mh.SHA2_256 {
			others = append(others, cid.NewCidV0(pb.Hash()))
		}
		for _, c := range others {
			mustGet(t, s, withCID(data, c))
		}
	}
}

func testInline(t *testing.T, s tier) {
	ident := sumCID(t, cid.Raw, mh.IDENTITY, []byte("carried in the CID"))
	long := sumCID(t, cid.Raw, mh.IDENTITY, bytes.Repeat([]byte("x"), 1000))
	for c, data := range map[cid.Cid][]byte{
		ident:                                []byte("carried in the CID"),
		long:                                 bytes.Repeat([]byte("x"), 1000),
		sumCID(t, cid.Raw, mh.SHA2_256, nil): {},
		sumCID(t, cid.DagProtobuf, mh.SHA2_256, nil): {},
		sumCID(t, cid.Raw, mh.BLAKE3, nil):           {},
	} {
		mustGet(t, s, withCID(data, c))
		mustPut(t, s, Entry{Block: withCID(data, c)})
		mustGet(t, s, withCID(data, c))
		if n, err := s.SizeOf(t.Context(), c); n != len(data) || err != nil {
			t.Errorf("size of %s: %d, %v", c, n, err)
		}
		must(t, s.Delete(t.Context(), []cid.Cid{c}))
	}
	if st, ok := s.(*Store); ok && st.Stats().Blocks != 0 {
		t.Errorf("%d blocks are stored that need not be", st.Stats().Blocks)
	}
}

func testDelete(t *testing.T, s tier) {
	a, b := randBlock(t, 1, 1000), randBlock(t, 2, 2000)
	mustPut(t, s, Entry{Block: a}, Entry{Block: b})
	must(t, s.Delete(t.Context(), []cid.Cid{a.Cid(), randBlock(t, 3, 10).Cid(), {}}))
	if _, err := s.Get(t.Context(), Want{CID: a.Cid()}); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of a deleted block: %v", err)
	}
	mustGet(t, s, b)
	mustPut(t, s, Entry{Block: a})
	mustGet(t, s, a)
}

func testRefuses(t *testing.T, s tier) {
	if _, err := s.Get(t.Context(), Want{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of no CID: %v", err)
	}
	if _, ok := s.(memoryTier); ok {
		return
	}
	big := randBlock(t, 1, MaxBlockBytes+1)
	hollow := withCID(nil, randBlock(t, 2, 10).Cid())
	for name, e := range map[string]Entry{"too big": {Block: big}, "hollow": {Block: hollow}, "none": {}} {
		if err := s.Put(t.Context(), []Entry{e}); err == nil {
			t.Errorf("put of a block that is %s succeeded", name)
		}
	}
	if err := s.Put(t.Context(), []Entry{{Block: withCID([]byte("x"), cid.Undef)}}); err == nil {
		t.Error("put of a block without CID succeeded")
	}
}

func testEnds(t *testing.T, s tier) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("enough"))
	b := randBlock(t, 1, 100)
	if _, err := s.Get(ctx, Want{CID: b.Cid()}); err == nil {
		t.Error("get of an absent block under an ended context succeeded")
	}
}
