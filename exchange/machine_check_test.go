package exchange

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// checkMachine fails unless everything that must always hold after Ready does.
func checkMachine(t testing.TB, m *machine) {
	checkWants(t, m)
	checkPeers(t, m)
	checkSessions(t, m)
	checkSearches(t, m)
	checkMoney(t, m)
	for i, x := range m.timers.heap {
		if x.pos != i+1 || i > 0 && m.timers.less(i, (i-1)/2) {
			t.Fatalf("timer %d of %d is out of place", i, len(m.timers.heap))
		}
	}
}

// checkWants: every want is where its state says, and has a way to end.
func checkWants(t testing.TB, m *machine) {
	var storing int64
	intents := 0
	for c, w := range m.wants {
		s := w.session
		intents += len(w.intents)
		for _, id := range w.intents {
			if m.intents[id] == nil || m.intents[id].want != w {
				t.Fatalf("intent %d of %s is not known", id, c)
			}
		}
		if w.state != wantStoring && len(w.intents) == 0 {
			t.Fatalf("%s want without intents", w.state)
		}
		switch w.state {
		case wantQueued:
			if w.list != &s.urgent && w.list != &s.bulk && w.list != &s.choosy || !s.inTurn {
				t.Fatal("queued want is not in a queue")
			}
		case wantSeeking:
			if w.list != &s.seeking || s.timer.pos == 0 {
				t.Fatal("seeking want is forgotten")
			}
		case wantParked:
			if w.list != &s.parked || s.timer.pos == 0 {
				t.Fatal("parked want is forgotten")
			}
		case wantAsked:
			if w.list != nil || w.pending(WantBlock) == 0 {
				t.Fatalf("asked want with %d asks, none of them live", len(w.asks))
			}
		case wantStoring:
			if w.list != nil || len(w.asks) > 0 || w.block == nil {
				t.Fatal("stored want is still asked for")
			}
			storing += int64(len(w.block.RawData()))
		}
		if n := w.pending(WantHave); n > m.limits.PeersPerBlock {
			t.Fatalf("%d peers have yet to say whether they have a block", n)
		}
		for _, a := range w.asks {
			if a.want != w || a.peer.asks[c] != a || a.live() && a.timer.pos == 0 {
				t.Fatalf("ask of %s at %s is not in order", c, a.peer.id)
			}
		}
	}
	if storing != m.storing || intents != len(m.intents) {
		t.Fatalf("storing %d, counted %d; %d intents, counted %d", storing, m.storing, intents, len(m.intents))
	}
	if most := m.limits.HedgeBytes + int64(m.stats.Bytes)*m.limits.HedgePercent/100; int64(m.stats.HedgedBytes) > most {
		t.Fatalf("hedged %d bytes of %d", m.stats.HedgedBytes, most)
	}
}

// checkPeers: all sums are right and no limit is passed.
func checkPeers(t testing.TB, m *machine) {
	var bytes int64
	blocks := 0
	for id, p := range m.peers {
		if p.suspended && !p.rest.on || p.rest.on && p.rest.since > m.now {
			t.Fatalf("%s rests: %v since %v, suspended: %v", id, p.rest.on, p.rest.since, p.suspended)
		}
		sum := peerState{}
		for c, a := range p.asks {
			if m.wants[c] != a.want || a.peer != p || a.want.askOf(p) != a {
				t.Fatalf("%s is asked for what nobody wants", id)
			}
			if a.live() {
				sum.open++
			}
			if a.kind == WantBlock && a.live() {
				sum.blocks++
				sum.bytes += a.bytes
			}
		}
		if sum.open != p.open || sum.blocks != p.blocks || sum.bytes != p.bytes {
			t.Fatalf("%s counts %d open, %d blocks, %d bytes; has %d, %d, %d", id, p.open, p.blocks, p.bytes, sum.open, sum.blocks, sum.bytes)
		}
		if len(p.asks) > m.limits.PeerWants || p.bytes > m.limits.PeerBytes && p.blocks > 1 {
			t.Fatalf("%s was asked for %d blocks, %d bytes", id, len(p.asks), p.bytes)
		}
		if !p.connected && (len(p.asks) > 0 || p.active || p.listed != 0) || p.connected && m.connected[p.listed-1] != p {
			t.Fatalf("%s connected %v, active %v, listed %d, %d asks", id, p.connected, p.active, p.listed, len(p.asks))
		}
		if len(p.asks) > 0 && !p.active || p.banned(m.now) && p.connected {
			t.Fatalf("%s must not be asked", id)
		}
		bytes += p.bytes
		blocks += p.blocks
	}
	if bytes != m.bytes || bytes > m.limits.TotalBytes && blocks > 1 {
		t.Fatalf("%d bytes in flight, counted %d", bytes, m.bytes)
	}
	if len(m.active) > m.limits.ActivePeers || len(m.known) > m.limits.KnownPeers || len(m.known)+len(m.connected) != len(m.peers) {
		t.Fatalf("%d active, %d known, %d connected, %d in all", len(m.active), len(m.known), len(m.connected), len(m.peers))
	}
}

// checkSessions: sessions know their wants, their members know them.
func checkSessions(t testing.TB, m *machine) {
	open, idle := 0, 0
	for i, s := range m.order {
		if s.pos != i || m.sessions[s.key] != s || s.timer.pos == 0 {
			t.Fatal("session is out of order")
		}
		if open += s.open; s.open == 0 {
			idle++
		}
		if s.inTurn != (s.queued() > 0) {
			t.Fatalf("session with %d queued wants: in turn %v", s.queued(), s.inTurn)
		}
		for _, w := range []*want{s.first(), s.choosy.head} {
			if w == nil {
				continue
			}
			if p, some := m.choose(w); p != nil || !some {
				t.Fatalf("queued want could go on: peer %v, some %v", p, some)
			}
			if at, t0 := m.money.wake, m.waking; at > 0 && (t0.pos == 0 || t0.at > at || t0.at <= m.now) {
				t.Fatalf("queued want waits for a seller until %v and is woken at %v", at, t0.at)
			}
		}
		for _, mb := range s.members {
			if m.peers[mb.peer.id] != mb.peer || mb.session != s {
				t.Fatal("member is forgotten")
			}
		}
		if len(s.members) > sessionMembers || s.dialing > m.limits.DialsPerSession {
			t.Fatalf("session with %d members and %d dials", len(s.members), s.dialing)
		}
	}
	if open != len(m.wants) || idle != m.idle || len(m.order) != len(m.sessions) || idle > m.limits.Sessions {
		t.Fatalf("%d wants in sessions of %d; %d idle, counted %d; %d sessions of %d", open, len(m.wants), idle, m.idle, len(m.order), len(m.sessions))
	}
}

// checkSearches: neither searches nor dials pass their limits.
func checkSearches(t testing.TB, m *machine) {
	running, dialing := 0, 0
	for _, f := range m.searchOrder {
		if f.running {
			running++
		}
		if m.searches[f.key] != f || len(f.found) > m.limits.SearchProviders {
			t.Fatal("search is out of order")
		}
	}
	for _, p := range m.peers {
		if p.dialing {
			dialing++
		}
	}
	if running != m.searching || running > m.limits.Searches || dialing != m.dialing || dialing > m.limits.Dials {
		t.Fatalf("%d searches, counted %d; %d dials, counted %d", running, m.searching, dialing, m.dialing)
	}
}

// checkIdle fails unless nothing is left of what was wanted.
func checkIdle(t testing.TB, m *machine) {
	if len(m.wants)+len(m.intents)+len(m.turn)+len(m.active) > 0 || m.bytes+m.storing != 0 {
		t.Fatalf("left when idle: %d wants, %d intents, %d in turn, %d active, %d and %d bytes",
			len(m.wants), len(m.intents), len(m.turn), len(m.active), m.bytes, m.storing)
	}
	if len(m.sessions) > 0 || m.searching+m.dialing > 0 {
		t.Fatalf("left when idle: %d sessions, %d searches, %d dials", len(m.sessions), m.searching, m.dialing)
	}
	if m.money.committed+m.money.owed > 0 || len(m.money.stale) > 0 {
		t.Fatalf("left when idle: %d promised, %d owed", m.money.committed, m.money.owed)
	}
	for _, p := range m.peers {
		if len(p.asks) > 0 || len(p.members) > 0 {
			t.Fatalf("left when idle: %d asks at %s, %d memberships", len(p.asks), p.id, len(p.members))
		}
	}
}

// lists follows what is sent, to know the want lists that peers keep of ours.
type lists map[peer.ID]map[string]Entry

// sent takes in what Ready lists.
func (l lists) sent(out []outgoing) {
	for _, o := range out {
		if l[o.peer] == nil {
			l[o.peer] = make(map[string]Entry)
		}
		for _, e := range o.entries {
			if e.Kind == Cancel {
				delete(l[o.peer], e.CID.KeyString())
			} else {
				l[o.peer][e.CID.KeyString()] = e
			}
		}
	}
}

// check fails unless the machine knows the lists.
func (l lists) check(t testing.TB, m *machine) {
	t.Helper()
	for _, p := range m.connected {
		if len(l[p.id]) != len(p.asks) {
			t.Fatalf("%s keeps a list of %d, known are %d", p.id, len(l[p.id]), len(p.asks))
		}
		for c, a := range p.asks {
			if e, ok := l[p.id][c.KeyString()]; !ok || e.Kind != a.kind {
				t.Fatalf("%s has %v of %s on its list (%v), known is %v", p.id, e.Kind, c, ok, a.kind)
			}
		}
	}
}

// checkMoney: what is promised is what asks and bills say, and stays within the budgets.
func checkMoney(t testing.TB, m *machine) {
	y := &m.money
	sums := make(map[*wallet]Amount)
	var committed, owed Amount
	stale := 0
	for _, w := range m.wants {
		for _, a := range w.asks {
			if sums[a.wallet] += a.committed; a.committed > 0 && (a.kind != WantBlock || a.answer != answerNone || a.wallet == nil) {
				t.Fatalf("%d promised for %s of %s", a.committed, a.kind, w.CID)
			}
			committed += a.committed
			if _, ok := y.stale[a]; ok != (a.expired && a.committed > 0) {
				t.Fatalf("ask is stale: %v", ok)
			} else if ok {
				stale++
			}
		}
		if b := w.bill; b != nil {
			if w.state != wantStoring {
				t.Fatalf("bill for a want that is %s", w.state)
			}
			sums[b.wallet] += b.amount
			committed += b.amount
		}
	}
	for key, c := range y.wallets {
		if sums[c] != c.committed || c.key != key || c.session != m.sessions[key] {
			t.Fatalf("wallet of %s: %d promised, counted %d", key, sums[c], c.committed)
		}
		owed += c.owed
	}
	if committed != y.committed || owed != y.owed || stale != len(y.stale) || len(y.order) != len(y.wallets) || len(y.order) > m.limits.Accounts {
		t.Fatalf("%d promised, counted %d; %d owed, counted %d; %d stale; %d wallets", committed, y.committed, owed, y.owed, stale, len(y.order))
	}
	for _, s := range m.sessions {
		if s.wallet != y.wallets[s.key] {
			t.Fatal("session has another wallet")
		}
	}
}
