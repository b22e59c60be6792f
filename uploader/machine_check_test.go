package uploader

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// checkMachine checks what holds after every Ready.
func checkMachine(t testing.TB, m *machine) {
	checkProviders(t, m)
	active, sealed := 0, int64(0)
	for id, l := range m.links {
		if l.ID != id || !slices.Contains(l.chunk.links, l) {
			t.Fatalf("link %s is lost", id)
		}
		if l.open() {
			active++
		}
		if l.inMemory {
			sealed += l.Bytes
		}
		if l.Expiry == 0 || l.State >= LinkSigned && l.State != LinkFailed && len(l.Pledge) == 0 {
			t.Fatalf("link %s in state %s has expiry %d and a pledge of %d bytes", id, l.State, l.Expiry, len(l.Pledge))
		}
		if l.flight != 0 && m.flights[l.flight] == nil {
			t.Fatalf("link %s is busy with nothing", id)
		}
		idle := l.flight == 0 && !l.queued && !l.waits && !l.retry.on()
		if idle && m.next(l) != workNone {
			t.Fatalf("link %s in state %s is forgotten: %s is next", id, l.State, m.next(l))
		}
	}
	if active != m.active || active > m.cfg.limits.Active+len(m.chunks) {
		t.Fatalf("%d links are open, counted are %d", active, m.active)
	}
	if sealed != m.sealed || sealed > m.cfg.limits.SealedBytes {
		t.Fatalf("%d bytes are sealed, counted are %d", sealed, m.sealed)
	}
	for _, c := range m.chunks {
		checkChunk(t, m, c)
	}
}

func checkProviders(t testing.TB, m *machine) {
	busy := make(map[*provider]int)
	for _, f := range m.flights {
		if f.slot {
			busy[f.provider]++
		}
	}
	for _, p := range m.known {
		open := 0
		for i, l := range p.links {
			if l.provider != p || l.at != i+1 {
				t.Fatalf("link %s is listed wrongly", l.ID)
			}
			if l.open() {
				open++
			}
		}
		if p.busy != busy[p] || p.busy > m.cfg.limits.PerProvider || p.open != open {
			t.Fatalf("provider %s has %d requests, counted %d; %d links, counted %d", p.id, busy[p], p.busy, open, p.open)
		}
	}
}

// checkChunk checks that no provider has a chunk twice, or two columns of a group that were placed together.
func checkChunk(t testing.TB, m *machine, c *chunk) {
	at := make(map[peer.ID]bool)
	for _, l := range c.links {
		if !l.live() || l.renewal() && l.open() {
			continue
		}
		if at[l.Provider] {
			t.Fatalf("provider %s has chunk %s twice", l.Provider, c.id)
		}
		at[l.Provider] = true
	}
	held := m.tally(c, m.demand(c)).held
	for _, l := range held {
		for _, g := range c.groups {
			for _, k := range g.chunks {
				if m.wants(g).copies > 0 && k != c && slices.ContainsFunc(m.tally(k, m.demand(k)).held, func(o *link) bool { return o.provider == l.provider }) {
					t.Fatalf("provider %s counts for two columns", l.Provider)
				}
			}
		}
	}
}
