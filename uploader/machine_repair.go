package uploader

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// repair sees to it that files are kept as they should be, now and not in their time: what is pledged is audited, a
// provider that is silent has vanished after as many requests as fail a link, what ends soon is renewed, and whoever
// may be asked is asked again.
func (m *machine) repair(files []FileID) {
	for _, p := range m.known {
		m.forgive(p)
	}
	for _, id := range files {
		f := m.files[id]
		if f == nil || f.cancelled {
			continue
		}
		m.prolong(f)
		for _, g := range f.groups {
			for _, c := range g.chunks {
				m.repairChunk(c)
			}
		}
	}
	m.search.pause = 0
	m.timers.stop(&m.search.timer)
	m.stir = true
}

// prolong keeps a file without auto renewal for another lifetime, where less than a part of it is left.
func (m *machine) prolong(f *file) {
	left := time.Unix(f.expiry, 0).Sub(m.wall)
	if f.policy.AutoRenew || left >= f.policy.Lifetime/renewFrom {
		return
	}
	f.expiry = m.roundUp(f.policy.Lifetime)
	m.attach(f)
	m.saveFile(f)
}

func (m *machine) repairChunk(c *chunk) {
	c.fails, c.local = 0, 0
	m.timers.stop(&c.again)
	for _, l := range slices.Clone(c.links) {
		l.renewFails = 0
		m.timers.stop(&l.retry)
		if _, already := m.doubts[l]; l.State == LinkSigned && !already {
			m.doubts[l] = l.provider.fails
		}
		m.auditNow(l)
		m.advance(l)
	}
	m.look(c)
}

// resolve takes away the doubts that are answered, and fails the links whose providers don't answer.
func (m *machine) resolve() {
	if len(m.doubts) == 0 {
		return
	}
	for _, l := range slices.SortedFunc(maps.Keys(m.doubts), func(a, b *link) int { return cmp.Compare(a.Order, b.Order) }) {
		p, before := l.provider, min(m.doubts[l], l.provider.fails)
		m.doubts[l] = before
		switch {
		case m.links[l.ID] != l || l.State != LinkSigned:
			delete(m.doubts, l)
		case p.fails >= max(m.cfg.limits.Tries, before+1):
			delete(m.doubts, l)
			m.failed(l, fmt.Sprintf("vanished: no answer to %d requests: %s", p.fails, cmp.Or(l.Reason, "silent")), false)
		case !l.auditDue && l.flight == 0:
			delete(m.doubts, l)
		}
	}
}
