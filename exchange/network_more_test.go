package exchange

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// TestPeersTellManifests asks three peers, one of which speaks Bitswap alone and one knows nothing.
func TestPeersTellManifests(t *testing.T) {
	goroutinesBack(t)
	root := testCID(1)
	var all []cid.Cid
	for i := range maxManifestsOfRoot + 3 {
		all = append(all, testCID(10+i))
	}
	asker := newTestNode(t)
	knows := startNode(t, newTestHost(t), NetworkConfig{}, ServeConfig{Manifests: func(c cid.Cid) []cid.Cid {
		if c == root {
			return all
		}
		return nil
	}})
	nothing := startNode(t, newTestHost(t), NetworkConfig{}, ServeConfig{Manifests: func(cid.Cid) []cid.Cid { return nil }})
	other := startNode(t, newTestHost(t), NetworkConfig{Protocols: []protocol.ID{ProtocolBitswap12}}, ServeConfig{Manifests: func(cid.Cid) []cid.Cid {
		t.Error("a peer that speaks Bitswap alone was asked")
		return nil
	}})
	for _, n := range []*testNode{knows, nothing, other} {
		asker.dial(t, n)
		asker.knows(t, n.id())
	}
	for range 3 {
		got, err := asker.net.Manifests(t.Context(), root)
		if err != nil || !slices.Equal(got, all[:maxManifestsOfRoot]) {
			t.Errorf("told of %d manifests, %v", len(got), err)
		}
	}
	if got, err := asker.net.Manifests(t.Context(), testCID(2)); err != nil || len(got) != 0 {
		t.Errorf("another root: %v, %v", got, err)
	}
	asker.net.mu.Lock()
	defer asker.net.mu.Unlock()
	if len(asker.net.asks) != 0 {
		t.Errorf("%d questions are left", len(asker.net.asks))
	}
	r := asker.net.peers[knows.id()]
	asker.net.mu.Unlock()
	asker.net.told(r, known{root, all}) // nobody asks any more
	asker.net.mu.Lock()
}

// TestPaymentsArrive sends vouchers, and sends them again to a peer that comes back.
func TestPaymentsArrive(t *testing.T) {
	goroutinesBack(t)
	till := &testTill{}
	seller := startNode(t, newTestHost(t), NetworkConfig{}, ServeConfig{PricePerMiB: 1, Till: till})
	buyer := startNode(t, newTestHost(t), NetworkConfig{Owed: func(context.Context, peer.ID) ([][]byte, error) { return [][]byte{[]byte("70")}, nil }}, ServeConfig{})
	paid := func(want Amount) func() bool {
		return func() bool {
			till.mu.Lock()
			defer till.mu.Unlock()
			return till.paid[buyer.id()] == want
		}
	}
	buyer.dial(t, seller)
	until(t, "the last payment to be sent again", paid(70))
	for i := range 200 {
		buyer.net.Pay(seller.id(), [][]byte{fmt.Append(nil, 100+i)})
	}
	until(t, "the last of many payments", paid(299))
	buyer.net.Pay(seller.id(), [][]byte{[]byte("nonsense")})
	until(t, "a bad payment to be counted", func() bool { return seller.net.Stats().RefusedPayments == 1 })
	if s := seller.net.Stats(); s.Earned != 299 {
		t.Errorf("%d earned", s.Earned)
	}
	if used := seller.net.Usage(); !slices.ContainsFunc(used, func(u Usage) bool { return u.Name == "ServeAccounts" && u.Used == 1 }) {
		t.Errorf("usage %+v", used)
	}
}
