package uploader

import (
	"fmt"
	"slices"
	"strings"
)

// hop is a link in a chain of them: a chunk may count with a provider if what counts there does so elsewhere.
type hop struct {
	chunk    *chunk
	provider *provider
	anew     bool // the link is to be made
	from     int  // the hop whose provider counts with the chunk; -1: the first
}

// shift gives other chunks of a group second links, so that what counts with them now can count for a chunk that
// nobody else takes. It does so only where nobody else may take it in a while.
func (m *machine) shift(c *chunk) bool {
	if c.wait || m.cfg.networks == NetworksStrict {
		return false
	}
	for _, x := range m.lackingGroups(c) {
		chain := m.chain(x, c)
		for _, h := range chain {
			m.created(h.chunk, h.provider, m.demand(h.chunk).target)
		}
		if len(chain) > 0 {
			return true
		}
	}
	return false
}

// chain returns the links to be made so that a group counts one more of a chunk, as few as possible, or none where
// that can't be.
func (m *machine) chain(x *plan, c *chunk) []hop {
	if !slices.ContainsFunc(m.known, func(p *provider) bool { return x.at[p] == nil && m.fresh(p) && p.trouble == "" }) {
		return nil
	}
	var hops []hop
	var now, later []int // hops to be tried: with as few new links as the last, and with one more
	expanded, seen := make(map[*chunk]bool), make(map[*provider]bool)
	expand := func(k *chunk, from int) {
		if expanded[k] {
			return
		}
		expanded[k] = true
		for _, l := range k.links {
			if x.usable(l) {
				hops, now = append(hops, hop{k, l.provider, false, from}), append(now, len(hops))
			}
		}
		for _, p := range m.takers(k) {
			hops, later = append(hops, hop{k, p, true, from}), append(later, len(hops))
		}
	}
	for expand(c, -1); len(now)+len(later) > 0; {
		if len(now) == 0 {
			now, later = later, nil
		}
		i := now[0]
		now = now[1:]
		p := hops[i].provider
		if seen[p] {
			continue
		}
		seen[p] = true
		if l := x.at[p]; l != nil {
			expand(l.chunk, i)
			continue
		}
		var chain []hop
		for ; i >= 0; i = hops[i].from {
			if hops[i].anew {
				chain = append(chain, hops[i])
			}
		}
		return chain
	}
	return nil
}

// takers returns the providers that may be asked for a chunk now, and have it not.
func (m *machine) takers(c *chunk) (all []*provider) {
	target := m.demand(c).target
	for _, p := range m.known {
		has := slices.ContainsFunc(c.links, func(l *link) bool { return l.live() && l.provider == p })
		if !has && p.open < m.cfg.limits.OpenPerPeer && m.judge(c, p, c.bytes, target) == fits {
			all = append(all, p)
		}
	}
	return all
}

// shortage says why a chunk has to wait: how many providers a group of it needs, how many of those that are known do
// for it, and why others do not.
func (m *machine) shortage(c *chunk, d demand) string {
	groups := m.lackingGroups(c)
	if len(groups) == 0 {
		return ""
	}
	x := groups[0]
	need, known := 0, len(x.at)
	for _, n := range x.need {
		need += n
	}
	var paused, silent, asked, others int
	var why string
	for _, p := range m.known {
		if x.at[p] != nil {
			continue
		}
		switch m.judge(c, p, c.bytes, d.target) {
		case fits:
			if text := m.hindrance(x, c, p, d); text != "" {
				others, why = others+1, text
				continue
			}
			known++
		case fitsLater:
			known, paused = known+1, paused+1
		case mayFit:
			if p.fails > 0 {
				silent++
				continue
			}
			asked++
		case unfit:
			others, why = others+1, m.hindrance(x, c, p, d)
		}
	}
	var s strings.Builder
	fmt.Fprintf(&s, "needs %d providers, %d known", need, known)
	for _, part := range []struct {
		n    int
		text string
	}{{paused, "to be asked again later"}, {silent, "do not answer"}, {asked, "have not said what they offer"}} {
		if part.n > 0 {
			fmt.Fprintf(&s, ", %d %s", part.n, part.text)
		}
	}
	if others > 0 {
		fmt.Fprintf(&s, ", %d do not fit: %s", others, why)
	}
	return s.String()
}

// hindrance says what keeps a provider from taking a chunk that a group lacks, if anything does.
func (m *machine) hindrance(x *plan, c *chunk, p *provider, d demand) string {
	for _, l := range c.links {
		switch {
		case l.provider != p:
		case l.Cause:
			return "it failed with the chunk: " + l.Reason
		case m.classOf(l, d.need) == isFading:
			return "it has not renewed the chunk that it has"
		}
	}
	if text := p.misfit(c.bytes, d.target); text != "" {
		return text
	}
	if !m.mayCount(x, p) {
		return "it is in a network with another"
	}
	return ""
}
