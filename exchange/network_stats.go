package exchange

import "sync/atomic"

// NetworkStats are figures of a [HostNetwork] since its start.
type NetworkStats struct {
	Peers     int // connected, that speak the protocol
	Sent      Traffic
	Received  Traffic
	Malformed uint64 // messages received
	Slow      uint64 // messages given up because the peer did not go on
	Refused   uint64 // streams of peers that had too many
	Overflow  uint64 // wants of peers whose want list was full
	Waiting   int    // blocks that peers wait for and we do not have
	InFlight  int    // bytes read to be sent, or being sent

	Charged         Amount // for blocks that were sent
	Earned          Amount // in payments for them
	RefusedPayments uint64 // vouchers that were not accepted
}

// Traffic counts what went one way over the wire.
type Traffic struct {
	Messages, Bytes                uint64 // Bytes: whole messages
	WantHaves, WantBlocks, Cancels uint64
	Haves, DontHaves               uint64
	Blocks, BlockBytes             uint64
}

// Stats returns the figures so far.
func (n *HostNetwork) Stats() NetworkStats {
	n.mu.Lock()
	s := NetworkStats{Peers: len(n.peers)}
	n.mu.Unlock()
	s.Sent, s.Received = n.counts.sent.figures(), n.counts.received.figures()
	s.RefusedPayments = n.counts.refusedPayments.Load()
	s.Malformed, s.Slow, s.Refused = n.counts.malformed.Load(), n.counts.slow.Load(), n.counts.refused.Load()
	if n.server != nil {
		s.Overflow = n.server.overflow.Load()
		n.server.mu.Lock()
		s.Waiting, s.InFlight = len(n.server.waiting), n.server.inFlight
		s.Charged, s.Earned = n.server.charged, n.server.received
		n.server.mu.Unlock()
	}
	return s
}

// wireCounts counts as NetworkStats says.
type wireCounts struct {
	sent, received wireTotals
	malformed      atomic.Uint64 // messages
	slow           atomic.Uint64 // messages given up in their middle
	refused        atomic.Uint64 // incoming streams

	refusedPayments atomic.Uint64
}

type wireTotals struct {
	messages, bytes                atomic.Uint64
	wantHaves, wantBlocks, cancels atomic.Uint64
	haves, dontHaves               atomic.Uint64
	blocks, blockBytes             atomic.Uint64
}

func (t *wireTotals) add(m *message, bytes int) {
	t.messages.Add(1)
	t.bytes.Add(uint64(bytes))
	for _, e := range m.entries {
		switch e.Kind {
		case WantHave:
			t.wantHaves.Add(1)
		case WantBlock:
			t.wantBlocks.Add(1)
		case Cancel:
			t.cancels.Add(1)
		}
	}
	for _, p := range m.presences {
		if p.Have {
			t.haves.Add(1)
		} else {
			t.dontHaves.Add(1)
		}
	}
	t.blocks.Add(uint64(len(m.blocks)))
	t.blockBytes.Add(uint64(m.blockBytes()))
}

func (t *wireTotals) figures() Traffic {
	return Traffic{
		Messages: t.messages.Load(), Bytes: t.bytes.Load(),
		WantHaves: t.wantHaves.Load(), WantBlocks: t.wantBlocks.Load(), Cancels: t.cancels.Load(),
		Haves: t.haves.Load(), DontHaves: t.dontHaves.Load(),
		Blocks: t.blocks.Load(), BlockBytes: t.blockBytes.Load(),
	}
}

// Usage returns how much of the bounds of serving and receiving is in use, named as the fields of [ServeConfig] and
// [NetworkConfig] with Serve and Network before them; of bounds that each peer has it is the greatest use.
func (n *HostNetwork) Usage() []Usage {
	var streams, held int64
	n.mu.Lock()
	for _, r := range n.peers {
		r.mu.Lock()
		streams = max(streams, int64(r.theirs))
		r.mu.Unlock()
		held = max(held, r.budget.used.Load())
	}
	n.mu.Unlock()
	us := []Usage{
		{"NetworkStreamsPerPeer", streams, int64(n.cfg.StreamsPerPeer)},
		{"NetworkPeerBytes", held, int64(n.cfg.PeerBytes)},
		{"NetworkSharedBytes", n.shared.used.Load(), int64(n.cfg.SharedBytes)},
	}
	if n.server == nil {
		return us
	}
	return append(us, n.server.usage()...)
}

func (s *server) usage() []Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wants, bytes int64
	var owed int64
	for l := range s.ledgers {
		wants, bytes = max(wants, int64(len(l.wants))), max(bytes, int64(l.inFlight))
		if l.tab != nil {
			owed = max(owed, l.tab.owed)
		}
	}
	us := []Usage{
		{"ServeMaxWants", wants, int64(s.cfg.MaxWants)},
		{"ServeTotalWants", int64(s.wants), int64(s.cfg.TotalWants)},
		{"ServePeerBytes", bytes, int64(s.cfg.PeerBytes)},
		{"ServeTotalBytes", int64(s.inFlight), int64(s.cfg.TotalBytes)},
		{"ServeAccounts", int64(len(s.tabs.byPeer)), int64(s.cfg.Accounts)},
	}
	if s.cfg.PricePerMiB > 0 {
		us = append(us, Usage{"ServeCreditBytes", int64(float64(max(0, owed)) * mib / float64(s.cfg.PricePerMiB)), s.cfg.CreditBytes})
	}
	return us
}
