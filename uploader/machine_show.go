package uploader

import (
	"bytes"
	"fmt"
	"slices"
)

// ReasonExpired is why a file has failed whose lifetime is over. Retry begins another.
const ReasonExpired = "expired"

// FileStatus is how a file is doing.
type FileStatus struct {
	ID        FileID
	Name      string
	State     State
	Reason    string // why it is not uploaded
	Bytes     int64  // all links that it needs, together
	Done      int64  // of these, pledged
	Expiry    int64  // Unix seconds: when the first of its links ends; zero where there is none
	Cancelled bool

	// Proved says that the file would be uploaded without those links whose providers did no more than sign: each
	// that counts was sent the bytes right before, or has answered an audit since.
	Proved bool
	// Doubted says that the file would not be uploaded without those links whose providers have not answered when they
	// were asked last, were disconnected since, or had excuses alone. Changes of this alone are no news to who watches.
	Doubted bool
}

// Safe says whether providers have the file as far as is known without asking them again.
func (s FileStatus) Safe() bool { return s.State == Uploaded && s.Proved && !s.Doubted }

// groupView is what a group's chunks come to, as of a round of Ready.
type groupView struct {
	round  uint64
	state  State
	reason string
	open   bool // something is under way, or about to be
	bytes  int64
	done   int64
	expiry int64

	unproved bool // it has too few links that are proved
	doubted  bool // or that nobody doubts
}

// showChunk notes that a chunk's state in its groups, or its reason, may be another, and all that follows from it.
func (m *machine) showChunk(c *chunk) {
	for _, g := range c.groups {
		i := g.cell(c)
		e := &g.cells[i]
		state, reason := m.stateIn(m.plan(g), i)
		if state == e.state && reason == e.said {
			continue
		}
		e.state, e.said = state, reason
		for f := range g.files {
			m.showFile(f)
		}
	}
}

// showFiles notes that the files of a chunk may be doing otherwise.
func (m *machine) showFiles(c *chunk) {
	for _, g := range c.groups {
		for f := range g.files {
			m.showFile(f)
		}
	}
}

func (m *machine) showFile(f *file) {
	if !f.showing {
		f.showing = true
		m.shown = append(m.shown, f)
	}
}

// stateIn computes from its links what a chunk is in a group.
func (m *machine) stateIn(p *plan, i int) (State, string) {
	c := p.group.cells[i].chunk
	switch {
	case p.need[i] > 0 && p.held[i] == p.need[i]:
		return Uploaded, ""
	case len(c.links) == 0 && c.short == "" && c.reason == "":
		return Created, ""
	case p.has[i] == p.need[i] || c.queue == isLacking || c.again.on():
		return Uploading, c.reason
	case c.queue == isStuck && c.reason != "" && (!c.hope || c.fails >= m.cfg.limits.Tries) && !m.underWay(c):
		return Failed, c.reason
	case c.short != "" && c.reason != "":
		return Uploading, c.short + ", last failure: " + c.reason
	case c.short != "":
		return Uploading, c.short
	}
	return Uploading, c.reason
}

// underWay says whether a chunk has links that will be signed, or renewed, if all is well.
func (m *machine) underWay(c *chunk) bool {
	need := m.demand(c).need
	return slices.ContainsFunc(c.links, func(l *link) bool {
		is := m.classOf(l, need)
		return is == isOpen || is == isShort
	})
}

// viewOf returns what a group's chunks come to.
func (m *machine) viewOf(g *group) *groupView {
	v := &g.view
	if v.round == m.round {
		return v
	}
	*v = groupView{round: m.round, state: Uploaded}
	begun := false
	p := m.plan(g)
	for i, e := range g.cells {
		v.bytes += int64(p.need[i]) * e.chunk.bytes
		v.done += int64(p.held[i]) * e.chunk.bytes
		state, reason := m.stateIn(p, i)
		begun = begun || state != Created
		v.open = v.open || m.underWay(e.chunk)
		if state != Uploaded && v.state != Failed && (v.state != Uploading || v.reason == "" && reason != "") {
			v.state, v.reason = state, reason
		} else if state == Failed {
			v.state, v.reason = state, reason
		}
		for _, l := range e.chunk.links {
			if l.State == LinkSigned && p.at[l.provider] == l && (v.expiry == 0 || l.Expiry < v.expiry) {
				v.expiry = l.Expiry
			}
		}
	}
	v.unproved = !m.covers(g, func(l *link) bool { return l.Proved })
	v.doubted = !m.covers(g, func(l *link) bool { return !m.doubtful(l) })
	if v.state == Created && begun {
		v.state = Uploading
	}
	return v
}

// status computes how a file is doing.
func (m *machine) status(f *file) FileStatus {
	s := FileStatus{ID: f.id, Name: f.name, State: Uploaded, Cancelled: f.cancelled}
	if f.cancelled {
		s.State, s.Reason = Failed, "cancelled"
		return s
	}
	if !m.wanted(f) {
		s.State, s.Reason = Failed, ReasonExpired
		return s
	}
	var open, begun, failed bool
	s.Proved = true
	for _, g := range f.groups {
		v := m.viewOf(g)
		s.Proved, s.Doubted = s.Proved && !v.unproved, s.Doubted || v.doubted
		s.Bytes, s.Done = s.Bytes+v.bytes, s.Done+v.done
		if v.expiry > 0 && (s.Expiry == 0 || v.expiry < s.Expiry) {
			s.Expiry = v.expiry
		}
		open, begun = open || v.open, begun || v.state != Created
		if v.state == Uploaded {
			continue
		}
		if s.State == Uploaded || v.state == Failed && !failed {
			s.Reason = v.reason
		}
		s.State, failed = Uploading, failed || v.state == Failed
	}
	if s.State == Uploading && failed && !open {
		s.State = Failed
	}
	if s.State == Uploading && !begun {
		s.State = Created
	}
	return s
}

// show lists the files whose state is another than when they were listed last.
func (m *machine) show() {
	for _, f := range m.shown {
		f.showing = false
		if m.files[f.id] != f {
			continue
		}
		s, old := m.status(f), f.last
		f.last, old.Doubted = s, s.Doubted
		if s != old {
			m.out.changed = append(m.out.changed, s)
		}
	}
	m.shown = m.shown[:0]
	slices.SortFunc(m.out.changed, func(a, b FileStatus) int { return bytes.Compare(a.ID[:], b.ID[:]) })
}

// String tells the state for people, as in "uploading: needs 6 providers, 3 known".
func (s FileStatus) String() string {
	if s.Reason == "" {
		return s.State.String()
	}
	return fmt.Sprintf("%s: %s", s.State, s.Reason)
}
