package uploader

import (
	"cmp"
	"maps"
	"slices"
)

// Which links a group counts is a matching of its chunks and providers: each chunk has as many as the group asks for,
// and no provider has two, whatever else it keeps. It follows from the links and is written down nowhere: earlier ones
// come first, so it is the same after a restart. Groups that share a chunk count each for itself: what one of them
// can't count, as the provider has another of its chunks, the other may.

// class says what a link is good for, the best first.
type class uint8

const (
	isHeld   class = iota // signed, for long enough
	isShort               // signed, to be renewed, or being renewed
	isOpen                // on its way
	isFading              // signed, and not renewed: it lasts until others are there
	isOver                // it ended, or is a part of the one that it prolongs
)

// classOf says what a link is good for where links that end before need are to be renewed.
func (m *machine) classOf(l *link, need int64) class {
	switch {
	case !l.live() || l.renewal() && l.open():
		return isOver
	case l.open():
		return isOpen
	case l.Expiry >= need:
		return isHeld
	case l.renewedBy != nil && !m.hopeless(l) || l.renewedBy == nil && l.renewFails < m.cfg.limits.Tries:
		return isShort
	}
	return isFading
}

// matching is what a group counts, or would count.
type matching struct {
	group  *group
	usable func(*link) bool
	need   []int               // links, by cell
	has    []int               // of these, those that count
	at     map[*provider]*link // what each provider counts with
	seen   map[*provider]bool  // on this search
}

func (m *machine) newMatching(g *group) *matching {
	n := len(g.cells)
	both := make([]int, 2*n)
	x := &matching{group: g, need: both[:n:n], has: both[n:], at: make(map[*provider]*link, n)}
	copies := m.wants(g).copies
	for i, e := range g.cells {
		x.need[i] = copies * e.times
	}
	return x
}

// full says whether all chunks have what they need.
func (x *matching) full() bool { return slices.Equal(x.has, x.need) }

// fill counts as many usable links as possible. What counts already goes on to be counted, or others of its chunk
// do in its place.
func (x *matching) fill(usable func(*link) bool) {
	x.usable = usable
	var all []*link
	for i, e := range x.group.cells {
		if x.has[i] == x.need[i] {
			continue
		}
		for _, l := range e.chunk.links {
			if x.at[l.provider] == nil && usable(l) {
				all = append(all, l)
			}
		}
	}
	slices.SortFunc(all, func(a, b *link) int { return cmp.Compare(a.Order, b.Order) })
	for _, l := range all {
		if i := x.group.cell(l.chunk); x.at[l.provider] == nil && x.has[i] < x.need[i] {
			x.at[l.provider] = l
			x.has[i]++
		}
	}
	for i, e := range x.group.cells {
		for x.has[i] < x.need[i] && x.seat(e.chunk, false) {
			x.has[i]++
		}
	}
}

// seat has one more link of a chunk counted, if others can be moved to make room for it. A dry one only says so.
func (x *matching) seat(c *chunk, dry bool, taken ...*provider) bool {
	if x.seen == nil {
		x.seen = make(map[*provider]bool)
	}
	clear(x.seen)
	for _, p := range taken {
		x.seen[p] = true
	}
	return x.move(c, dry)
}

func (x *matching) move(c *chunk, dry bool) bool {
	for _, l := range c.links {
		p := l.provider
		if x.seen[p] || !x.usable(l) || x.at[p] == l {
			continue
		}
		x.seen[p] = true
		if other := x.at[p]; other == nil || other.chunk != c && x.move(other.chunk, dry) {
			if !dry {
				x.at[p] = l
			}
			return true
		}
	}
	return false
}

// spare says whether a provider may count with one more link: it has none that counts, or that link's chunk has
// another that may count.
func (x *matching) spare(p *provider) bool {
	l := x.at[p]
	return l == nil || x.seat(l.chunk, true, p)
}

// plan is what a group counts now, and what it will count when all is well with what is under way.
type plan struct {
	*matching
	held    []int // links that count now, by cell
	version uint64
}

// plan returns what a group counts. The chunks are looked at where that has changed.
func (m *machine) plan(g *group) *plan {
	if g.plan.matching != nil && g.plan.version == m.version {
		return &g.plan
	}
	now := m.planWithout(g, nil)
	old := g.plan
	g.plan = now
	if old.matching == nil || !slices.Equal(old.held, now.held) || !slices.Equal(old.need, now.need) || !maps.Equal(old.at, now.at) {
		for _, e := range g.cells {
			m.look(e.chunk)
		}
	}
	return &g.plan
}

// planWithout returns what a group would count without a link.
func (m *machine) planWithout(g *group, out *link) plan {
	x := m.newMatching(g)
	need := m.needs(g)
	upTo := func(worst class) func(*link) bool {
		return func(l *link) bool { return l != out && m.classOf(l, need) <= worst }
	}
	x.fill(upTo(isHeld))
	p := plan{matching: x, held: x.has, version: m.version}
	if !x.full() {
		p.held = slices.Clone(x.has)
		x.fill(upTo(isOpen))
	}
	x.usable = upTo(isOpen)
	return p
}

// covers says whether a group would be uploaded with such links alone.
func (m *machine) covers(g *group, such func(*link) bool) bool {
	p := m.plan(g)
	if !slices.Equal(p.held, p.need) {
		return false
	}
	all := true
	for _, l := range p.at {
		all = all && such(l)
	}
	if all {
		return true
	}
	x, need := m.newMatching(g), m.needs(g)
	x.fill(func(l *link) bool { return such(l) && m.classOf(l, need) == isHeld })
	return x.full()
}

// counts says whether a group counts a link, or will.
func (m *machine) counts(l *link) bool {
	return slices.ContainsFunc(l.chunk.groups, func(g *group) bool { return m.plan(g).at[l.provider] == l })
}

// ends says whether a group counts on a link that is to be renewed for it.
func (m *machine) ends(l *link) bool {
	return slices.ContainsFunc(l.chunk.groups, func(g *group) bool {
		return m.plan(g).at[l.provider] == l && m.classOf(l, m.needs(g)) == isShort
	})
}

// lackOf returns how many links a chunk lacks: as many as the group that lacks most.
func (m *machine) lackOf(c *chunk) (n int) {
	for _, g := range c.groups {
		p, i := m.plan(g), g.cell(c)
		n = max(n, p.need[i]-p.has[i])
	}
	return n
}

// lackingGroups returns the groups in which a chunk lacks links.
func (m *machine) lackingGroups(c *chunk) (all []*plan) {
	for _, g := range c.groups {
		if p, i := m.plan(g), g.cell(c); p.need[i] > p.has[i] {
			all = append(all, p)
		}
	}
	return all
}

// kept says whether all groups of a chunk have all that they need of it.
func (m *machine) kept(c *chunk) bool {
	return !slices.ContainsFunc(c.groups, func(g *group) bool {
		p, i := m.plan(g), g.cell(c)
		return p.held[i] < p.need[i]
	})
}

// prune releases links of a chunk that no group needs once it has all that it needs. Those that were made last go first.
func (m *machine) prune(c *chunk, d demand) {
	live := func(l *link) bool { return m.classOf(l, d.need) < isOver }
	var all []*link
	for _, l := range c.links {
		if live(l) {
			all = append(all, l)
		}
	}
	if len(all) <= d.links && d.links > 0 && !slices.ContainsFunc(all, func(l *link) bool { return !m.counts(l) }) || !m.kept(c) {
		return
	}
	slices.SortFunc(all, func(a, b *link) int {
		return cmp.Or(cmp.Compare(m.classOf(b, d.need), m.classOf(a, d.need)), cmp.Compare(b.Order, a.Order))
	})
	for _, l := range all {
		if live(l) && m.surplus(l) {
			m.failed(l, notNeeded, false)
		}
	}
}

// surplus says whether all groups of a link's chunk count as much without it.
func (m *machine) surplus(l *link) bool {
	if !m.counts(l) {
		return true
	}
	return !slices.ContainsFunc(l.chunk.groups, func(g *group) bool {
		p, without := m.plan(g), m.planWithout(g, l)
		return !slices.Equal(p.held, without.held) || !slices.Equal(p.has, without.has)
	})
}
