package exchange

// Usage returns how much of each limit is in use, in the order of [Limits]; of limits that hold for each
// peer, session or download it is the greatest use. It is empty before Run and after it.
func (e *Exchange) Usage() []Usage {
	var us []Usage
	e.ask(func(m *machine) { us = m.usage() })
	if us == nil {
		return nil
	}
	return append(us,
		Usage{"Wants", int64(len(e.slots)), int64(e.limits.Wants)},
		Usage{"Rescues", int64(len(e.rescuers)), int64(e.limits.Rescues)},
		Usage{"StoreWorkers", e.storing.busy.Load(), int64(e.limits.StoreWorkers)},
		Usage{"Downloads", int64(len(e.downloads.places)), int64(e.limits.Downloads)},
		e.downloads.greatest("DownloadWants", e.limits.DownloadWants, func(t *transfer) int64 { return t.under.Load() }),
		e.downloads.greatest("DownloadLinks", e.limits.DownloadLinks, func(t *transfer) int64 { return t.links.Load() }),
		e.downloads.greatest("DownloadNodes", e.limits.DownloadNodes, func(t *transfer) int64 { return t.nodes.Load() }),
	)
}

// greatest returns the greatest use of a limit that each download has.
func (ds *downloads) greatest(name string, limit int, of func(*transfer) int64) Usage {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	u := Usage{Name: name, Limit: int64(limit)}
	for _, t := range ds.open {
		u.Used = max(u.Used, of(t))
	}
	return u
}

// usage returns how much of each limit the machine uses.
func (m *machine) usage() []Usage {
	l := &m.limits
	var asked, listed, askers, dues, dials, unasked, unknown int64
	for _, p := range m.peers {
		asked, listed = max(asked, p.bytes), max(listed, int64(len(p.asks)))
		dues, unasked = max(dues, int64(p.dues)), max(unasked, p.unasked)
		unknown = max(unknown, int64(p.unknown))
	}
	for _, s := range m.order {
		dials = max(dials, int64(s.dialing))
	}
	for _, w := range m.wants {
		askers = max(askers, int64(w.pending(WantHave)))
	}
	return []Usage{
		{"TotalBytes", m.bytes + m.storing, l.TotalBytes},
		{"PeerBytes", asked, l.PeerBytes},
		{"PeerWants", listed, int64(l.PeerWants)},
		{"PeersPerBlock", askers, int64(l.PeersPerBlock)},
		{"ActivePeers", int64(len(m.active)), int64(l.ActivePeers)},
		{"KnownPeers", int64(len(m.known)), int64(l.KnownPeers)},
		{"Sessions", int64(m.idle), int64(l.Sessions)},
		{"DayBudget", int64(min(m.money.today.plus(m.money.committed), maxInt64)), int64(min(l.DayBudget, maxInt64))},
		{"Accounts", int64(len(m.money.order)), int64(l.Accounts)},
		{"PeerDues", dues, int64(l.PeerDues)},
		{"Dials", int64(m.dialing), int64(l.Dials)},
		{"DialsPerSession", dials, int64(l.DialsPerSession)},
		{"Searches", int64(m.searching), int64(l.Searches)},
		{"HedgeBytes", max(0, int64(m.stats.HedgedBytes)-int64(m.stats.Bytes)*l.HedgePercent/100), l.HedgeBytes},
		{"UnaskedBlocks", unknown, int64(l.UnaskedBlocks)},
		{"UnaskedBytes", unasked, l.UnaskedBytes},
		{"StoreBytes", m.storing, l.StoreBytes},
	}
}

// maxInt64 is the greatest amount that a usage tells.
const maxInt64 = Amount(1<<63 - 1)
