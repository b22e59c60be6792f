package test

import (
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// market is a free seller, slow, and two that take money, all with the same data.
type market struct {
	*swarm.Swarm
	free, cheap, dear *swarm.Node
	ids               [3]string // of those, in that order
	big, small        ware
}

// ware is a file that all sellers have.
type ware struct {
	file, root string
	bytes      int64
}

const (
	marketBytes = 40 << 20 // of the big file
	smallBytes  = 12 << 20
	cheapPrice  = 1000 // a MiB
	dearPrice   = 8000
)

func newMarket(t *testing.T) *market {
	t.Helper()
	m := &market{Swarm: swarm.New(t)}
	m.big = ware{file: m.RandomFile(marketBytes, 7, "big"), bytes: marketBytes}
	m.small = ware{file: m.RandomFile(smallBytes, 8, "small"), bytes: smallBytes}
	m.free = m.Start("free", "--peer-upload-rate", "6MiB")
	m.cheap = m.Start("cheap", "--price", itoa(cheapPrice), "--peer-upload-rate", "16MiB")
	m.dear = m.Start("dear", "--price", itoa(dearPrice), "--peer-upload-rate", "16MiB")
	for i, n := range []*swarm.Node{m.free, m.cheap, m.dear} {
		m.big.root, m.small.root, m.ids[i] = n.Add(m.big.file), n.Add(m.small.file), n.Identity().ID
	}
	return m
}

// buyer is a node with nothing, connected to some sellers.
func (m *market) buyer(name string, sellers []*swarm.Node, flags ...string) *swarm.Node {
	m.TB.Helper()
	n := m.Start(name, flags...)
	for _, s := range sellers {
		n.Connect(s)
	}
	return n
}

// bought gets a file and returns how many bytes of it each seller gave.
func (m *market) bought(n *swarm.Node, w ware, flags ...string) (free, cheap, dear int64) {
	m.TB.Helper()
	out := m.Path("out of " + n.Name)
	n.Must(append([]string{"get", w.root, "-o", out}, flags...)...)
	m.MustSh(`cmp "$1" "$2"`, w.file, out)
	of := n.Peers()
	from := func(s string) int64 { return int64(of[s].BytesIn) }
	free, cheap, dear = from(m.ids[0]), from(m.ids[1]), from(m.ids[2])
	if free+cheap+dear < w.bytes {
		m.TB.Errorf("%s has the file of others than the sellers: %+v", n.Name, of)
	}
	m.TB.Logf("%s: %.1f MiB of the free one, %.1f of the cheap one, %.1f of the dear one",
		n.Name, float64(free)/(1<<20), float64(cheap)/(1<<20), float64(dear)/(1<<20))
	return free, cheap, dear
}

// paidTo is what a buyer has paid all sellers, once nothing is owed.
func (m *market) paid(n *swarm.Node) (sum uint64) {
	m.TB.Helper()
	m.Eventually(n.Name+" owes nothing", func() bool { return n.Figure(owed) == 0 })
	of := n.Peers()
	for _, id := range m.ids {
		sum += of[id].Paid
	}
	return sum
}

// TestWhomToPay lets a buyer choose between a free peer that is slow and two that take money: by what its
// time is worth to it.
func TestWhomToPay(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	all := []*swarm.Node{m.free, m.cheap, m.dear}
	flags := []string{"--max-price", "10000", "--budget", "100000000", "--per-second"}

	patient := m.buyer("patient", all, append(flags, "0")...)
	free, cheap, dear := m.bought(patient, m.small, flags[:4]...)
	if free < smallBytes*9/10 || cheap+dear > smallBytes/10 {
		t.Errorf("whose time is worth nothing did not take nearly all from the free peer")
	}
	if paid, most := m.paid(patient), uint64(cheap+dear)*dearPrice>>20+100; paid > most {
		t.Errorf("paid %d, at most %d was agreed on", paid, most)
	}

	patient.Kill() // it has the data now, and asks nothing for it
	hasty := m.buyer("hasty", all, append(flags, "1000000000")...)
	if _, cheap, dear = m.bought(hasty, m.big); cheap+dear < marketBytes*6/10 {
		t.Errorf("whose time is worth much did not take most from the peers that are fast")
	}
	if paid := m.paid(hasty); paid < uint64(cheap)*cheapPrice>>20 {
		t.Errorf("paid %d", paid)
	}

	// Of two that are equally fast the cheaper one serves more.
	hasty.Kill()
	m.free.Kill()
	thrifty := m.buyer("thrifty", all[1:], append(flags, "1000")...)
	if _, cheap, dear = m.bought(thrifty, m.big); cheap <= dear {
		t.Errorf("the dear one served more than the cheap one")
	}
}

// TestLimitsOfSpending meets each limit of what may be paid.
func TestLimitsOfSpending(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	both := []*swarm.Node{m.cheap, m.dear}
	b := m.buyer("b", both)
	out := m.Path("nothing")
	refused(t, b, 1, []string{"too dear", "cheapest offer is", m.ids[1], "limit is 0"}, "get", m.small.root, "-o", out)
	refused(t, b, 1, []string{"too dear", "cheapest offer is 1000 per MiB", m.ids[1], "limit is 999"},
		"get", m.small.root, "-o", out, "--max-price", "999", "--budget", "1000000")
	refused(t, b, 1, []string{"budget", "of 10000 for this dataset are spent"},
		"get", m.small.root, "-o", out, "--max-price", "1000", "--budget", "10000")
	m.MustSh(`test ! -e "$1"`, out)
	if paid := m.paid(b); paid > 10_000 || paid < 8000 {
		t.Errorf("paid %d with a budget of 10000", paid)
	}
	if free, cheap, dear := m.bought(b, m.small, "--max-price", "1000", "--budget", "50000"); free+dear > 0 || cheap < smallBytes {
		t.Errorf("with enough money: %d, %d and %d bytes", free, cheap, dear)
	}
	if paid := m.paid(b); paid < 12_000 || paid > 12_100 {
		t.Errorf("paid %d for %d MiB", paid, smallBytes>>20)
	}
}

// TestDayBudgetHoldsOverARestart spends what may be spent in a day, and tries for more with a new process.
func TestDayBudgetHoldsOverARestart(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	const budget = 6_000
	begun := time.Now().UTC().YearDay()
	b := m.buyer("b", []*swarm.Node{m.cheap}, "--max-price", "1000", "--budget", "1000000", "--day-budget", itoa(budget))
	for range 3 {
		refused(t, b, 1, []string{"budget", itoa(budget) + " for today are spent"}, "get", m.small.root, "-o", m.Path("out"))
		days := uint64(1)
		if time.Now().UTC().YearDay() != begun {
			days = 2 // a day has ended meanwhile
		}
		if paid := m.paid(b); paid > days*budget || paid < budget*8/10 {
			t.Errorf("paid %d with a budget of %d a day", paid, budget)
		}
		if n := b.Figure(spentToday); n > budget {
			t.Errorf("%d spent today of %d", n, budget)
		}
		b.Kill()
		b.Start()
		m.Eventually("the buyer is connected again", func() bool { return b.Peers()[m.ids[1]].Connected })
	}
}
