package uploader

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// demand is what all files that share a chunk ask for together.
type demand struct {
	links  int
	need   int64 // Unix seconds: links that end before are to be renewed
	target int64 // expiry of new links
}

// renewFrom is the part of a lifetime that is left when links are renewed.
const renewFrom = 4

func (m *machine) demand(c *chunk) (d demand) {
	for _, g := range c.groups {
		s := m.wants(g)
		if s.copies == 0 {
			continue
		}
		d.links = max(d.links, s.copies*g.cells[g.cell(c)].times)
		d.need, d.target = max(d.need, m.needs(g)), max(d.target, s.expiry)
		if s.auto > 0 {
			d.target = max(d.target, m.roundUp(s.auto))
		}
	}
	return d
}

// needs returns until when a group's links are to last to be counted, in Unix seconds.
func (m *machine) needs(g *group) int64 {
	s := m.wants(g)
	if s.auto > 0 {
		return max(s.expiry, m.wall.Add(s.auto/renewFrom).Unix())
	}
	return s.expiry
}

// hopeless says whether a link's renewal fails and fails and its end is near. It goes on, while the chunk goes to
// somebody else as well.
func (m *machine) hopeless(l *link) bool {
	return l.renewedBy.tries >= m.cfg.limits.Tries && l.Expiry-m.wall.Unix() < (l.Expiry-l.Created)/(2*renewFrom)
}

// reconsider compares what a chunk has with what it should have.
func (m *machine) reconsider(c *chunk) {
	m.expire(c)
	d := m.demand(c)
	if d.links == 0 {
		m.letGo(c)
		return
	}
	m.prune(c, d)
	for _, l := range slices.Clone(c.links) {
		if m.ends(l) { // maybe in place of another, which a sibling needs
			m.renew(l, d)
		}
	}
	m.lacks(c, m.lackOf(c))
	m.watch(c)
	m.trim(c)
	m.showChunk(c)
}

// lacks puts a chunk into the queue for links, or takes it out.
func (m *machine) lacks(c *chunk, n int) {
	c.lack = n
	if n == 0 {
		c.short = ""
		return // the queues leave it out
	}
	if c.queue == notQueued && !c.again.on() {
		c.queue = isLacking
		m.lacking = append(m.lacking, c)
	}
}

// expire ends links whose time is over.
func (m *machine) expire(c *chunk) {
	for _, l := range slices.Clone(c.links) {
		if l.live() && l.Expiry <= m.wall.Unix() && !(l.renewal() && l.open()) {
			m.failed(l, "expired", false)
		}
	}
}

// watch sets when a chunk's links are looked at again.
func (m *machine) watch(c *chunk) {
	var at int64
	for _, l := range c.links {
		if !l.live() {
			continue
		}
		due := l.Expiry
		for _, g := range c.groups {
			if auto := m.wants(g).auto; auto > 0 {
				due = min(due, l.Expiry-int64(auto/renewFrom/time.Second)+1)
			}
		}
		if due <= m.wall.Unix() { // it is being renewed, or can't be
			due = l.Expiry
		}
		if at == 0 || due < at {
			at = due
		}
	}
	if at == 0 {
		m.timers.stop(&c.keep)
		return
	}
	when := max(m.at(at), m.now+time.Second)
	if slices.ContainsFunc(c.links, func(l *link) bool { return l.live() && l.wantsRenewal }) {
		when = min(when, m.now+m.cfg.limits.QuoteFor)
	}
	m.timers.set(&c.keep, when, func() { m.look(c) })
}

// letGo releases a chunk that nothing needs.
func (m *machine) letGo(c *chunk) {
	c.lack, c.short = 0, ""
	for _, l := range slices.Clone(c.links) {
		if l.live() && !(l.renewal() && l.open()) { // a renewal ends with what it prolongs, and is released for itself
			m.failed(l, notNeeded, false)
		}
	}
	m.watch(c)
	m.trim(c)
	m.showChunk(c)
	if len(c.groups) == 0 && len(c.links) == 0 && m.chunks[c.id] == c {
		m.timers.stop(&c.again)
		delete(m.chunks, c.id)
		m.out.goneChunks = append(m.out.goneChunks, c.id)
	}
}

// trim forgets failed links that say nothing any more.
func (m *machine) trim(c *chunk) {
	spare := m.cfg.limits.FailedLinks
	for _, l := range slices.Backward(slices.Clone(c.links)) {
		if l.live() || l.Release || l.flight != 0 {
			continue
		}
		if len(c.groups) > 0 && l.Cause {
			continue
		}
		if spare--; len(c.groups) > 0 && spare >= 0 {
			continue
		}
		m.forget(l)
	}
}

// place makes links for chunks that lack some, as long as there is room for links at work.
func (m *machine) place() {
	if m.stir {
		m.stir = false
		for _, c := range m.stuck {
			if c.queue == isStuck {
				c.queue = isLacking
				m.lacking = append(m.lacking, c)
			}
		}
		m.stuck = m.stuck[:0]
	}
	for len(m.lacking) > 0 && m.active < m.cfg.limits.Active {
		c := m.lacking[0]
		m.lacking[0] = nil
		m.lacking = m.lacking[1:]
		if c.queue != isLacking {
			continue
		}
		if c.again.on() {
			c.queue = notQueued
			continue
		}
		m.placeOne(c)
	}
}

// placeOne makes the links that a chunk lacks, or finds out that it has to wait.
func (m *machine) placeOne(c *chunk) {
	d := m.demand(c)
	c.hope, c.wait, c.short = false, false, ""
	for c.lack = m.lackOf(c); c.lack > 0 && m.active < m.cfg.limits.Active; c.lack = m.lackOf(c) {
		if c.short = m.tooFew(c, d); c.short == "" && (m.extend(c, d) || m.shift(c)) {
			continue
		}
		if c.short == "" {
			c.short = m.shortage(c, d)
		}
		c.queue = isStuck
		m.stuck = append(m.stuck, c)
		m.showChunk(c)
		return
	}
	c.queue = notQueued
	if c.lack > 0 {
		c.queue = isLacking
		m.lacking = append(m.lacking, c)
	}
	m.showChunk(c)
}

// extend makes one more link of a chunk with a provider that lets more of it be counted.
func (m *machine) extend(c *chunk, d demand) bool {
	p := m.choose(c, d)
	if p != nil {
		m.created(c, p, d.target)
	}
	return p != nil
}

// tooFew says so where fewer providers are known than each group that lacks links of the chunk needs and nothing of
// such a group is placed yet, or some may be known in a moment. It asks for quotes on the way.
func (m *machine) tooFew(c *chunk, d demand) (text string) {
	for _, x := range m.lackingGroups(c) {
		why := ""
		if !begun(x.group) {
			why = m.tooFewFor(x, c, d)
		}
		if why == "" {
			return ""
		}
		text = cmp.Or(text, why)
	}
	return text
}

func (m *machine) tooFewFor(x *plan, c *chunk, d demand) string {
	need, most := 0, int64(0)
	for i, e := range x.group.cells {
		need, most = need+x.need[i], max(most, e.chunk.bytes)
	}
	known, others, why := 0, 0, ""
	for _, p := range m.known {
		switch m.judge(c, p, most, d.target) {
		case fits, fitsLater:
			known++
		case mayFit:
			c.hope = true
		case unfit:
			if text := p.misfit(most, d.target); text != "" {
				others++
				why = cmp.Or(why, text)
			}
		}
	}
	if known >= need && !m.awaitsQuotes() {
		return ""
	}
	c.hope = c.hope || known >= need
	text := fmt.Sprintf("needs %d providers, %d known", need, known)
	if known < need && others > 0 {
		text += fmt.Sprintf(", %d do not fit: %s", others, why)
	}
	return text
}

// begun says whether anything of a group is placed.
func begun(g *group) bool {
	for _, c := range g.chunks {
		if slices.ContainsFunc(c.links, func(l *link) bool { return l.live() }) {
			return true
		}
	}
	return false
}
