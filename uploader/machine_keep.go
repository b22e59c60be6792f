package uploader

import (
	"slices"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// firstAudit sets when a link that was just signed is audited: at once where nothing was sent, as it was
// said to be there already. Nobody can answer who has it not, whether it knows before or not.
func (m *machine) firstAudit(l *link) {
	if l.Proved {
		m.nextAudit(l)
		return
	}
	l.auditDue = true
}

// proven: the provider of a signed link has the bytes, as it has shown.
func (m *machine) proven(l *link) {
	if !l.Proved {
		l.Proved = true
		m.save(l)
		m.showFiles(l.chunk)
	}
}

// doubtful says whether there is reason to ask before a signed link is relied on: its provider is silent or was
// disconnected and has not answered since, has had excuses alone for the last audit, or a repair waits for its answer.
func (m *machine) doubtful(l *link) bool {
	_, doubted := m.doubts[l]
	return doubted || l.provider.lost || l.provider.fails > 0 || l.excuses > 0
}

// nextAudit sets when a link is audited, at random, so that nobody knows before.
func (m *machine) nextAudit(l *link) { m.auditAt(l, m.now+m.within(m.cfg.audit)) }

func (m *machine) auditAt(l *link, at time.Duration) {
	m.timers.set(&l.audit, at, func() { m.auditNow(l) })
}

func (m *machine) within(d time.Duration) time.Duration {
	return time.Duration(m.random.Int64N(int64(d) + 1))
}

func (m *machine) auditNow(l *link) {
	if l.State == LinkSigned {
		m.timers.stop(&l.audit)
		l.auditDue = true
		m.advance(l)
	}
}

// auditAll audits all that is pledged.
func (m *machine) auditAll() {
	for _, p := range m.known {
		m.forgive(p)
		for _, l := range slices.Clone(p.links) {
			m.timers.stop(&l.retry)
			m.auditNow(l)
			m.advance(l)
		}
	}
}

// sample draws the segments of an audit, without repeats, and a nonce.
func (m *machine) sample(l *link) (segments []uint32, nonce seal.Nonce) {
	n := seal.SegmentCount(l.Bytes)
	for _, i := range m.random.Perm(n)[:min(n, m.cfg.limits.AuditSamples)] {
		segments = append(segments, uint32(i))
	}
	return segments, seal.Nonce(m.newID())
}

// renew prolongs a link, once its payment is settled and the provider's terms are known and fit.
func (m *machine) renew(l *link, d demand) {
	p := l.provider
	l.wantsRenewal = true
	if l.renewedBy != nil || !l.settled() || d.target <= l.Expiry {
		return
	}
	if !m.fresh(p) {
		m.askQuote(p)
		return
	}
	if p.trouble != "" || p.quote.MaxExpiry.Unix() < d.target {
		l.renewFails = m.cfg.limits.Tries // elsewhere, then
		m.version++
		m.look(l.chunk)
		return
	}
	l.wantsRenewal = false
	m.createdRenewal(l, d.target)
}

// renewRefused: nothing was signed, so the renewal has ended. What it prolongs has, too, where the
// provider has it no more.
func (m *machine) renewRefused(l *link, reason string, code seal.RefusalCode) {
	old := m.links[l.Renews]
	l.provider.quoted = false
	switch code {
	case seal.RefusedNotStored, seal.RefusedUnknownLink:
		m.blame(l, reason)
	case seal.RefusedUnpaid:
		if old != nil {
			m.failed(old, reason, false)
			return
		}
		m.failed(l, reason, false)
	case seal.RefusedNoChannel:
		m.noChannel(l.provider)
		m.again(l, reason)
	case seal.RefusedBusy, seal.RefusedFailed, seal.RefusedClosing, seal.RefusedLimit:
		m.again(l, reason)
	default:
		m.failed(l, reason, false)
	}
}
