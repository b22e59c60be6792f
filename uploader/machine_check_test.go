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
	for _, g := range m.groups {
		checkGroup(t, m, g)
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

// checkChunk checks that no provider has a chunk twice, and that a chunk whose groups have all of it has no link that
// none of them needs.
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
	if d := m.demand(c); d.links == 0 || len(at) <= d.links || !m.kept(c) { // each of so few counts for the group that needs most
		return
	}
	for _, l := range c.links {
		if l.live() && !(l.renewal() && l.open()) && m.surplus(l) {
			t.Fatalf("the link %s of chunk %s at %s is surplus", l.ID, c.id, l.Provider)
		}
	}
}

// checkGroup checks what a group counts: links that can be relied on, each with another provider, as many of each chunk
// as it needs and no more; and all that is possible, by a count of its own.
func checkGroup(t testing.TB, m *machine, g *group) {
	p := m.plan(g)
	count := make(map[*chunk]int)
	by := make(map[peer.ID]*link)
	for q, l := range p.at {
		if l.provider != q || by[l.Provider] != nil || !l.live() || !slices.Contains(g.chunks, l.chunk) {
			t.Fatalf("group %x counts link %s at %s", g.id[:4], l.ID, l.Provider)
		}
		by[l.Provider] = l
		count[l.chunk]++
	}
	need, held := 0, 0
	for i, e := range g.cells {
		need, held = need+p.need[i], held+p.held[i]
		if count[e.chunk] != p.has[i] || p.has[i] > p.need[i] || p.held[i] > p.has[i] {
			t.Fatalf("group %x counts %d of %d links of chunk %s, and %d of them now", g.id[:4], p.has[i], p.need[i], e.chunk.id, p.held[i])
		}
	}
	most := mostPairs(m, g, func(c *chunk) (all []peer.ID) {
		for _, l := range c.links {
			if l.State == LinkSigned && l.Expiry >= m.needs(g) {
				all = append(all, l.Provider)
			}
		}
		return all
	})
	if held != most || need == 0 && len(by) > 0 {
		t.Fatalf("group %x counts %d links and could count %d; it needs %d", g.id[:4], held, most, need)
	}
}

// mostPairs returns how many of the links that a group needs are possible where each chunk may be with some providers,
// and no provider is used twice. It is as simple as can be.
func mostPairs(m *machine, g *group, with func(*chunk) []peer.ID) (n int) {
	user := make(map[peer.ID]*chunk)
	var seen map[peer.ID]bool
	var try func(c *chunk) bool
	try = func(c *chunk) bool {
		for _, p := range with(c) {
			if seen[p] {
				continue
			}
			seen[p] = true
			if user[p] == nil || try(user[p]) {
				user[p] = c
				return true
			}
		}
		return false
	}
	for _, c := range g.chunks { // one that is there twice needs as many again
		for range m.wants(g).copies {
			seen = make(map[peer.ID]bool)
			for p, k := range user { // what it has already is no news
				seen[p] = k == c
			}
			if try(c) {
				n++
			}
		}
	}
	return n
}
