package exchange

import (
	"slices"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// A block that nobody is known to have, or that is slow to come, may be had in another way: the driver is told of it,
// and may come back with the block. And somebody may want to know no more than whether a peer has a block.

// rescuedEvent: the way beside the network gave a block, or did not.
type rescuedEvent struct {
	key   cid.Cid
	block blocks.Block // verified; nil with err
	err   error
}

// maxRescueDatasets is how many datasets a want's block is rescued for. Further ones join the want.
const maxRescueDatasets = 4

// late is the timer of a want that has not come in time, and for what it is to be rescued.
type late struct {
	timer
	want *want
	// datasets are those of the intents that want a rescue, to be tried in turn. They are kept beside Want.Dataset,
	// which is wherever the block is sought now.
	datasets []cid.Cid
}

// ring has a want rescued that is slow to come.
func (l *late) ring(m *machine) {
	if l.want.state != wantStoring {
		m.rescue(l.want)
	}
}

// enter counts what an intent asks for beside the block.
func (m *machine) enter(w *want, e wantEvent) {
	if e.missing {
		w.watchers = append(w.watchers, e.intent)
		if w.lacked && w.state == wantSeeking {
			m.out.lacking = append(m.out.lacking, e.intent)
		}
	}
	if e.probe {
		w.probes = append(w.probes, e.intent)
		return
	}
	if e.rescue {
		m.enterRescue(w, e.want.Dataset)
	}
	if len(w.probes) > 0 && w.waits() { // more than a word is wanted now
		m.enqueue(w)
	}
}

// enterRescue has a want rescued for a dataset as soon as it is late or lacking.
func (m *machine) enterRescue(w *want, dataset cid.Cid) {
	if w.late == nil {
		w.late = &late{want: w}
		w.late.owner = w.late
		m.timers.set(&w.late.timer, m.now+m.limits.RescueDelay)
	}
	if l := w.late; len(l.datasets) < maxRescueDatasets && !slices.Contains(l.datasets, dataset) {
		l.datasets = append(l.datasets, dataset)
	}
}

// lacks notes that nobody is known who has a block.
func (m *machine) lacks(w *want) {
	w.lacked = true
	if len(w.watchers) > 0 {
		m.out.lacking = append(m.out.lacking, w.watchers...)
	}
	m.rescue(w)
}

// rescue has a want's block looked for in another way, if that is wanted and not done already.
func (m *machine) rescue(w *want) {
	if w.late == nil || w.rescuing {
		return
	}
	w.rescuing = true
	m.stats.Rescues++
	d := w.late.datasets
	o := w.Want
	o.Dataset = d[0]
	w.late.datasets = append(d[1:len(d):len(d)], d[0])
	m.out.rescues = append(m.out.rescues, o)
}

// rescued takes in how a rescue went. A block ends its want in wantStoring. A failed rescue is begun anew when the
// session has looked around again in vain.
func (m *machine) rescued(e rescuedEvent) {
	w := m.wants[e.key]
	if w == nil || !w.rescuing {
		return
	}
	w.rescuing = false
	if e.err != nil || w.state == wantStoring {
		return
	}
	m.stats.Rescued++
	m.withdraw(w)
	w.leave()
	w.state, w.block = wantStoring, e.block
	m.storing += int64(len(e.block.RawData()))
	m.out.stores = append(m.out.stores, Arrival{Block: e.block, Place: w.Place})
}

// unwatch ends what a want that ends has going on beside the network.
func (m *machine) unwatch(w *want) {
	if w.late == nil {
		return
	}
	m.timers.stop(&w.late.timer)
	if w.rescuing {
		w.rescuing = false
		if i := slices.IndexFunc(m.out.rescues, func(o Want) bool { return o.CID.Equals(w.CID) }); i >= 0 {
			m.out.rescues = slices.Delete(m.out.rescues, i, i+1) // it has not begun
			return
		}
		m.out.unrescued = append(m.out.unrescued, w.CID)
	}
}

// onlyProbed says that nobody wants the block itself.
func (w *want) onlyProbed() bool { return len(w.probes) == len(w.intents) }

// probe answers who wants to know whether anybody has a block, if somebody does. True says that nobody wants more,
// and the want has ended or is sought.
func (m *machine) probe(w *want) bool {
	if len(w.probes) == 0 {
		return false
	}
	found := false
	for _, a := range w.asks {
		found = found || a.answer == answerHave
	}
	only := w.onlyProbed()
	if !found {
		if only {
			m.seek(w)
		}
		return only
	}
	probes := slices.Clone(w.probes)
	for _, id := range probes {
		m.endIntent(id)
		w.forget(id)
	}
	m.out.resolved = append(m.out.resolved, resolution{intents: probes, err: errProbed})
	if only {
		m.withdraw(w)
		m.end(w)
	}
	return only
}
