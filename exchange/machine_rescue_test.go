package exchange

import (
	"errors"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// onePeer makes a machine with one connected peer.
func onePeer(t *testing.T) *machine {
	t.Helper()
	m := newMachine(Limits{}.withDefaults())
	m.Tick(time.Hour)
	m.Step(connectedEvent{"p", true})
	m.Ready()
	return m
}

// told is what a peer is told in what is to be done.
func told(r ready, p peer.ID) (kinds []EntryKind) {
	for _, s := range r.sends {
		for _, e := range s.entries {
			if s.peer == p {
				kinds = append(kinds, e.Kind)
			}
		}
	}
	return kinds
}

func dontHave(m *machine, p peer.ID, b blocks.Block) {
	m.Step(receivedEvent{p, Incoming{Presences: []Presence{{CID: b.Cid()}}}})
}

// TestLostBlocksAreRescued: as soon as everybody has said not to have a block, and no more than once at a time.
func TestLostBlocksAreRescued(t *testing.T) {
	m := onePeer(t)
	b := leaf(1, 1000)
	m.Step(wantEvent{intent: 1, want: Want{CID: b.Cid()}, rescue: true})
	m.Step(wantEvent{intent: 2, want: Want{CID: b.Cid()}, missing: true})
	if r := m.Ready(); len(r.rescues) != 0 || len(r.lacking) != 0 {
		t.Fatal("rescued before anybody was asked")
	}
	dontHave(m, "p", b)
	r := m.Ready()
	if len(r.rescues) != 1 || r.rescues[0].CID != b.Cid() || len(r.lacking) != 1 || r.lacking[0] != 2 {
		t.Fatalf("rescues %v, lacking %v", r.rescues, r.lacking)
	}
	m.Tick(m.now + time.Minute)
	if r := m.Ready(); len(r.rescues) != 0 {
		t.Error("rescued twice at a time")
	}
	m.Step(rescuedEvent{b.Cid(), nil, errors.New("too few")})
	m.Tick(m.now + time.Minute)
	m.Ready()
	dontHave(m, "p", b) // it was asked again
	if r := m.Ready(); len(r.rescues) != 1 {
		t.Errorf("%d rescues after one that failed and another look around", len(r.rescues))
	}
	m.Step(rescuedEvent{b.Cid(), b, nil})
	r = m.Ready()
	if len(r.stores) != 1 || r.stores[0].Block != b {
		t.Fatalf("stores %v", r.stores)
	}
	m.Step(storedEvent{keys: []cid.Cid{b.Cid()}})
	r = m.Ready()
	if len(r.resolved) != 1 || len(r.resolved[0].intents) != 2 || r.resolved[0].block != b || len(r.unrescued) != 0 {
		t.Errorf("resolved %v", r.resolved)
	}
	if s := m.figures(); s.Rescues != 2 || s.Rescued != 1 || s.Wants != 0 || s.Storing != 0 {
		t.Errorf("%+v", s)
	}
	checkMachine(t, m)
}

// TestRescuesAreForTheirDataset: a block that is sought by way of another dataset meanwhile is still rescued for the one
// that it was asked to be rescued for, and for each in turn where there are several.
func TestRescuesAreForTheirDataset(t *testing.T) {
	m := onePeer(t)
	b, first, second, chunk := leaf(1, 1000), leaf(2, 10).Cid(), leaf(3, 10).Cid(), leaf(4, 10).Cid()
	m.Step(wantEvent{intent: 1, want: Want{CID: b.Cid(), Dataset: first}, rescue: true})
	m.Step(wantEvent{intent: 2, want: Want{CID: b.Cid(), Dataset: chunk}})
	m.Ready()
	rescue := func() cid.Cid { // the next one's dataset
		for range 10 {
			dontHave(m, "p", b)
			if r := m.Ready(); len(r.rescues) == 1 {
				return r.rescues[0].Dataset
			}
			m.Tick(m.now + time.Minute)
		}
		t.Fatal("no rescue")
		return cid.Undef
	}
	for i, dataset := range []cid.Cid{first, first, first, second, first} {
		if got := rescue(); got != dataset {
			t.Fatalf("rescue %d is for %s, want %s", i, got, dataset)
		}
		if i == 1 {
			m.Step(wantEvent{intent: 3, want: Want{CID: b.Cid(), Dataset: second}, rescue: true})
		}
		m.Step(rescuedEvent{b.Cid(), nil, errors.New("no manifest is known")})
	}
	checkMachine(t, m)
}

// TestSlowBlocksAreRescuedToo: a peer has it, and does not give it.
func TestSlowBlocksAreRescuedToo(t *testing.T) {
	m := onePeer(t)
	b := leaf(1, 1000)
	m.Step(wantEvent{intent: 1, want: Want{CID: b.Cid()}, rescue: true})
	m.Ready()
	m.Step(receivedEvent{"p", Incoming{Presences: []Presence{{CID: b.Cid(), Have: true}}}})
	if r := m.Ready(); len(told(r, "p")) == 0 || len(r.rescues) != 0 {
		t.Fatalf("told %v, rescues %v", told(r, "p"), r.rescues)
	}
	m.Tick(m.now + m.limits.RescueDelay)
	if r := m.Ready(); len(r.rescues) != 1 {
		t.Fatal("not rescued in time")
	}
	// The peer is first after all: the rescue is taken back.
	m.Step(receivedEvent{"p", Incoming{Blocks: []blocks.Block{b}}})
	m.Step(storedEvent{keys: []cid.Cid{b.Cid()}})
	if r := m.Ready(); len(r.unrescued) != 1 || len(r.resolved) != 1 {
		t.Errorf("unrescued %v, resolved %v", r.unrescued, r.resolved)
	}
	m.Step(rescuedEvent{b.Cid(), b, nil}) // too late
	checkMachine(t, m)
	// So it is when nobody wants it any more.
	m.Step(wantEvent{intent: 2, want: Want{CID: leaf(2, 1).Cid()}, rescue: true})
	m.Ready()
	m.Tick(m.now + m.limits.RescueDelay)
	m.Ready()
	m.Step(forgetEvent{2})
	if r := m.Ready(); len(r.unrescued) != 1 {
		t.Errorf("unrescued %v", r.unrescued)
	}
	m.Tick(m.now + time.Hour)
	if r := m.Ready(); len(r.rescues) != 0 {
		t.Error("rescued what nobody wants")
	}
	checkMachine(t, m)
}

// TestLateWatchersAreToldAtOnce: who comes while a block that nobody has is sought hears of that as those before did,
// and so does a probe; not when a peer has said to have it since.
func TestLateWatchersAreToldAtOnce(t *testing.T) {
	m := onePeer(t)
	b := leaf(1, 1000)
	m.Step(wantEvent{intent: 1, want: Want{CID: b.Cid()}, rescue: true})
	m.Step(wantEvent{intent: 2, want: Want{CID: b.Cid()}, missing: true})
	if r := m.Ready(); len(r.lacking) != 0 {
		t.Fatal("lacking before anybody was asked")
	}
	dontHave(m, "p", b)
	m.Ready()
	m.Step(wantEvent{intent: 3, want: Want{CID: b.Cid()}, missing: true})
	m.Step(wantEvent{intent: 4, want: Want{CID: b.Cid()}, missing: true, probe: true})
	if r := m.Ready(); len(r.lacking) != 2 || r.lacking[0] != 3 || r.lacking[1] != 4 {
		t.Errorf("lacking %v", r.lacking)
	}
	m.Step(receivedEvent{"p", Incoming{Presences: []Presence{{CID: b.Cid(), Have: true}}}})
	m.Step(wantEvent{intent: 5, want: Want{CID: b.Cid()}, missing: true})
	if r := m.Ready(); len(r.lacking) != 0 || len(r.resolved) != 1 || r.resolved[0].intents[0] != 4 {
		t.Errorf("lacking %v, resolved %v", r.lacking, r.resolved)
	}
	checkMachine(t, m)
}

// TestPassingBlocks: a block that is not to be kept is handed on as such, unless somebody else wants it kept.
func TestPassingBlocks(t *testing.T) {
	for _, c := range []struct{ first, second, want bool }{{true, true, true}, {true, false, false}, {false, true, false}} {
		m := onePeer(t)
		b := leaf(1, 1000)
		m.Step(wantEvent{intent: 1, want: Want{CID: b.Cid(), Passing: c.first}})
		m.Step(wantEvent{intent: 2, want: Want{CID: b.Cid(), Passing: c.second}})
		m.Ready()
		m.Step(receivedEvent{"p", Incoming{Blocks: []blocks.Block{b}}})
		if r := m.Ready(); len(r.stores) != 1 || r.stores[0].Passing != c.want {
			t.Errorf("%+v: %+v", c, r.stores)
		}
		checkMachine(t, m)
	}
}

// TestProbesFetchNothing: who only wants to know whether somebody has a block gets no block.
func TestProbesFetchNothing(t *testing.T) {
	m := onePeer(t)
	b := leaf(1, mib)
	m.Step(wantEvent{intent: 1, want: Want{CID: b.Cid()}, probe: true})
	if got := told(m.Ready(), "p"); len(got) != 1 || got[0] != WantHave {
		t.Fatalf("the peer was told %v", got)
	}
	m.Step(receivedEvent{"p", Incoming{Presences: []Presence{{CID: b.Cid(), Have: true}}}})
	r := m.Ready()
	if got := told(r, "p"); len(got) != 1 || got[0] != Cancel {
		t.Errorf("the peer was told %v", got)
	}
	if len(r.resolved) != 1 || !errors.Is(r.resolved[0].err, errProbed) || len(m.wants) != 0 {
		t.Errorf("resolved %v, %d wants", r.resolved, len(m.wants))
	}
	checkMachine(t, m)
	// Nobody has it: the probe waits, and ends with who asks.
	m.Step(wantEvent{intent: 2, want: Want{CID: leaf(2, 1).Cid()}, probe: true})
	m.Ready()
	dontHave(m, "p", leaf(2, 1))
	if r := m.Ready(); len(r.resolved) != 0 || len(r.rescues) != 0 {
		t.Errorf("resolved %v, rescues %v", r.resolved, r.rescues)
	}
	m.Step(forgetEvent{2})
	m.Ready()
	if len(m.wants) != 0 {
		t.Errorf("%d wants are left", len(m.wants))
	}
	// A reader beside a probe gets the block, whoever was first.
	for i, order := range [][2]bool{{true, false}, {false, true}} {
		b := leaf(10+i, 1000)
		for j, probe := range order {
			m.Step(wantEvent{intent: intentID(10 + 2*i + j), want: Want{CID: b.Cid()}, probe: probe})
		}
		m.Ready()
		m.Step(receivedEvent{"p", Incoming{Presences: []Presence{{CID: b.Cid(), Have: true}}}})
		m.Ready()
		m.Step(receivedEvent{"p", Incoming{Blocks: []blocks.Block{b}}})
		m.Step(storedEvent{keys: []cid.Cid{b.Cid()}})
		m.Ready()
		if len(m.wants) != 0 || len(m.intents) != 0 {
			t.Errorf("%d wants, %d intents are left", len(m.wants), len(m.intents))
		}
		checkMachine(t, m)
	}
}
