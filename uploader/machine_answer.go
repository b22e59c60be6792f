package uploader

import (
	"errors"
	"fmt"
	"time"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// doneEvent answers a task.
type doneEvent struct {
	task    uint64
	err     error // a *seal.Refusal where the provider refused
	found   []Candidate
	quote   seal.QuoteAnswer
	root    [32]byte    // of what was sealed
	missing seal.Bitmap // map, data
	pledge  seal.Pledge
	voucher []byte // paid: in the journal with the link; none where the channel is not kept any more
}

// errLocal is an error that is nobody's fault but ours.
type errLocal struct{ error }

func (e errLocal) Unwrap() error { return e.error }

// fault says whose an error is.
type fault uint8

const (
	noFault  fault = iota
	silence        // no answer
	refusal        // see its code
	lie            // the provider's, on purpose or not
	ourFault       // reading, sealing, paying
)

func faultOf(err error) (fault, seal.RefusalCode) {
	var r *seal.Refusal
	var local errLocal
	switch {
	case err == nil:
		return noFault, 0
	case errors.As(err, &local):
		return ourFault, 0
	case errors.As(err, &r):
		return refusal, r.Code
	}
	for _, cause := range []error{seal.ErrSignature, seal.ErrProof, seal.ErrMap, seal.ErrMalformed} {
		if errors.Is(err, cause) {
			return lie, 0
		}
	}
	return silence, 0
}

// done takes in how a task went.
func (m *machine) done(e doneEvent) {
	f := m.flights[e.task]
	if f == nil {
		return
	}
	delete(m.flights, e.task)
	if f.work == workSearch {
		m.searched(e)
		return
	}
	p, l := f.provider, f.link
	if f.slot {
		p.busy--
		m.mailed(p)
	}
	if l != nil {
		l.flight = 0
	}
	kind, code := faultOf(e.err)
	if f.slot && kind != ourFault && kind != silence {
		m.answered(p)
	}
	switch {
	case f.work == workQuote:
		m.quoteDone(p, e, kind)
	case f.work == workChannel:
		m.channelDone(p, e, kind)
	case f.work == workRelease:
		m.releaseDone(l, e)
	case !l.live(): // it ended meanwhile
		m.lateDone(l, f.work, e)
	case l.State == LinkSigned:
		m.signedDone(l, f.work, e, kind, code)
	case e.err == nil:
		m.opened(l, f.work, e)
	default:
		m.trouble(l, f.work, e.err, kind, code)
	}
	if kind == silence && f.slot {
		m.silent(p, cut(e.err.Error()))
	}
}

// lateDone hears of a task whose link has failed meanwhile.
func (m *machine) lateDone(l *link, w work, e doneEvent) {
	if w == workPay && e.err == nil {
		l.Paid, l.Voucher = true, e.voucher
		m.save(l)
	}
	m.advance(l)
	m.look(l.chunk)
}

// opened takes in a step of a link on its way that went well.
func (m *machine) opened(l *link, w work, e doneEvent) {
	switch w {
	case workStore:
		l.tries = 0
		m.agreed(l)
	case workSeal:
		m.sealDone(l, e)
	case workMap:
		l.mapped, l.missing = true, e.missing
		m.missing(l, seal.SegmentCount(l.Bytes)+1)
	case workData:
		l.sent = true
		before := l.missing.Count()
		l.missing = e.missing
		m.missing(l, before)
	case workSign, workRenew:
		m.pledged(l, e.pledge)
	}
}

// sealDone: a root that was told before must come out again.
func (m *machine) sealDone(l *link, e doneEvent) {
	if !l.inMemory {
		m.advance(l)
		return
	}
	if l.State > LinkEncrypting && l.Root != e.root {
		m.failed(l, "chunk reads differently than before", false)
		return
	}
	l.sealed = true
	if l.State <= LinkEncrypting {
		m.encrypted(l, e.root)
		return
	}
	m.advance(l)
}

// missing goes on with what a provider says it misses. Before is how many segments that was.
func (m *machine) missing(l *link, before int) {
	n := l.missing.Count()
	switch {
	case n == 0:
		l.tries = 0
		m.dataReceived(l)
		return
	case n >= before:
		m.again(l, fmt.Sprintf("%d segments sent, as many missing as before", before))
		return
	}
	if l.rounds++; l.rounds > m.cfg.limits.Rounds {
		m.failed(l, fmt.Sprintf("%d segments missing after %d transfers", n, l.rounds-1), false)
		return
	}
	if l.State < LinkSendingData {
		m.sendingData(l)
		return
	}
	m.advance(l)
}

// pledged checks what the provider has signed.
func (m *machine) pledged(l *link, p seal.Pledge) {
	err := p.Check(seal.Pledge{
		Chunk: l.Chunk, SealedRoot: l.Root, Bytes: l.Bytes, Price: l.Price, Expiry: l.expiry(), Writer: m.cfg.self, Provider: l.Provider,
	})
	var b []byte
	if err == nil {
		b, err = p.Marshal()
	}
	if err != nil {
		m.blame(l, err.Error())
		return
	}
	m.praise(l.provider)
	m.signed(l, b)
}

// blame fails a link for cause. What it prolongs fails with it.
func (m *machine) blame(l *link, reason string) {
	m.shun(l.provider, time.Minute)
	if old := m.links[l.Renews]; old != nil && old.renewedBy == l {
		l = old
	}
	m.failed(l, reason, true)
}

// trouble takes in a step of a link on its way that went wrong.
func (m *machine) trouble(l *link, w work, err error, kind fault, code seal.RefusalCode) {
	reason := err.Error()
	switch {
	case kind == ourFault:
		m.ours(l, reason)
	case kind == lie:
		m.blame(l, reason)
	case kind == silence:
		m.again(l, reason)
	case l.renewal():
		m.renewRefused(l, reason, code)
	case code == seal.RefusedBusy:
		m.busy(l, reason)
	case code == seal.RefusedFailed:
		m.again(l, reason)
	case code == seal.RefusedNoChannel && l.Price > 0:
		m.noChannel(l.provider)
		m.again(l, reason)
	default:
		m.refused(l, w, reason, code)
	}
}

// again tries the same once more after a pause, or fails after too many failures.
func (m *machine) again(l *link, reason string) {
	m.unseal(l)
	l.tries++
	if l.renewal() {
		m.look(l.chunk) // it may be time to go elsewhere
	}
	if l.open() && !l.renewal() && l.tries >= m.cfg.limits.Tries {
		m.shun(l.provider, 0)
		m.failed(l, reason, false)
		return
	}
	m.timers.set(&l.retry, m.now+m.backoff(l.tries), func() { m.advance(l) })
}

// busyTries is how many times more often than others a provider may say that it is busy.
const busyTries = 3

// busy tries the same once more soon, with what is sealed still in memory.
func (m *machine) busy(l *link, reason string) {
	if !l.sealed {
		m.unseal(l)
	}
	l.tries++
	if l.tries >= busyTries*m.cfg.limits.Tries {
		m.again(l, reason)
		return
	}
	m.timers.set(&l.retry, m.now+min(m.backoff(l.tries)/4, m.cfg.limits.BackoffFrom), func() { m.advance(l) })
}

// ours ends a link that could not be read or sealed. The chunk waits, nobody is blamed.
func (m *machine) ours(l *link, reason string) {
	c := l.chunk
	if l.renewal() {
		m.again(l, reason)
		return
	}
	c.local++
	m.timers.set(&c.again, m.now+m.backoff(c.local), func() { m.look(c) })
	m.failed(l, reason, false)
}

// refused ends a link that the provider does not want, and keeps it from being asked again too soon.
func (m *machine) refused(l *link, w work, reason string, code seal.RefusalCode) {
	p := l.provider
	p.quoted = p.quoted && code == seal.RefusedUnknownLink
	switch code {
	case seal.RefusedMismatch, seal.RefusedMalformed:
		m.blame(l, reason)
		return
	case seal.RefusedClockSkew, seal.RefusedUnpaid, seal.RefusedNotStored:
		m.shun(p, time.Minute)
	default:
		m.shun(p, 0)
	}
	if w == workStore && !l.twice {
		l.asked, l.State = false, LinkCreated // there is nothing to be released
	}
	m.failed(l, reason, false)
	if code == seal.RefusedUnknownLink && l.Release {
		m.released(l)
	}
}

// signedDone takes in payments and audits.
func (m *machine) signedDone(l *link, w work, e doneEvent, kind fault, code seal.RefusalCode) {
	if (w == workAudit || w == workVoucher) && kind != ourFault && m.evades(l, e.err) {
		m.blame(l, "no answer that says anything: "+e.err.Error())
		return
	}
	switch {
	case w == workPay && e.err == nil:
		l.Paid, l.Voucher, l.tries = true, e.voucher, 0
		m.save(l)
		m.advance(l)
	case w == workVoucher && e.err == nil:
		l.Delivered, l.tries = true, 0
		m.save(l)
		m.look(l.chunk)
		m.advance(l)
	case w == workAudit && e.err == nil:
		l.tries = 0
		m.praise(l.provider)
		m.proven(l)
		m.nextAudit(l)
		m.advance(l)
	case w == workPay && (errors.Is(e.err, payment.ErrNoChannel) || errors.Is(e.err, payment.ErrDeposit)):
		m.noChannel(l.provider)
		m.again(l, e.err.Error())
	case kind == lie:
		m.blame(l, e.err.Error())
	case kind == refusal:
		m.signedRefused(l, w, e.err.Error(), code)
	default:
		l.auditDue = l.auditDue || w == workAudit
		m.again(l, e.err.Error())
	}
	if l.live() {
		l.Reason = ""
		if e.err != nil {
			l.Reason = cut(e.err.Error())
		}
	}
}

// evades says whether a provider that answers others has had nothing but excuses for a link for too long.
func (m *machine) evades(l *link, err error) bool {
	if err == nil {
		l.excuses = 0
		return false
	}
	if l.excuses++; l.excuses == 1 {
		l.excused = m.now
	}
	return l.excuses > m.cfg.limits.Tries && m.now-l.excused >= m.cfg.vanish && l.provider.answeredAt > l.excused
}

// signedRefused: a provider that has signed and has it no more is to blame, unless it was not paid.
func (m *machine) signedRefused(l *link, w work, reason string, code seal.RefusalCode) {
	switch code {
	case seal.RefusedNotStored, seal.RefusedUnknownLink:
		m.blame(l, reason)
	case seal.RefusedMismatch:
		if w == workAudit {
			m.blame(l, reason)
			return
		}
		m.again(l, reason)
	case seal.RefusedUnpaid:
		m.shun(l.provider, time.Minute)
		m.failed(l, reason, false)
	case seal.RefusedNoChannel:
		m.noChannel(l.provider)
		m.again(l, reason)
	default:
		l.auditDue = l.auditDue || w == workAudit
		m.again(l, reason)
	}
}

func (m *machine) noChannel(p *provider) {
	if p.channel == channelOpen {
		p.channel = channelUnknown
	}
}

// channelDone goes on with the links that waited for the channel.
func (m *machine) channelDone(p *provider, e doneEvent, kind fault) {
	waiting := p.waiting
	p.waiting, p.channel = nil, channelUnknown
	if e.err == nil {
		p.channel = channelOpen
	}
	for _, l := range waiting {
		l.waits = false
		switch {
		case e.err == nil && l.State == LinkChannel:
			m.agreed(l)
		case e.err == nil || !l.live():
			m.advance(l)
		case kind == refusal && l.open() && !l.renewal():
			m.shun(p, 0)
			m.failed(l, e.err.Error(), false)
		default:
			m.again(l, e.err.Error())
		}
	}
}

func (m *machine) quoteDone(p *provider, e doneEvent, kind fault) {
	p.quoting, m.stir = false, true
	if e.err == nil {
		m.quotedNow(p, e.quote)
		if p.trouble != "" {
			m.shun(p, time.Minute)
		}
		return
	}
	p.trouble, p.quoted = cut(e.err.Error()), false
	if kind != ourFault {
		m.shun(p, 0)
	}
}

// releaseDone: what the provider does not know needs no release; anything else means later.
func (m *machine) releaseDone(l *link, e doneEvent) {
	var r *seal.Refusal
	told := e.err == nil || errors.As(e.err, &r) && (r.Code == seal.RefusedUnknownLink || r.Code == seal.RefusedNotStored ||
		r.Code == seal.RefusedUnpaid || r.Code == seal.RefusedMalformed)
	if !told && l.Expiry > m.wall.Unix() && m.links[l.ID] == l {
		l.tries++
		m.timers.set(&l.retry, m.now+m.backoff(l.tries), func() { m.advance(l) })
		return
	}
	m.released(l)
}
