package exchange

import (
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// want takes an intent in: it joins the want for its block, or begins it.
func (m *machine) want(e wantEvent) {
	if _, twice := m.intents[e.intent]; twice {
		return
	}
	w := m.wants[e.want.CID]
	if w == nil {
		w = &want{Want: e.want, bulk: e.bulk, session: m.openSession(e.want), begun: m.now}
		m.wants[w.CID] = w
		m.used(w.session, 1)
		m.enqueue(w)
	} else {
		m.rejoin(w, e)
	}
	w.intents = append(w.intents, e.intent)
	m.enter(w, e)
	i := &intent{id: e.intent, want: w}
	i.timer.owner = i
	m.intents[i.id] = i
	if e.deadline > 0 {
		m.timers.set(&i.timer, e.deadline)
	}
}

// rejoin adds to a want what a later intent knows of the block.
func (m *machine) rejoin(w *want, e wantEvent) {
	if w.Place == (Place{}) {
		w.Place = e.want.Place
	}
	w.Passing = w.Passing && e.want.Passing
	if w.bulk && !e.bulk {
		w.bulk = false
		if w.state == wantQueued {
			m.enqueue(w)
		}
	}
	if !w.waits() || !e.want.Dataset.Defined() || e.want.Dataset == w.session.key {
		return
	}
	old := w.session // where nobody has it; the other dataset may be known better
	w.leave()
	w.Dataset, w.session = e.want.Dataset, m.openSession(e.want)
	m.used(w.session, 1)
	m.used(old, -1)
	m.enqueue(w)
}

// forget takes an intent away. The last one cancels the want, unless its block is already here.
func (m *machine) forget(id intentID) {
	i := m.intents[id]
	if i == nil {
		return
	}
	w := i.want
	m.endIntent(id)
	w.forget(id)
	if len(w.intents) > 0 || w.state == wantStoring {
		return
	}
	m.stats.Cancelled++
	m.withdraw(w)
	m.end(w)
}

// endIntent forgets an intent.
func (m *machine) endIntent(id intentID) {
	m.timers.stop(&m.intents[id].timer)
	delete(m.intents, id)
}

// timeOut fails an intent whose deadline has come. A block that is being stored is as good as here.
func (m *machine) timeOut(i *intent) {
	if i.want.state == wantStoring {
		return
	}
	m.stats.Expired++
	m.out.resolved = append(m.out.resolved, resolution{intents: []intentID{i.id}, err: errDeadline})
	m.forget(i.id)
}

// fail ends a want that can't be had. Everybody who waits for it is told why.
func (m *machine) fail(w *want, err error) {
	for _, id := range w.intents {
		m.endIntent(id)
	}
	m.stats.Failed++
	m.out.resolved = append(m.out.resolved, resolution{w.intents, nil, err})
	m.withdraw(w)
	m.end(w)
}

// end forgets a want that nothing is asked for any more.
func (m *machine) end(w *want) {
	w.leave()
	m.unwatch(w)
	delete(m.wants, w.CID)
	m.recent.add(w.CID)
	m.used(w.session, -1)
}

// enqueue lets a want wait for its session's turn: before all others if it was parked. It ends in
// wantQueued.
func (m *machine) enqueue(w *want) {
	s, parked := w.session, w.state == wantParked
	w.state = wantQueued
	list := &s.urgent
	switch {
	case len(w.tried) > 0:
		list = &s.choosy
	case w.bulk:
		list = &s.bulk
	}
	if parked {
		list.pushFront(w)
	} else {
		list.push(w)
	}
	if !s.inTurn {
		s.inTurn = true
		m.turn = append(m.turn, s)
	}
}

// seek asks connected peers whether they have a block, and searches for providers if none is left to
// be asked. It ends in wantSeeking or wantParked, or in wantAsked if only a peer that never says have is
// left, or the want ends, as it is too dear.
func (m *machine) seek(w *want) {
	if !w.sought {
		w.sought, w.soughtAt = true, m.now
		m.hasten(w.session)
	}
	m.lay(w)
	if m.askAround(w) > 0 {
		return
	}
	if p := m.silentProspect(w); p != nil && !w.onlyProbed() {
		m.join(w.session, p)
		m.ask(w, p)
		return
	}
	m.search(w.session, w.session.key)
	m.search(w.session, w.CID)
	m.lacks(w)
	m.refuse(w)
}

// lay puts a want aside that nobody can be asked for now. It ends in wantParked if a peer is due for a
// retry, else in wantSeeking.
func (m *machine) lay(w *want) {
	for _, mb := range w.session.members {
		if p := mb.peer; p.connected && m.now < p.backoff && !w.denied(p) {
			w.state = wantParked
			w.session.parked.push(w)
			return
		}
	}
	w.state = wantSeeking
	w.session.seeking.push(w)
}

// hasten makes a session look around soon, as it has something to look for. Peers that were away for long
// may be back: they are dialed as soon as that.
func (m *machine) hasten(s *session) {
	for _, mb := range s.members {
		if p := mb.peer; !p.connected && p.redial > m.now+m.limits.RefreshMin {
			p.redial = m.now + m.limits.RefreshMin
			m.armPeer(p)
		}
	}
	s.pause = m.limits.RefreshMin
	if s.timer.at > m.now+s.pause {
		m.timers.set(&s.timer, m.now+s.pause)
	}
}

// received takes one message of a peer in.
func (m *machine) received(e receivedEvent) {
	p := m.peers[e.peer]
	if p == nil || !p.connected {
		return
	}
	p.heard = m.now
	trusted := m.trusted(p)
	if e.message.Account != nil {
		if p.takeAccount(e.message.Account); p.suspended {
			m.rests(p)
		} else {
			m.resumes(p)
		}
	}
	for _, b := range e.message.Blocks {
		m.deliver(p, b)
	}
	for _, pr := range e.message.Presences {
		if pr.Have {
			m.have(p, pr)
		} else {
			m.dontHave(p, pr)
		}
	}
	if e.message.Account != nil && !trusted && m.trusted(p) {
		m.revive(p) // after the blocks: none of them is to be asked for now
	}
	m.checkUnasked(p)
}

// deliver takes a verified block in. A wanted one ends in wantStoring, whoever was asked for it.
func (m *machine) deliver(p *peerState, b blocks.Block) {
	n := int64(len(b.RawData()))
	w := m.wants[b.Cid()]
	if w == nil {
		w, b = m.namesake(b)
	}
	if w == nil || w.state == wantStoring {
		m.unwanted(p, b, n)
		return
	}
	m.sold(p)
	if a := w.askOf(p); a != nil {
		m.charge(a, uint64(n))
		m.drop(a)
		if a.alone && !a.expired && p.blocks == 0 {
			p.alone(m.now-a.at, n)
		}
	}
	m.recovered(p)
	p.arrived(m.now, n, p.blocks > 0)
	p.delivered += n
	m.join(w.session, p).cold = 0
	w.session.arrived(w, int(n))
	m.forestalled(w)
	m.withdraw(w)
	w.leave()
	w.state, w.block = wantStoring, b
	m.storing += n
	m.stats.Bytes += uint64(n)
	m.out.stores = append(m.out.stores, Arrival{Block: b, Place: w.Place, Passing: w.Passing})
}

// namesake returns the want for a block's bytes under another CID of the same multihash, and the block
// under that CID; without one, nil and the block as it was. Peers may keep blocks by multihash alone.
func (m *machine) namesake(b blocks.Block) (*want, blocks.Block) {
	c := b.Cid()
	hash := c.Hash()
	others := []cid.Cid{cid.NewCidV1(cid.Raw, hash), cid.NewCidV1(cid.DagProtobuf, hash)}
	if p := c.Prefix(); p.MhType == multihash.SHA2_256 && p.MhLength == sha256Bytes {
		others = append(others, cid.NewCidV0(hash))
	}
	for _, o := range others {
		if w := m.wants[o]; w != nil && o != c {
			if named, err := blocks.NewBlockWithCid(b.RawData(), o); err == nil {
				return w, named
			}
		}
	}
	return nil, b
}

// recovered forgets a peer's failures, as it delivers.
func (m *machine) recovered(p *peerState) {
	away := m.now < p.backoff
	p.failures, p.backoff = 0, 0
	if away {
		m.revive(p)
	}
}

// unwanted counts a block that no want is open for. Coming late is no fault.
func (m *machine) unwanted(p *peerState, b blocks.Block, n int64) {
	p.age(m.recent.laps, &m.limits)
	known := m.wants[b.Cid()] != nil || m.recent.has(b.Cid())
	if known || p.excused > 0 {
		if !known {
			p.excused--
		}
		p.arrived(m.now, n, p.blocks > 0)
		m.stats.Late++
		m.stats.LateBytes += uint64(n)
		return
	}
	p.unasked += n
	p.unknown++
	m.stats.Unasked++
	m.stats.Unwanted += uint64(n)
	if p.unasked > p.delivered {
		p.failed(m.now, &m.limits)
		m.armPeer(p)
	}
}

// checkUnasked bans a peer that gives more of what nobody asked for than of what somebody did, or more
// than a few such blocks, as one does whose blocks are not what they are said to be.
func (m *machine) checkUnasked(p *peerState) {
	if p.unasked > m.limits.UnaskedBytes && p.unasked > p.delivered || p.unknown > m.limits.UnaskedBlocks {
		m.out.unasked = append(m.out.unasked, p.id)
		m.ban(p, errUnasked)
	}
}

// stored ends a want: everybody who waits for it is told.
func (m *machine) stored(c cid.Cid, err error) {
	w := m.wants[c]
	if w == nil || w.state != wantStoring {
		return
	}
	m.storing -= int64(len(w.block.RawData()))
	for _, id := range w.intents {
		m.endIntent(id)
	}
	m.settle(w)
	m.stats.Resolved++
	m.stats.BlockTime.observe(m.now - w.begun)
	m.out.resolved = append(m.out.resolved, resolution{w.intents, w.block, err})
	m.end(w)
}
