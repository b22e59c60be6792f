package uploader

import (
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// work is what is to be done next about a link or provider.
type work uint8

const (
	workNone work = iota
	workSearch
	workQuote
	workStore
	workChannel
	workSeal
	workMap
	workData
	workSign
	workRenew
	workPay
	workVoucher
	workAudit
	workRelease
)

var workNames = [...]string{"none", "search", "quote", "store", "channel", "seal", "map", "data", "sign", "renew", "pay", "voucher", "audit", "release"}

// String returns the work's name.
func (w work) String() string { return workNames[w] }

// task is something to carry out. It is answered by one doneEvent.
type task struct {
	id       uint64
	work     work
	provider *provider     // its ID alone is read by others
	link     record        // where it is about a link
	groups   []groupRecord // seal: those with parity that the chunk is in
	missing  seal.Bitmap   // data
	amount   uint64        // channel: what is to be paid through it soon
	segments []uint32      // audit
	nonce    seal.Nonce
	now      time.Time // on the wall
}

// flight is a task that is under way.
type flight struct {
	work     work
	provider *provider
	link     *link
	slot     bool // it takes one of the provider's slots
}

// advance queues a link for whatever is next, unless something is under way for it.
func (m *machine) advance(l *link) {
	if l.flight != 0 || l.queued || l.waits || l.retry.on() {
		return
	}
	if l.State == LinkChannel && !m.needsChannel(l) {
		m.agreed(l) // for another link the channel was opened
		return
	}
	switch m.next(l) {
	case workNone:
	case workSeal:
		l.queued = true
		m.sealing = append(m.sealing, l)
	default:
		l.queued = true
		l.provider.work = append(l.provider.work, l)
		m.mailed(l.provider)
	}
}

// mailed has a provider looked at by dispatch.
func (m *machine) mailed(p *provider) {
	if !p.mailing {
		p.mailing = true
		m.mail = append(m.mail, p)
	}
}

// next returns what is next for a link.
func (m *machine) next(l *link) work {
	switch {
	case l.State == LinkFailed:
		if l.Release {
			return workRelease
		}
		return workNone
	case l.State == LinkSigned:
		return m.nextSigned(l)
	case l.State == LinkCreated:
		return workStore
	case m.needsChannel(l):
		return workChannel
	case l.State >= LinkDataReceived && l.renewal():
		return workRenew
	case l.State >= LinkDataReceived:
		return workSign
	case !l.sealed:
		return workSeal
	case !l.mapped:
		return workMap
	}
	return workData
}

func (m *machine) nextSigned(l *link) work {
	switch {
	case !l.settled() && m.needsChannel(l):
		return workChannel
	case l.Price > 0 && !l.Paid:
		return workPay
	case !l.settled():
		return workVoucher
	case l.auditDue && l.renewedBy == nil:
		return workAudit
	}
	return workNone
}

// settled says whether the provider has been paid for the link, and knows it.
func (l *link) settled() bool { return l.Price == 0 || l.Paid && (l.Delivered || len(l.Voucher) == 0) }

func (m *machine) needsChannel(l *link) bool { return l.Price > 0 && l.provider.channel != channelOpen }

// dispatch gives slots and memory to those who wait for them.
func (m *machine) dispatch() {
	m.dispatchSealing()
	for i := 0; i < len(m.mail); i++ {
		p := m.mail[i]
		p.mailing = false
		m.dispatchTo(p)
	}
	m.mail = m.mail[:0]
}

// dispatchSealing starts sealing as far as memory goes. Nobody's chunks wait there for one who is silent.
func (m *machine) dispatchSealing() {
	waiting := m.sealing
	m.sealing = nil
	for _, l := range waiting {
		p := l.provider
		switch {
		case l.flight != 0 || m.next(l) != workSeal:
			l.queued = false
			m.advance(l)
		case m.now < p.pause || p.sealed > m.cfg.limits.PerProvider || m.sealed+l.Bytes > m.cfg.limits.SealedBytes:
			m.sealing = append(m.sealing, l)
		default:
			l.queued = false
			l.inMemory = true
			p.sealed++
			m.sealed += l.Bytes
			if l.State == LinkAgreed {
				m.encrypting(l)
			}
			m.start(workSeal, p, l)
		}
	}
}

// dispatchTo fills a provider's slots.
func (m *machine) dispatchTo(p *provider) {
	if m.now < p.pause {
		m.wakeAt(p)
		return
	}
	free := func() bool { return p.busy < m.cfg.limits.PerProvider }
	if p.asking && free() {
		p.asking, p.quoting, p.askedAt = false, true, m.now
		m.timers.set(&m.search.quotes, m.now+quotePatience, func() { m.stir = true })
		m.start(workQuote, p, nil)
	}
	for free() && len(p.work) > 0 {
		l := p.work[0]
		p.work = p.work[1:]
		l.queued = false
		if l.flight != 0 || l.waits || l.retry.on() {
			continue
		}
		switch w := m.next(l); w {
		case workNone:
		case workSeal:
			m.advance(l)
		case workChannel:
			m.openChannel(p, l)
		default:
			m.leaving(w, l)
			m.start(w, p, l)
		}
	}
}

// leaving makes the transition that sending a request is.
func (m *machine) leaving(w work, l *link) {
	switch {
	case w == workStore:
		l.twice, l.asked = l.asked, true
	case w == workMap && l.State < LinkSendingMap:
		m.sendingMap(l)
	case (w == workSign || w == workRenew) && l.State < LinkAskingSignature:
		m.askingSignature(l)
	}
}

// openChannel lets a link wait for the provider's channel, and opens it for the first.
func (m *machine) openChannel(p *provider, l *link) {
	l.waits = true
	p.waiting = append(p.waiting, l)
	if p.channel == channelUnknown {
		p.channel = channelOpening
		m.start(workChannel, p, nil)
	}
}

// start begins a task.
func (m *machine) start(w work, p *provider, l *link) {
	m.nextTask++
	f := &flight{work: w, provider: p, link: l, slot: p != nil && w != workSeal}
	m.flights[m.nextTask] = f
	t := task{id: m.nextTask, work: w, provider: p, now: m.wall}
	if f.slot {
		p.busy++
	}
	if l != nil {
		l.flight = t.id
		t.link, t.missing = l.record, l.missing
	}
	switch w {
	case workSeal:
		for _, g := range l.chunk.groups {
			if g.parity > 0 {
				t.groups = append(t.groups, g.record())
			}
		}
	case workChannel:
		for _, x := range p.links {
			if x.live() && !x.Paid {
				t.amount = min(t.amount+x.Price, seal.MaxPrice)
			}
		}
	case workAudit:
		l.auditDue = false
		t.segments, t.nonce = m.sample(l)
	}
	m.out.tasks = append(m.out.tasks, t)
}

// seek looks for candidates while some are missing.
func (m *machine) seek() {
	if m.search.running || m.search.timer.on() || m.active+len(m.lacking)+len(m.stuck) == 0 {
		return
	}
	m.search.running = true
	m.start(workSearch, nil, nil)
}

// searched takes in what a search has found, and sets when the next one is.
func (m *machine) searched(e doneEvent) {
	s := &m.search
	s.running = false
	s.pause = max(m.cfg.limits.SearchEvery, min(2*s.pause, m.cfg.limits.BackoffTo))
	m.heard(e.found) // somebody new makes the pause short
	s.pause = max(s.pause, m.cfg.limits.SearchEvery)
	m.timers.set(&s.timer, m.now+s.pause, func() {})
}
