package uploader

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

// file is what is to be kept for a caller.
type file struct {
	id        FileID
	name      string
	policy    Policy
	groups    []*group
	expiry    int64 // Unix seconds: its links last as long at least
	cancelled bool
	ends      timer // when it expires, unless it is renewed
	last      FileStatus
	showing   bool
}

// group is a run of stripes that some files are in.
type group struct {
	id     GroupID
	chunks []*chunk // by column; with k = 1 several may be one
	cells  []cell   // the same, each once
	copies int
	parity int
	code   code
	files  map[*file]struct{}

	sums  sums
	stale bool // sums are
	plan  plan
	view  groupView
}

// cell is a chunk of a group.
type cell struct {
	chunk *chunk
	times int    // columns
	state State  // as it was shown last
	said  string // the same
}

// cell returns the number of a chunk's cell.
func (g *group) cell(c *chunk) int {
	return slices.IndexFunc(g.cells, func(e cell) bool { return e.chunk == c })
}

// sums is what the files of a group ask for together.
type sums struct {
	copies int           // none: nobody needs the group now
	expiry int64         // the latest
	auto   time.Duration // the longest lifetime of those that are renewed
}

// chunk is what one provider is asked to keep.
type chunk struct {
	id     cid.Cid
	bytes  int64
	groups []*group
	links  []*link // failed ones too, in order of creation

	dirty  bool
	queue  queued
	lack   int    // links
	hope   bool   // somebody may be asked soon
	wait   bool   // in a while, as far as that is known
	short  string // why nobody is asked yet: too few providers
	fails  int    // links, since one was signed
	reason string // of the last failure
	again  timer  // after a failure on this side
	local  int    // such failures in a row
	keep   timer  // when links have to be renewed, or expire
}

// queued says in which queue a chunk waits for links.
type queued uint8

const (
	notQueued queued = iota
	isLacking
	isStuck
)

// keep takes a file in, or another version of it. The same file again changes nothing.
func (m *machine) keep(f checked) {
	old := m.files[f.ID]
	if old != nil && m.same(old, f) {
		if old.name != f.Name {
			old.name = f.Name
			m.saveFile(old)
		}
		return
	}
	n := &file{id: f.ID, name: f.Name, policy: f.Policy, expiry: m.roundUp(f.Policy.Lifetime)}
	seen := make(map[GroupID]bool)
	for i, g := range f.groups {
		if !seen[g.id] {
			seen[g.id] = true
			n.groups = append(n.groups, m.group(f.Groups[i], g))
		}
	}
	m.attach(n)
	if old != nil {
		n.last = old.last
		m.detach(old)
	}
	m.files[f.ID] = n
	m.saveFile(n)
}

// same says whether a file is kept as f says already.
func (m *machine) same(old *file, f checked) bool {
	if old.cancelled || old.policy != f.Policy || !m.wanted(old) {
		return false
	}
	have := make(map[GroupID]bool, len(old.groups))
	for _, g := range old.groups {
		have[g.id] = true
	}
	seen := make(map[GroupID]bool, len(f.groups))
	for _, g := range f.groups {
		if !have[g.id] {
			return false
		}
		seen[g.id] = true
	}
	return len(seen) == len(have)
}

// roundUp returns the expiry of a lifetime from now on, so that files that were added together ask for
// the same.
func (m *machine) roundUp(lifetime time.Duration) int64 {
	unit := int64(max(time.Second, min(time.Hour, lifetime/16)) / time.Second)
	at := m.wall.Add(lifetime).Unix() + unit - 1
	return at - at%unit
}

// group returns the group of an ID, new or known.
func (m *machine) group(g Group, c checkedGroup) *group {
	if known := m.groups[c.id]; known != nil {
		if known.code.Data == 0 && c.code.Data > 0 { // it was added when nobody said
			known.code = c.code
			m.out.groups = append(m.out.groups, known.record())
		}
		return known
	}
	n := &group{id: c.id, copies: g.Copies, parity: g.Parity, code: c.code, files: make(map[*file]struct{})}
	for j, column := range g.Columns {
		k := m.chunks[column.Chunk]
		if k == nil {
			k = &chunk{id: column.Chunk, bytes: c.bytes[j]}
			m.chunks[k.id] = k
			m.out.chunks = append(m.out.chunks, chunkRecord{ID: k.id, Bytes: k.bytes, Descriptor: column.Descriptor})
		}
		n.chunks = append(n.chunks, k)
	}
	m.adopt(n)
	m.out.groups = append(m.out.groups, n.record())
	return n
}

// adopt makes a group known to its chunks.
func (m *machine) adopt(g *group) {
	m.groups[g.id] = g
	for _, c := range g.chunks {
		if i := g.cell(c); i >= 0 {
			g.cells[i].times++
			continue
		}
		g.cells = append(g.cells, cell{chunk: c, times: 1})
		c.groups = append(c.groups, g)
	}
}

// attach makes the file's groups work for it.
func (m *machine) attach(f *file) {
	for _, g := range f.groups {
		g.files[f] = struct{}{}
		m.changed(g)
	}
	if !f.policy.AutoRenew && !f.cancelled {
		m.timers.set(&f.ends, m.at(f.expiry), func() { m.ended(f) })
	}
	m.showFile(f)
}

// ended looks at a file whose time has come.
func (m *machine) ended(f *file) {
	if m.wanted(f) { // the wall's clock is behind ours
		m.timers.set(&f.ends, max(m.at(f.expiry), m.now+time.Second), func() { m.ended(f) })
		return
	}
	for _, g := range f.groups {
		m.changed(g)
	}
	m.showFile(f)
}

// at returns when the wall's clock will show a time. It may be set meanwhile: look again then.
func (m *machine) at(unix int64) time.Duration {
	return m.now + min(max(0, time.Unix(unix, 0).Sub(m.wall)), time.Hour)
}

// detach takes a file from its groups. What nobody needs any more goes.
func (m *machine) detach(f *file) {
	m.timers.stop(&f.ends)
	for _, g := range f.groups {
		delete(g.files, f)
		m.changed(g)
		if len(g.files) == 0 {
			m.dropGroup(g)
		}
	}
}

func (m *machine) dropGroup(g *group) {
	delete(m.groups, g.id)
	m.out.goneGroups = append(m.out.goneGroups, g.id)
	for _, c := range g.chunks {
		for i, x := range c.groups {
			if x == g {
				c.groups = append(c.groups[:i:i], c.groups[i+1:]...)
				break
			}
		}
	}
}

// changed says that a group's files, or what they want, have changed.
func (m *machine) changed(g *group) {
	g.stale, m.stir = true, true
	m.version++
	for _, c := range g.chunks {
		m.look(c)
	}
}

// look makes a chunk be looked at before anything else is done.
func (m *machine) look(c *chunk) {
	if !c.dirty {
		c.dirty = true
		m.dirty = append(m.dirty, c)
	}
}

func (m *machine) remove(id FileID) {
	f := m.files[id]
	if f == nil {
		return
	}
	m.detach(f)
	delete(m.files, id)
	m.out.goneFiles = append(m.out.goneFiles, id)
	m.out.changed = append(m.out.changed, FileStatus{ID: id, Name: f.name, State: Failed, Reason: "removed"})
}

func (m *machine) cancel(id FileID) {
	f := m.files[id]
	if f == nil || f.cancelled {
		return
	}
	f.cancelled = true
	m.timers.stop(&f.ends)
	for _, g := range f.groups {
		m.changed(g)
	}
	m.saveFile(f)
	m.showFile(f)
}

// retry takes up a file now. One that was cancelled or has expired begins anew.
func (m *machine) retry(id FileID) {
	f := m.files[id]
	if f == nil {
		return
	}
	if !m.wanted(f) {
		f.cancelled = false
		f.expiry = m.roundUp(f.policy.Lifetime)
		m.attach(f)
		m.saveFile(f)
	}
	for _, p := range m.known {
		m.forgive(p)
	}
	for _, g := range f.groups {
		for _, c := range g.chunks {
			c.fails, c.local = 0, 0
			m.timers.stop(&c.again)
			for _, l := range c.links {
				l.renewFails = 0
				m.timers.stop(&l.retry)
				m.advance(l)
			}
			m.look(c)
		}
	}
	m.search.pause = 0
	m.timers.stop(&m.search.timer)
	m.stir = true
}

// wanted says whether something is to be done for a file.
func (m *machine) wanted(f *file) bool {
	return !f.cancelled && (f.policy.AutoRenew || m.wall.Unix() < f.expiry)
}

// wants returns what a group's files ask for together.
func (m *machine) wants(g *group) sums {
	if !g.stale {
		return g.sums
	}
	g.stale, g.sums = false, sums{}
	for f := range g.files {
		if !m.wanted(f) {
			continue
		}
		g.sums.copies = max(g.sums.copies, f.policy.copies(g))
		g.sums.expiry = max(g.sums.expiry, f.expiry)
		if f.policy.AutoRenew {
			g.sums.auto = max(g.sums.auto, f.policy.Lifetime)
		}
	}
	return g.sums
}

func (m *machine) saveFile(f *file) { m.out.files = append(m.out.files, f.record()) }

func (f *file) record() fileRecord {
	r := fileRecord{ID: f.id, Name: f.name, Policy: f.policy, Expiry: f.expiry, Cancelled: f.cancelled}
	for _, g := range f.groups {
		r.Groups = append(r.Groups, g.id)
	}
	return r
}

func (g *group) record() groupRecord {
	r := groupRecord{ID: g.id, Copies: g.copies, Parity: g.parity, Code: g.code}
	for _, c := range g.chunks {
		r.Chunks = append(r.Chunks, c.id)
	}
	return r
}
