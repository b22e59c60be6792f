package test

import (
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// trade is a seller and a buyer between whom money and blocks go, so slowly that there is a middle.
type trade struct {
	*testing.T
	*swarm.Swarm
	seller, buyer *swarm.Node
	paid          uint64 // in the rounds before
}

const (
	tradePrice = 1000     // a MiB
	tradeBytes = 32 << 20 // of each file
)

func newTrade(t *testing.T) *trade {
	t.Helper()
	s := swarm.New(t)
	d := &trade{T: t, Swarm: s}
	d.seller = s.Start("seller", "--price", itoa(tradePrice), "--credit", "2MiB", "--peer-upload-rate", "12MiB")
	d.buyer = s.Start("buyer", "--max-price", itoa(tradePrice), "--budget", "1000000", "--deposit", itoa(tradeDeposit))
	d.buyer.Connect(d.seller)
	return d
}

// interrupted gets a new file, and kills one side when some of it has arrived; then gets all of it.
func (d *trade) interrupted(round int, who *swarm.Node) {
	d.Helper()
	file := d.RandomFile(tradeBytes, uint64(round), "file")
	root := d.seller.Add(file)
	out := d.Path("out" + itoa(round))
	before := d.buyer.Figure(bytesIn)
	get := d.Spawn(d.buyer.Command("get", root, "-o", out))
	d.Eventually("some of it has arrived", func() bool { return d.buyer.Figure(bytesIn) > before+tradeBytes/4 })
	if !get.Running() { // asked before: without its daemon it ends too
		d.Errorf("round %d: %s is killed when all is over", round, who.Name)
	}
	who.Kill()
	who.Start()
	get.Wait(patience) // it may fail, if the daemon that it talked to is gone
	d.Eventually("the transfer is completed", func() bool {
		_, err := d.buyer.Run("get", root, "-o", out, "--force")
		return err == nil
	})
	d.MustSh(`cmp "$1" "$2"; rm "$2"`, file, out)
	d.agree(round, who)
}

// agree waits until both sides say the same of every channel, and checks all sums.
func (d *trade) agree(round int, killed *swarm.Node) {
	d.Helper()
	seller, buyer := d.seller.Identity().ID, d.buyer.Identity().ID
	var paid, earned map[string]swarm.Channel
	d.Eventually("both books agree", func() bool {
		paid, earned = d.buyer.Channels(), d.seller.Channels()
		for id, c := range paid {
			if e := earned[id]; e.Amount != c.Amount && c.Amount > 0 {
				return false
			}
		}
		return d.buyer.Figure(owed) == 0
	})
	var sum uint64
	for id, c := range paid {
		sum += c.Amount
		if c.Direction != "paying" || c.Peer != seller || c.Amount > c.Deposit {
			d.Errorf("round %d: the buyer's channel %+v", round, c)
		}
		if e, ok := earned[id]; ok && (e.Direction != "receiving" || e.Peer != buyer || e.Deposit != c.Deposit || e.Settled > c.Amount) {
			d.Errorf("round %d: the seller's channel %+v, the buyer's %+v", round, e, c)
		}
	}
	for id := range earned {
		if _, ok := paid[id]; !ok {
			d.Errorf("round %d: the buyer knows nothing of %+v", round, earned[id])
		}
	}
	out, in := d.buyer.Peers()[seller].Paid, d.seller.Peers()[buyer].Earned
	if out != in || out != sum {
		d.Errorf("round %d: paid %d, earned %d, %d in all channels", round, out, in, sum)
	}
	// What is agreed on is the price of each block, rounded up; a killed buyer may have lost some that it had paid for.
	most := uint64(tradePrice*(tradeBytes>>20) + 10)
	if killed == d.buyer {
		most += most / 2
	}
	if this := out - d.paid; this > most || this < tradePrice*(tradeBytes>>20)/2 {
		d.Errorf("round %d: paid %d, at most %d was agreed on", round, this, most)
	}
	d.paid = out
	balances, held := d.Balances()
	total := held
	for _, n := range balances {
		total += n
	}
	d.Logf("round %d, %s killed: paid %d through %d channels; balances %v, %d held", round, killed.Name, out, len(paid), balances, held)
	if total != 0 {
		d.Errorf("round %d: the ledger's balances and deposits come to %d", round, total)
	}
}

// TestBooksAgreeAfterKills kills the buyer and the seller in the middle of transfers that are paid for.
func TestBooksAgreeAfterKills(t *testing.T) {
	t.Parallel()
	d := newTrade(t)
	for i := range booksRounds {
		d.interrupted(2*i+1, d.buyer)
		d.interrupted(2*i+2, d.seller)
	}
	// Settled and closed, the seller has what was paid to it.
	paid := d.buyer.Peers()[d.seller.Identity().ID].Paid
	d.seller.Must("channels", "close", d.buyer.Identity().ID)
	balances, held := d.Balances()
	if got := balances[d.seller.Identity().ID]; got != int64(paid) || balances[d.buyer.Identity().ID] != -got || held != 0 {
		t.Errorf("paid %d; after the settlement: %v, %d held", paid, balances, held)
	}
}
