package exchange

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

const (
	bigLeaf = 256 * kib
	// uplink is what a healthy peer gives a second. Ours is not bounded.
	uplink = 10 * mib
)

// bigTree makes a DAG of so many bytes. Its leaves share one array, so they are only told apart by CID.
func bigTree(size int) (root blocks.Block, all []blocks.Block) {
	data := make([]byte, bigLeaf)
	var number [8]byte
	for i := range size / bigLeaf {
		binary.BigEndian.PutUint64(number[:], uint64(i))
		b, err := blocks.NewBlockWithCid(data, newBlock(cid.Raw, number[:]).Cid())
		if err != nil {
			panic(err)
		}
		all = append(all, b)
	}
	root = node(all...)
	return root, append(all, root)
}

// bigDownload fetches a DAG of 1 GiB from peers with the uplinks given, and returns how long it took and
// which part of the bytes came twice.
func bigDownload(t *testing.T, uplinks ...float64) (took time.Duration, twice float64) {
	t.Helper()
	simulate(t, Limits{}, func(s *sim) {
		root, all := bigTree(1 << 30)
		for i, rate := range uplinks {
			p := s.net.add(fmt.Sprint("p", i), all...)
			p.rate = rate
			p.connect()
		}
		took = s.download(root, time.Hour)
		sent := 0
		for _, p := range s.net.peers {
			sent += p.sentBytes
		}
		twice = float64(sent)/(1<<30) - 1
		st := s.Stats()
		t.Logf("%d peers: %v, %.2f %% twice, %d hedges, %d timeouts", len(uplinks), took, 100*twice, st.Hedges, st.Timeouts)
	})
	return took, twice
}

// TestFourPeersAreAlmostFourTimesOne: where the peers' uplinks are what bounds it.
func TestFourPeersAreAlmostFourTimesOne(t *testing.T) {
	one, _ := bigDownload(t, uplink)
	four, twice := bigDownload(t, uplink, uplink, uplink, uplink)
	if ratio := one.Seconds() / four.Seconds(); ratio < 3.5 || twice >= 0.03 {
		t.Errorf("%.2f times as fast, %.2f %% twice", ratio, 100*twice)
	}
}

// TestASlowPeerHardlyMatters: one of four gives a hundredth of what the others do.
func TestASlowPeerHardlyMatters(t *testing.T) {
	three, _ := bigDownload(t, uplink, uplink, uplink)
	for at := range 4 {
		uplinks := []float64{uplink, uplink, uplink, uplink}
		uplinks[at] /= 100
		took, twice := bigDownload(t, uplinks...)
		if ratio := took.Seconds() / three.Seconds(); ratio > 1.15 || twice >= 0.03 {
			t.Errorf("%.2f times as long as three, %.2f %% twice", ratio, 100*twice)
		}
	}
}

// TestAPeerThatBecomesSlow: as the others, until a third of the way.
func TestAPeerThatBecomesSlow(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := bigTree(1 << 30)
		for i := range 4 {
			p := s.net.add(fmt.Sprint("p", i), all...)
			p.rate = uplink
			p.connect()
		}
		turn := time.AfterFunc(9*time.Second, func() { s.net.peers["p2"].change(func(p *simPeer) { p.rate /= 100 }) })
		defer turn.Stop()
		took := s.download(root, time.Hour)
		three := time.Second * (1 << 30) / (3 * uplink)
		t.Logf("took %v; three peers alone %v; %d sent twice", took, three, s.sentTwice())
		if took.Seconds() > 1.15*three.Seconds() || s.sentTwice() > (1<<30)/bigLeaf*3/100 {
			t.Errorf("took %v; three peers alone %v; %d sent twice", took, three, s.sentTwice())
		}
	})
}
