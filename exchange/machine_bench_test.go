package exchange

import (
	"fmt"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// BenchmarkMachine measures how many blocks a second the machine can decide about: each is wanted,
// asked for, received and stored, with 1,000 under way, at a number of peers.
func BenchmarkMachine(b *testing.B) {
	for _, peers := range []int{1, 5, 25} {
		b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) { benchMachine(b, peers) })
	}
}

func benchMachine(b *testing.B, peers int) {
	m := newMachine(Limits{}.withDefaults())
	for i := range peers {
		m.Step(connectedEvent{peer.ID(fmt.Sprint(i)), true})
	}
	var all []blocks.Block
	for i := range 1 << 14 {
		all = append(all, leaf(i, 100))
	}
	held := make(map[cid.Cid]blocks.Block)
	for _, x := range all {
		held[x.Cid()] = x
	}
	dataset := all[0].Cid()
	begun, ended, events := 0, 0, 0
	var inbox []outgoing
	act := func() {
		r := m.Ready()
		inbox = append(inbox, r.sends...)
		if len(r.stores) > 0 {
			keys := make([]cid.Cid, len(r.stores))
			for i, a := range r.stores {
				keys[i] = a.Block.Cid()
			}
			m.Step(storedEvent{keys: keys})
			events++
		}
		ended += len(r.resolved)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for ended < b.N {
		m.Tick(m.now + 100*time.Microsecond)
		for ; begun < b.N && begun < ended+1000; begun++ {
			m.Step(wantEvent{intent: intentID(begun), want: Want{CID: all[begun%len(all)].Cid(), Dataset: dataset}, bulk: true})
			events++
		}
		act()
		if len(inbox) > 0 {
			o := inbox[0]
			inbox = inbox[1:]
			m.Step(receivedEvent{o.peer, answerTo(o, held)})
			events++
			act()
		}
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}

// answerTo is what a peer that has everything says.
func answerTo(o outgoing, held map[cid.Cid]blocks.Block) (in Incoming) {
	for _, e := range o.entries {
		switch e.Kind {
		case WantBlock:
			in.Blocks = append(in.Blocks, held[e.CID])
		case WantHave:
			in.Presences = append(in.Presences, Presence{CID: e.CID, Have: true})
		}
	}
	return in
}
