package uploader

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// provider is what is known of one. Nothing of it survives a restart but its links.
type provider struct {
	id       peer.ID
	networks []string

	quote    seal.QuoteAnswer
	quotedAt time.Duration
	quoted   bool
	asking   bool // for a quote, as soon as there is a slot
	quoting  bool // it is asked
	askedAt  time.Duration
	trouble  string

	links  []*link // live ones, and failed ones that it is to be told of
	open   int     // links on their way
	sealed int     // of these, sealed in memory

	work    []*link // that want a slot, first come first served
	mailing bool
	busy    int // slots in use

	channel channelState
	waiting []*link // for the channel

	fails int           // requests without an answer, in a row
	since time.Duration // of the first of them
	lost  bool          // the connection was, and nothing was answered since
	pause time.Duration // until when nothing is sent
	bad   int           // reasons not to choose it, in a row
	until time.Duration // until when it is not chosen
	score float64       // of the past, 0 to 1

	answeredAt time.Duration // when it gave an answer last
	wake       timer         // when pause or until are over
	mark       mark          // of choose
}

// channelState is how the payment channel to a provider is.
type channelState uint8

const (
	channelUnknown channelState = iota
	channelOpening
	channelOpen
)

// fit says whether a provider can be asked for a chunk.
type fit uint8

const (
	unfit     fit = iota // not until it changes its terms, or never
	mayFit               // that is not known yet
	fitsLater            // but for a pause
	fits
)

// maxCandidateNetworks is how many networks of a candidate count.
const maxCandidateNetworks = 16

// heard takes in providers.
func (m *machine) heard(found []Candidate) {
	found = slices.Clone(found)
	m.random.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	for _, c := range found {
		if c.ID == "" || c.ID == m.cfg.self {
			continue
		}
		p := m.providers[c.ID]
		if p == nil {
			if p = m.meet(c.ID); p == nil {
				continue
			}
			m.search.pause = 0
		}
		p.networks = slices.Clone(c.Networks[:min(len(c.Networks), maxCandidateNetworks)])
		if len(m.lacking)+len(m.stuck) > 0 {
			m.askQuote(p)
		}
	}
	m.stir = true
}

// meet makes a provider known, in place of one that is of no use where there are too many.
func (m *machine) meet(id peer.ID) *provider {
	if len(m.known) >= m.cfg.limits.Providers {
		i := slices.IndexFunc(m.known, func(p *provider) bool {
			return len(p.links) == 0 && p.busy == 0 && !p.asking && (p.bad > 0 || p.trouble != "")
		})
		if i < 0 {
			return nil
		}
		m.timers.stop(&m.known[i].wake)
		delete(m.providers, m.known[i].id)
		m.known = slices.Delete(m.known, i, i+1)
	}
	return m.provider(id)
}

// provider returns the provider of an ID.
func (m *machine) provider(id peer.ID) *provider {
	p := m.providers[id]
	if p == nil {
		p = &provider{id: id, score: 0.5}
		m.providers[id] = p
		m.known = append(m.known, p)
	}
	return p
}

// askQuote asks for terms that are not known, or too old, unless the provider is in a pause.
func (m *machine) askQuote(p *provider) {
	if !p.asking && !p.quoting && !m.fresh(p) && m.now >= p.until {
		p.asking = true
		m.mailed(p)
	}
}

// quotePatience is how long a group waits for the quotes of more providers than it needs, so that it
// is not always those who answer first.
const quotePatience = 2 * time.Second

// awaitsQuotes says whether some provider's terms may be known soon.
func (m *machine) awaitsQuotes() bool { return slices.ContainsFunc(m.known, m.awaitsQuote) }

func (m *machine) awaitsQuote(p *provider) bool {
	return p.asking && m.now >= p.pause && p.busy < m.cfg.limits.PerProvider || p.quoting && m.now < p.askedAt+quotePatience
}

func (m *machine) fresh(p *provider) bool {
	return p.quoted && m.now-p.quotedAt < m.cfg.limits.QuoteFor
}

// quotedNow takes in a provider's terms.
func (m *machine) quotedNow(p *provider, q seal.QuoteAnswer) {
	p.quote, p.quotedAt, p.quoted, p.trouble = q, m.now, true, ""
	if skew := q.Now.Sub(m.wall).Abs(); skew > seal.MaxClockSkew {
		p.trouble = fmt.Sprintf("clock-skew: its clock differs by %v", skew.Round(time.Second))
	} else if q.PricePerGiBDay > m.cfg.maxPrice {
		p.trouble = fmt.Sprintf("price of %d for a GiB and day, at most %d is paid", q.PricePerGiBDay, m.cfg.maxPrice)
	} else if len(m.cfg.regions) > 0 && !slices.Contains(m.cfg.regions, q.Region) {
		p.trouble = fmt.Sprintf("region %q is not among those asked for", q.Region)
	}
	for _, l := range p.links {
		if l.State == LinkSigned && l.renewedBy == nil && l.wantsRenewal {
			m.look(l.chunk)
		}
	}
	m.stir = true
}

// judge says whether a provider may be asked to keep so many bytes of a chunk, by its terms and its past.
func (m *machine) judge(c *chunk, p *provider, bytes, expiry int64) fit {
	for _, l := range c.links {
		if l.provider == p && !l.live() && (l.Cause || l.Release) {
			if l.Cause {
				return unfit
			}
			return mayFit // once it has answered the release
		}
	}
	if !m.fresh(p) {
		m.askQuote(p)
		if p.quoted && p.trouble != "" && m.now < p.until {
			return unfit
		}
		return mayFit
	}
	if p.trouble != "" || p.quote.FreeBytes < uint64(bytes) || p.quote.MaxExpiry.Unix() < expiry {
		return unfit
	}
	if m.now < p.until || m.now < p.pause {
		return fitsLater
	}
	return fits
}

// misfit says what of a provider's terms keeps it from being asked to keep so many bytes until some time, if any.
func (p *provider) misfit(bytes, expiry int64) string {
	switch {
	case p.trouble != "":
		return p.trouble
	case p.quote.FreeBytes < uint64(bytes):
		return fmt.Sprintf("%d bytes are free, %d are needed", p.quote.FreeBytes, bytes)
	case p.quote.MaxExpiry.Unix() < expiry:
		return fmt.Sprintf("nothing is kept longer than until %s", p.quote.MaxExpiry.UTC().Format(time.DateOnly))
	}
	return ""
}

// backoff returns the pause after so many failures in a row.
func (m *machine) backoff(n int) time.Duration {
	d := m.cfg.limits.BackoffFrom
	for ; n > 1 && d < m.cfg.limits.BackoffTo; n-- {
		d *= 2
	}
	return min(d, m.cfg.limits.BackoffTo)
}

// answered notes that a provider is there.
func (m *machine) answered(p *provider) {
	p.fails, p.pause, p.answeredAt, p.lost = 0, 0, m.now, false
}

// silent notes a request that a provider gave no answer to.
func (m *machine) silent(p *provider, reason string) {
	if m.now < p.pause {
		return // several at once count once
	}
	if p.fails == 0 {
		p.since = m.now
	}
	p.fails++
	p.pause = m.now + m.backoff(p.fails)
	p.score *= 0.8
	m.wakeAt(p)
	gone := p.fails >= m.cfg.limits.Tries
	vanished := gone && m.now-p.since >= m.cfg.vanish
	if gone {
		p.quoted = false
	}
	for _, l := range slices.Clone(p.links) {
		if gone && l.open() && !l.renewal() {
			m.failed(l, reason, false)
		}
		if vanished && l.State == LinkSigned {
			m.failed(l, "vanished: "+reason, false)
		}
	}
	for _, l := range p.links { // others get the room meanwhile
		if l.flight == 0 {
			m.unseal(l)
		}
	}
}

// shun keeps a provider from being chosen for a while.
func (m *machine) shun(p *provider, least time.Duration) {
	p.bad++
	p.score *= 0.7
	p.until = max(p.until, m.now+max(least, m.backoff(p.bad)))
	m.wakeAt(p)
}

// forgive lets a provider be asked and chosen at once.
func (m *machine) forgive(p *provider) {
	p.pause, p.until, p.bad = 0, 0, 0
	p.quotedAt, p.quoted = 0, p.quoted && p.trouble == ""
	m.wakeAt(p)
	m.mailed(p)
}

// praise notes that a provider did what it should.
func (m *machine) praise(p *provider) {
	p.bad, p.until = 0, 0
	p.score += (1 - p.score) * 0.2
}

// wakeAt sets when the provider's pauses end.
func (m *machine) wakeAt(p *provider) {
	at := p.until
	if p.pause > m.now && (at <= m.now || p.pause < at) {
		at = p.pause
	}
	if at <= m.now {
		m.timers.stop(&p.wake)
		return
	}
	m.timers.set(&p.wake, at, func() {
		m.stir = true
		m.mailed(p)
		m.wakeAt(p)
	})
}

// gone hears that a provider's connection is gone. One of its links is audited soon, to see.
func (m *machine) gone(id peer.ID) {
	p := m.providers[id]
	if p == nil || p.fails > 0 {
		return
	}
	for _, l := range p.links {
		p.lost = p.lost || l.State == LinkSigned
		if l.State == LinkSigned && !l.auditDue {
			if soon := m.now + 10*time.Second; !l.audit.on() || l.audit.at > soon {
				m.auditAt(l, soon)
			}
			return
		}
	}
}
