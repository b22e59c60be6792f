package exchange

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
)

// manners are the ways of peers in a crowd, the first of them that of the first peer.
var manners = []struct {
	name string
	set  func(*simPeer)
}{
	{"honest", func(p *simPeer) {}},
	{"slow", func(p *simPeer) { p.rate /= 100 }},
	{"silent", func(p *simPeer) { p.hung = true }},
	{"fickle", func(p *simPeer) { p.fickle = true }},
	{"corrupt", func(p *simPeer) { p.corrupts = true }},
	{"unasked", func(p *simPeer) { p.unasked = true }},
	{"twice", func(p *simPeer) { p.twice = true }},
	{"floods", func(p *simPeer) { p.floods = flood }},
	{"garbles", func(p *simPeer) { p.garbles = true }},
	{"priced", func(p *simPeer) { p.price = 100 }},
	{"priced liar", func(p *simPeer) { p.price, p.promises = 10, true }},
	{"too dear", func(p *simPeer) { p.price = 1 << 40 }},
	{"boundless", func(p *simPeer) { p.price = 1<<64 - 1 }},
	{"old", func(p *simPeer) { p.old = true }},
	{"far", func(p *simPeer) { p.latency = 3 * time.Second }},
	{"lossy", func(p *simPeer) { p.loses = 0.2 }},
}

// flood is a list of presences for blocks that nobody wants, as long as a message has room for.
var flood = func() (ps []Presence) {
	c := leaf(1<<50, 8).Cid()
	for i := range 2000 {
		ps = append(ps, Presence{CID: c, Have: true, Price: Amount(i), Bytes: 1 << 60})
	}
	return ps
}()

// crowd is a number of peers that are there now and then.
type crowd struct {
	*sim
	random *rand.Rand
	peers  []*simPeer
}

// gather brings up n peers of all manners. The first has all blocks, the others three of five.
func (s *sim) gather(n int, seed uint64, all []blocks.Block) *crowd {
	c := &crowd{sim: s, random: rand.New(rand.NewPCG(seed, 2))}
	for i := range n {
		p := s.net.add(fmt.Sprint("p", i))
		for _, b := range all {
			if i == 0 || c.random.IntN(5) < 3 {
				p.has[b.Cid()] = b
			}
		}
		p.rate = 2 * mib
		manners[i%len(manners)].set(p)
		p.connect()
		c.peers = append(c.peers, p)
	}
	return c
}

// churn lets every peer go away each second with the probability given, and come back as easily as not.
func (c *crowd) churn(ctx context.Context, p float64) {
	for pass(ctx, time.Second) {
		for _, peer := range c.peers {
			switch x := c.random.Float64(); {
			case peer.up() && x < p:
				peer.disconnect()
			case !peer.up() && x < 0.5:
				peer.connect()
			}
		}
	}
}

// watch checks many times a second that no limit is passed.
func (c *crowd) watch(ctx context.Context) {
	for pass(ctx, 50*time.Millisecond) {
		for _, u := range c.Usage() {
			if u.Used > u.Limit && u.Limit > 0 {
				c.Errorf("limit %s: %d of %d in use", u.Name, u.Used, u.Limit)
			}
		}
		c.ask(func(m *machine) {
			m.dispatch() // as of the last event
			checkMachine(c.TB, m)
		})
	}
}

// reads lets readers want random blocks, some of which do not exist, until a deadline. Each is told by then.
func (c *crowd) reads(root blocks.Block, all []blocks.Block, readers int) {
	var wg sync.WaitGroup
	for i := range readers {
		b := pick(c.random, all)
		if i%4 == 0 {
			b = leaf(1<<41+i, 100)
		}
		within := time.Duration(c.random.IntN(20_000)+1) * time.Millisecond
		wg.Go(func() {
			took, err := c.fetch(Want{CID: b.Cid(), Dataset: root.Cid()}, within)
			if took > within || err != nil && !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrTooDear) && !errors.Is(err, ErrBudget) {
				c.Errorf("a reader with %v was told after %v: %v", within, took, err)
			}
		})
	}
	wg.Wait()
}

// meetCrowd lets a crowd give a DAG to a download and to readers, and returns how long the download took.
func meetCrowd(t *testing.T, peers int, seed uint64, leaves int, churn float64) {
	t.Helper()
	simulatePaid(t, Limits{DayBudget: 2000}, newSimPurse(), func(s *sim) {
		root, all := tree(leaves, 20*kib, 50)
		s.spend(root, Spending{MaxPricePerMiB: 200, Budget: 1000, PerSecond: 50})
		c := s.gather(peers, seed, all)
		ctx, stop := context.WithCancel(s.ctx)
		var around sync.WaitGroup
		around.Go(func() { c.churn(ctx, churn) })
		around.Go(func() { c.watch(ctx) })
		around.Go(func() { c.reads(root, all, 40) })
		took, err := s.tryDownload(root, 10*time.Minute)
		for errors.Is(err, ErrTooDear) || errors.Is(err, ErrBudget) { // those who give it away are not here now
			s.after(time.Second)
			took, err = s.tryDownload(root, 10*time.Minute)
		}
		if err != nil {
			t.Errorf("seed %d: after %v: %v", seed, took, err)
		}
		pass(s.ctx, 20*time.Second)
		stop()
		around.Wait()
		st := s.Stats()
		t.Logf("%d peers: %v; %d sent twice, %d unasked, %d bans, %d bought for %d", peers, took, s.sentTwice(), st.Unasked, st.Bans, st.Bought, st.Spent)
		if st.Spent > 1000 {
			t.Errorf("seed %d: %d spent of 1000", seed, st.Spent)
		}
	})
}

// TestCrowds: of all sizes, of all manners, with and without churn. Nothing is over a limit at any time, no
// reader waits past its deadline, and nothing is left in the end.
func TestCrowds(t *testing.T) {
	for _, peers := range []int{1, 5, 50, 1000} {
		for _, churn := range []float64{0, 0.02, 0.2} {
			t.Run(fmt.Sprintf("peers=%d/churn=%v", peers, churn), func(t *testing.T) {
				for seed := range uint64(crowdSeeds) {
					meetCrowd(t, peers, seed, crowdLeaves, churn)
				}
			})
		}
	}
}
