package node

import (
	"context"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/erasure"
)

// forge puts a manifest that protects the root alone into a node's store, and has it tell of it.
func (r *running) forge(t *testing.T, root cid.Cid) {
	t.Helper()
	ctx := context.Background()
	b, err := r.node.store.Get(ctx, blockcache.Want{CID: root})
	if err != nil {
		t.Fatal(err)
	}
	put := func(c cid.Cid, data []byte) error {
		b, err := blocks.NewBlockWithCid(data, c)
		if err == nil {
			err = r.node.store.Put(ctx, []blockcache.Entry{{Block: b}})
		}
		return err
	}
	w, err := erasure.NewManifestWriter(root, 4, 2, func(p erasure.Part) error { return put(p.CID, p.Data) })
	if err != nil {
		t.Fatal(err)
	}
	codec, err := erasure.New(4, 2)
	if err != nil {
		t.Fatal(err)
	}
	data := []erasure.Shard{{CID: root, Bytes: len(b.RawData())}}
	s, parity, err := codec.Protect(data, [][]byte{b.RawData()}, nil)
	for i := 0; err == nil && i < len(parity); i++ {
		err = put(s.Parity[i].CID, parity[i])
	}
	if err == nil {
		err = w.Add(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.Close()
	if err == nil {
		err = r.node.register.Add(ctx, root, c)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestManifestsOfPeers: a node that knows a root alone hears of its manifest from a peer, verifies and repairs by it, and
// believes none that protects less, or other content.
func TestManifestsOfPeers(t *testing.T) {
	ctx := context.Background()
	keeper, liar, other, asks := fresh(t, nil), fresh(t, nil), fresh(t, nil), fresh(t, nil)
	tree, _ := sample(t)
	protected := api.AddOptions{Pin: true, Protect: api.Protection{K: 4, M: 2}}
	added := keeper.addTree(t, protected, tree)[0]
	root := ref(t, added.CID)
	for _, n := range []*running{liar, other} {
		n.addTree(t, api.AddOptions{Pin: true}, tree)
	}
	liar.forge(t, root.CID)
	wrong, _ := sample(t)
	if err := other.node.register.Add(ctx, root.CID, ref(t, other.addTree(t, protected, wrong+"/big")[0].Manifest).CID); err != nil {
		t.Fatal(err)
	}
	asks.meets(t, liar)
	asks.meets(t, other)
	if v, err := asks.Verify(ctx, root, false, nil); err != nil || v.Manifest != "" || v.Data.Lost > 0 {
		t.Errorf("verified by what liars say: %+v, %v", v, err)
	}
	if _, err := asks.Repair(ctx, root, nil); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("repaired by what liars say: %v", err)
	}
	liar.stop()
	other.stop()

	fresh := fresh(t, nil)
	fresh.meets(t, keeper)
	v, err := fresh.Verify(ctx, root, false, nil)
	if err != nil || v.Manifest != added.Manifest || v.Data.Lost > 0 || v.Data.Reachable == 0 || v.K != 4 {
		t.Errorf("verified: %+v, %v", v, err)
	}
	if known, err := fresh.node.register.Of(ctx, root.CID); err != nil || len(known) > 0 {
		t.Errorf("a peer's word is remembered: %v, %v", known, err)
	}
	repaired, err := fresh.Repair(ctx, root, nil)
	if err != nil || repaired.Lost > 0 || repaired.Fetched == 0 {
		t.Errorf("repaired: %+v, %v", repaired, err)
	}
	if known, err := fresh.node.register.Of(ctx, root.CID); err != nil || len(known) != 1 || known[0].String() != added.Manifest {
		t.Errorf("what was repaired by is not remembered: %v, %v", known, err)
	}
}
