package exchange

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// twoPeers makes a machine with a session that knows a fast and a slow peer.
func twoPeers(t *testing.T) (m *machine, s *session, fast, slow *peerState) {
	t.Helper()
	m = newMachine(Limits{}.withDefaults())
	m.Tick(time.Hour)
	for _, id := range []peer.ID{"fast", "slow"} {
		m.Step(connectedEvent{id, true})
	}
	s = m.openSession(Want{CID: leaf(0, 1).Cid(), Dataset: leaf(0, 1).Cid()})
	s.leafBytes = mib
	fast, slow = m.peers["fast"], m.peers["slow"]
	fast.delivery = delivery{latency: time.Millisecond, rate: 200 * mib, delivered: 1, lastBlock: m.now}
	slow.delivery = delivery{latency: time.Millisecond, rate: mib, delivered: 1, lastBlock: m.now}
	m.join(s, fast)
	m.join(s, slow)
	return m, s, fast, slow
}

// TestAFastPeerIsWorthWaitingFor: a slow peer is not given a block that the fast one would have delivered
// long before, though only the slow one has room; once the fast one stalls, it is.
func TestAFastPeerIsWorthWaitingFor(t *testing.T) {
	m, s, fast, slow := twoPeers(t)
	for i := range 40 {
		m.Step(wantEvent{intent: intentID(i), want: Want{CID: leaf(i, 1).Cid(), Dataset: s.key}, bulk: false})
	}
	m.Ready()
	if fast.blocks != 32 || slow.blocks != 0 || s.queued() != 8 {
		t.Fatalf("%d at the fast peer, %d at the slow one, %d waiting", fast.blocks, slow.blocks, s.queued())
	}
	m.Tick(m.now + 900*time.Millisecond)
	m.Ready()
	if slow.blocks == 0 {
		t.Error("nothing was asked of the slow peer when the fast one stalled")
	}
	checkMachine(t, m)
}

// TestThroughputIsMeasured: of a peer that delivers 1 MiB every 10 ms.
func TestThroughputIsMeasured(t *testing.T) {
	var d delivery
	now := time.Duration(0)
	for range 200 {
		now += 10 * time.Millisecond
		d.arrived(now, mib, true)
	}
	if d.rate < 95*mib || d.rate > 105*mib {
		t.Errorf("%.1f MiB/s", d.rate/mib)
	}
	now += time.Hour // nothing was asked for: the pause tells nothing
	d.sampling = false
	d.arrived(now, mib, true)
	if d.rate < 95*mib {
		t.Errorf("%.1f MiB/s after a pause", d.rate/mib)
	}
	for range 200 {
		now += 100 * time.Millisecond
		d.arrived(now, mib, true)
	}
	if d.rate < 9.5*mib || d.rate > 11*mib {
		t.Errorf("%.1f MiB/s when it got slower", d.rate/mib)
	}
}

// TestALoneBlockTellsItsPeersRate: of a peer that is never asked for two blocks at once.
func TestALoneBlockTellsItsPeersRate(t *testing.T) {
	var d delivery
	d.alone(2*time.Second, mib)
	if d.rate != mib/2 {
		t.Errorf("%.2f MiB/s", d.rate/mib)
	}
	d = delivery{}
	d.alone(time.Millisecond, 100)
	if d.rate != 0 || d.latency != time.Millisecond {
		t.Errorf("%.2f MiB/s, %v", d.rate/mib, d.latency)
	}
}

// TestEstimates: what is known of a block's length before it is here.
func TestEstimates(t *testing.T) {
	s := &session{}
	w := &want{}
	last := &want{Want: Want{Place: Place{Offset: 9 * mib, FileBytes: 9*mib + 10}}}
	first := &want{Want: Want{Place: Place{FileBytes: 9 * mib}}}
	declared := &want{Want: Want{Place: Place{Offset: 2 * mib, FileBytes: 9 * mib, Bytes: 700}}}
	lying := &want{Want: Want{Place: Place{FileBytes: 1 << 62, Bytes: 1 << 63}}}
	for _, c := range []struct {
		average float64
		want    *want
		bytes   int64
	}{{0, declared, 700}, {5000, declared, 700}, {300, declared, 300}, {0, lying, mib}, {5000, lying, 5000}, {0, w, guessBytes}, {0, first, mib}, {0, last, 10}, {5000, w, 5000}, {5000, last, 10}, {5000, first, 5000}} {
		s.leafBytes = c.average
		if n := s.estimate(c.want); n != c.bytes {
			t.Errorf("average %.0f: %d, not %d", c.average, n, c.bytes)
		}
	}
}

// TestSearchesAreForgotten: of many datasets that nobody has.
func TestSearchesAreForgotten(t *testing.T) {
	m := newMachine(Limits{}.withDefaults())
	for i := range 3 * searchesKept {
		m.Step(wantEvent{intent: intentID(i), want: Want{CID: leaf(i, 1).Cid()}, bulk: false})
		for _, c := range m.Ready().searches {
			m.Step(providersEvent{key: c, done: true})
		}
		m.Step(forgetEvent{intentID(i)})
		m.Tick(m.now + time.Second)
	}
	if len(m.searches) > searchesKept || len(m.searches) != len(m.searchOrder) {
		t.Errorf("%d searches are remembered, %d in order", len(m.searches), len(m.searchOrder))
	}
	checkMachine(t, m)
}

// TestRecentIsBounded: what was resolved is forgotten in the end.
func TestRecentIsBounded(t *testing.T) {
	r := newRecentCIDs(3)
	for i := range 4 {
		r.add(leaf(i, 1).Cid())
	}
	r.add(leaf(3, 1).Cid())
	if r.has(leaf(0, 1).Cid()) || r.has(leaf(1, 1).Cid()) || !r.has(leaf(2, 1).Cid()) || !r.has(leaf(3, 1).Cid()) || len(r.set) > 3 {
		t.Errorf("%d remembered", len(r.set))
	}
	r.add(leaf(4, 1).Cid())
	r.add(leaf(4, 1).Cid())
	if !r.has(leaf(3, 1).Cid()) {
		t.Error("one of two entries took the other with it")
	}
}
