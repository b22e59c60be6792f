package uploader

import (
	"cmp"
	"slices"
	"time"
)

// contents is all that a journal holds.
type contents struct {
	files  []fileRecord
	groups []groupRecord
	chunks []chunkRecord // without descriptors
	links  []record
}

// load takes in a journal, before any event. What a crash has left without a file is let go.
func (m *machine) load(c contents) {
	slices.SortFunc(c.links, func(a, b record) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), slices.Compare(a.ID[:], b.ID[:]))
	})
	slices.SortFunc(c.files, func(a, b fileRecord) int { return slices.Compare(a.ID[:], b.ID[:]) })
	slices.SortFunc(c.chunks, func(a, b chunkRecord) int { return cmp.Compare(a.ID.KeyString(), b.ID.KeyString()) })
	for _, r := range c.chunks {
		m.chunks[r.ID] = &chunk{id: r.ID, bytes: r.Bytes}
	}
	groups := make(map[GroupID]*group, len(c.groups))
	for _, r := range c.groups {
		if g := m.loadGroup(r); g != nil {
			groups[r.ID] = g
		} else {
			m.out.goneGroups = append(m.out.goneGroups, r.ID)
		}
	}
	for _, r := range c.files {
		m.loadFile(r, groups)
	}
	for id := range groups {
		if m.groups[id] == nil {
			m.out.goneGroups = append(m.out.goneGroups, id)
		}
	}
	var loaded []*link
	for _, r := range c.links {
		if l := m.loadLink(r); l != nil {
			loaded = append(loaded, l)
		}
	}
	for _, l := range loaded {
		m.resume(l)
	}
	for _, r := range c.chunks {
		m.look(m.chunks[r.ID])
	}
}

// loadGroup returns a group, or nil where a chunk of it is not known.
func (m *machine) loadGroup(r groupRecord) *group {
	g := &group{id: r.ID, copies: r.Copies, parity: r.Parity, code: r.Code, files: make(map[*file]struct{}), stale: true}
	for _, id := range r.Chunks {
		c := m.chunks[id]
		if c == nil {
			return nil
		}
		g.chunks = append(g.chunks, c)
	}
	return g
}

func (m *machine) loadFile(r fileRecord, groups map[GroupID]*group) {
	f := &file{id: r.ID, name: r.Name, policy: r.Policy, expiry: r.Expiry, cancelled: r.Cancelled}
	for _, id := range r.Groups {
		g := groups[id]
		if g == nil {
			continue
		}
		if m.groups[id] == nil {
			m.adopt(g)
		}
		f.groups = append(f.groups, g)
	}
	m.files[f.id] = f
	m.attach(f)
}

// loadLink returns a link, or nil where its chunk is not known any more.
func (m *machine) loadLink(r record) *link {
	m.order = max(m.order, r.Order)
	c := m.chunks[r.Chunk]
	if c == nil {
		m.out.goneLinks = append(m.out.goneLinks, r.ID)
		return nil
	}
	l := &link{record: r, chunk: c, provider: m.provider(r.Provider), asked: true}
	m.insert(l)
	if l.State == LinkFailed && l.Reason != notNeeded {
		c.fails++
		c.reason = l.Reason
	} else if l.State == LinkSigned {
		c.fails, c.reason = 0, ""
	}
	return l
}

// resume goes on with a link where it stopped.
func (m *machine) resume(l *link) {
	if m.links[l.ID] != l {
		return // a renewal took its place
	}
	old := m.links[l.Renews]
	switch {
	case l.State == LinkSigned:
		if old != nil && old != l {
			old.State = LinkFailed
			m.forget(old)
		}
		if m.nextAudit(l); !l.Proved {
			m.auditAt(l, m.now+m.within(min(m.cfg.audit, time.Minute)))
		}
	case l.open() && l.renewal():
		if old == nil || old.State != LinkSigned {
			m.failed(l, notNeeded, false)
			return
		}
		old.renewedBy = l
		if l.State <= LinkChannel {
			m.agreed(l)
		}
	}
	m.advance(l)
}
