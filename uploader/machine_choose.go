package uploader

import (
	"math"
	"slices"
)

// mark says what a provider has, while one is chosen for a chunk.
type mark uint8

const (
	hasNothing mark = iota
	hasSibling      // another chunk of one of its groups
	hasChunk
)

// markAll marks all providers for a chunk.
func (m *machine) markAll(c *chunk) {
	for _, p := range m.known {
		p.mark = hasNothing
	}
	m.siblings(c, func(l *link) { l.provider.mark = hasSibling })
	for _, l := range c.links {
		if l.live() {
			l.provider.mark = hasChunk
		}
	}
}

// choose picks a provider for a chunk at random, weighted by its past and load, among those with which most of the
// groups that lack a link of it could count one. Those that have nothing of its groups come first. It picks none
// where a better one may be free, or have said what it offers, in a moment.
func (m *machine) choose(c *chunk, d demand) *provider {
	m.markAll(c)
	lacking, taken := m.lackingGroups(c), m.taken(c)
	var apart, all lottery
	best, soon := math.MaxInt, math.MaxInt // ranks
	for _, p := range m.known {
		rank, of := m.rank(p, lacking)
		if !of {
			continue
		}
		f := m.judge(c, p, c.bytes, d.target)
		full := f == fits && p.open >= m.cfg.limits.OpenPerPeer
		m.crowded = m.crowded || full
		if f == mayFit || f == fitsLater || full {
			c.hope = true
			c.wait = c.wait || full || p.fails < m.cfg.limits.Tries && p.bad < m.cfg.limits.Tries
			if full || m.awaitsQuote(p) {
				soon = min(soon, rank)
			}
			continue
		}
		if f == unfit || rank > best {
			continue
		}
		if rank < best {
			best, apart, all = rank, lottery{}, lottery{}
		}
		weight := (0.05 + p.score) / float64(1+p.open)
		all.add(p, weight)
		if !slices.ContainsFunc(p.networks, func(n string) bool { return taken[n] }) {
			apart.add(p, weight)
		}
	}
	switch {
	case soon < best:
		return nil
	case len(apart.of) > 0:
		return apart.draw(m.random.Float64())
	}
	return all.draw(m.random.Float64())
}

// rank says how well a marked provider serves the groups that lack a link, 0 is best, and whether it serves any.
func (m *machine) rank(p *provider, lacking []*plan) (rank int, of bool) {
	if p.mark == hasChunk {
		return 0, false
	}
	for _, x := range lacking {
		if !m.mayCount(x, p) {
			rank += 2
		}
	}
	if len(lacking) > 0 && rank == 2*len(lacking) {
		return 0, false
	}
	if p.mark == hasSibling {
		rank++
	}
	return rank, true
}

// mayCount says whether a group could count one more link with a provider.
func (m *machine) mayCount(x *plan, p *provider) bool {
	if m.cfg.networks == NetworksStrict {
		for q := range x.at {
			if slices.ContainsFunc(p.networks, func(n string) bool { return slices.Contains(q.networks, n) }) {
				return false
			}
		}
	}
	return x.spare(p)
}

// taken returns the networks of the providers that have a column of the chunk's groups.
func (m *machine) taken(c *chunk) map[string]bool {
	if m.cfg.networks == NetworksIgnore {
		return nil
	}
	taken := make(map[string]bool)
	m.siblings(c, func(l *link) {
		for _, n := range l.provider.networks {
			taken[n] = true
		}
	})
	return taken
}

// siblings calls fn for all live links of the chunk and of those that share a group with it.
func (m *machine) siblings(c *chunk, fn func(l *link)) {
	for _, g := range c.groups {
		for _, e := range g.cells {
			for _, l := range e.chunk.links {
				if l.live() {
					fn(l)
				}
			}
		}
	}
}

// lottery draws by weight.
type lottery struct {
	of  []*provider
	sum []float64 // up to and with each
}

func (x *lottery) add(p *provider, weight float64) {
	if n := len(x.sum); n > 0 {
		weight += x.sum[n-1]
	}
	x.of, x.sum = append(x.of, p), append(x.sum, weight)
}

// draw takes a number from 0 to 1 and returns who it falls on: nil where there is nobody.
func (x *lottery) draw(at float64) *provider {
	if len(x.of) == 0 {
		return nil
	}
	at *= x.sum[len(x.sum)-1]
	i, _ := slices.BinarySearch(x.sum, at)
	return x.of[min(i, len(x.of)-1)]
}
