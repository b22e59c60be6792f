package uploader

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// link is one chunk at one provider. What is beside the record is not kept over a restart.
type link struct {
	record
	chunk    *chunk
	provider *provider
	at       int // in the provider's links

	flight uint64 // the task that is under way
	queued bool   // for a slot, or to be sealed
	waits  bool   // for the provider's channel
	listed bool   // the record is written with the next Ready
	asked  bool   // the provider may have heard of it
	twice  bool   // and was asked again: a refusal does not say that it knows nothing

	inMemory bool // sealed bytes are, or are about to be
	sealed   bool // they are
	mapped   bool // the provider has the map, and has said what is missing
	missing  seal.Bitmap
	sent     bool // data, in this life
	rounds   int  // of data
	tries    int  // failures in a row
	retry    timer

	excuses      int           // in a row, to audits and vouchers
	excused      time.Duration // since then
	auditDue     bool
	audit        timer
	renewedBy    *link
	renewFails   int
	wantsRenewal bool // once there is a quote
}

// All transitions of links follow, each named for the state it ends in. Whoever makes one has checked
// that the link is in the state it begins in.

// created makes a link of a chunk to a provider. Price and expiry are fixed from here on.
func (m *machine) created(c *chunk, p *provider, expiry int64) *link {
	l := m.newLink(c, p, expiry)
	l.Price = seal.PriceOf(p.quote.PricePerGiBDay, c.bytes, l.expiry().Sub(m.wall.Truncate(time.Second)))
	p.quote.FreeBytes -= min(p.quote.FreeBytes, uint64(c.bytes))
	m.begin(l)
	m.lookAround(c)
	return l
}

// createdRenewal makes a link that prolongs another, with the sealed bytes that are there.
func (m *machine) createdRenewal(old *link, expiry int64) *link {
	l := m.newLink(old.chunk, old.provider, expiry)
	from := max(old.Expiry, m.wall.Unix())
	l.Price = seal.PriceOf(l.provider.quote.PricePerGiBDay, l.Bytes, time.Duration(expiry-from)*time.Second)
	l.Renews, l.Order, l.Root, l.Proved, old.renewedBy = old.ID, old.Order, old.Root, old.Proved, l
	m.begin(l)
	return l
}

func (m *machine) newLink(c *chunk, p *provider, expiry int64) *link {
	m.order++
	return &link{chunk: c, provider: p, record: record{
		ID: m.newID(), Chunk: c.id, Provider: p.id, State: LinkCreated, Bytes: c.bytes,
		Expiry: expiry, Created: m.wall.Unix(), Order: m.order,
	}}
}

func (m *machine) newID() (id seal.LinkID) {
	binary.BigEndian.PutUint64(id[:], m.random.Uint64())
	binary.BigEndian.PutUint64(id[8:], m.random.Uint64())
	return id
}

// begin makes a new link known.
func (m *machine) begin(l *link) {
	m.insert(l)
	m.save(l)
	if l.renewal() {
		m.agreed(l) // the provider has agreed before
		return
	}
	m.advance(l)
}

// insert puts a link where it belongs. Links of the journal come in order.
func (m *machine) insert(l *link) {
	m.version++
	m.links[l.ID] = l
	l.chunk.links = append(l.chunk.links, l)
	if l.live() || l.Release {
		m.enroll(l)
	}
	if l.open() {
		m.active++
		l.provider.open++
	}
}

// agreed: the provider has promised space, or the channel is there.
func (m *machine) agreed(l *link) {
	m.to(l, LinkAgreed)
	if m.needsChannel(l) {
		m.needingChannel(l)
		return
	}
	if l.renewal() {
		m.dataReceived(l)
		return
	}
	m.advance(l)
}

// needingChannel: the link has a price, and no channel to the provider is known to be open.
func (m *machine) needingChannel(l *link) {
	m.to(l, LinkChannel)
	m.advance(l)
}

// encrypting: there is room in memory for the sealed chunk.
func (m *machine) encrypting(l *link) { m.to(l, LinkEncrypting) }

// encrypted: the chunk is sealed, and this is its root.
func (m *machine) encrypted(l *link, root [32]byte) {
	l.Root = root
	m.to(l, LinkEncrypted)
	m.advance(l)
}

// sendingMap: key and map are about to be sent.
func (m *machine) sendingMap(l *link) { m.to(l, LinkSendingMap) }

// sendingData: the provider has the map and misses segments.
func (m *machine) sendingData(l *link) {
	m.to(l, LinkSendingData)
	m.advance(l)
}

// dataReceived: the provider says that all is there.
func (m *machine) dataReceived(l *link) {
	m.unseal(l)
	m.to(l, LinkDataReceived)
	m.advance(l)
}

// askingSignature: the provider is about to be asked for the pledge.
func (m *machine) askingSignature(l *link) { m.to(l, LinkAskingSignature) }

// signed: the provider has pledged what was agreed. A renewal takes the place of what it prolongs.
func (m *machine) signed(l *link, pledge []byte) {
	m.closed(l)
	l.Pledge = pledge
	l.Proved = l.Proved || l.sent
	m.to(l, LinkSigned)
	l.chunk.fails, l.chunk.local, l.chunk.reason = 0, 0, ""
	if old := m.links[l.Renews]; old != nil && old.chunk == l.chunk {
		old.renewedBy = nil
		old.State = LinkFailed // so that nothing more is done for it
		m.forget(old)
	}
	m.firstAudit(l)
	m.lookAround(l.chunk) // siblings may need less
	m.advance(l)
}

// failed: the link has ended. The provider is told where it may know of it.
func (m *machine) failed(l *link, reason string, cause bool) {
	if !l.live() {
		return
	}
	wasOpen := l.open()
	if wasOpen {
		m.closed(l)
	}
	told := l.State > LinkCreated || l.asked
	if n := l.renewedBy; n != nil {
		l.renewedBy = nil
		m.failed(n, reason, false)
	}
	m.timers.stop(&l.retry)
	m.timers.stop(&l.audit)
	l.auditDue, l.waits = false, false
	l.Reason, l.Cause = cut(reason), cause
	l.Release = told && !l.renewal()
	if old := m.links[l.Renews]; old != nil && old.renewedBy == l {
		old.renewedBy = nil
		old.renewFails++
	} else if l.renewal() {
		l.Release = told // there is nothing else of the chunk to lose there
	}
	m.to(l, LinkFailed)
	if !l.Release {
		m.strike(l)
	}
	if reason != notNeeded && !l.renewal() {
		l.chunk.fails++
		l.chunk.reason = l.Reason
	}
	m.stir = true
	m.lookAround(l.chunk)
	m.advance(l)
}

// released: the provider knows that a failed link is over, or does not matter any more.
func (m *machine) released(l *link) {
	l.Release = false
	m.strike(l)
	m.save(l)
	m.stir = true
	m.look(l.chunk)
}

// notNeeded is the reason of links that end without anybody's fault.
const notNeeded = "not needed any more"

// maxReason bounds what is kept of a reason, in bytes.
const maxReason = 512

func cut(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxReason)], "?") }

// to changes the state.
func (m *machine) to(l *link, s LinkState) {
	l.State = s
	m.version++
	m.save(l)
}

// save writes the record with the next Ready.
func (m *machine) save(l *link) {
	if !l.listed {
		l.listed = true
		m.out.links = append(m.out.links, l.record)
	}
}

// closed says that a link is not on its way any more.
func (m *machine) closed(l *link) {
	m.unseal(l)
	m.active--
	l.provider.open--
	l.tries = 0
	m.stir, m.crowded = m.stir || m.crowded, false
}

// lookAround looks at a chunk and at those that may use its providers now, or need theirs no more.
func (m *machine) lookAround(c *chunk) {
	m.look(c)
	for _, g := range c.groups {
		for _, k := range g.chunks {
			m.look(k)
		}
	}
}

// enroll lists a link at its provider.
func (m *machine) enroll(l *link) {
	l.provider.links = append(l.provider.links, l)
	l.at = len(l.provider.links)
}

// strike takes a link off its provider's list.
func (m *machine) strike(l *link) {
	if l.at == 0 {
		return
	}
	of := l.provider.links
	last := len(of) - 1
	of[l.at-1] = of[last]
	of[l.at-1].at = l.at
	of[last] = nil
	l.provider.links = of[:last]
	l.at = 0
}

// forget drops a link that has ended.
func (m *machine) forget(l *link) {
	m.version++
	m.strike(l)
	m.unseal(l)
	m.timers.stop(&l.retry)
	m.timers.stop(&l.audit)
	delete(m.links, l.ID)
	if l.listed {
		m.out.links = slices.DeleteFunc(m.out.links, func(r record) bool { return r.ID == l.ID })
	}
	m.out.goneLinks = append(m.out.goneLinks, l.ID)
	if l.Price > 0 {
		m.out.forgets = append(m.out.forgets, l.ID)
	}
	if i := slices.Index(l.chunk.links, l); i >= 0 {
		l.chunk.links = slices.Delete(l.chunk.links, i, i+1)
	}
}

// unseal gives back the memory of a link's sealed bytes.
func (m *machine) unseal(l *link) {
	if !l.inMemory {
		return
	}
	m.sealed -= l.Bytes
	l.provider.sealed--
	l.inMemory, l.sealed, l.mapped = false, false, false
	m.out.drops = append(m.out.drops, l.ID)
}
