package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// simPurse remembers what it paid. It starts anew each day.
type simPurse struct {
	mu      sync.Mutex
	paid    map[peer.ID]Amount
	dues    map[delivered]int
	dataset map[cid.Cid]Amount
	today   map[int64]Amount
	refs    map[string]bool
	err     error         // of every payment
	gate    chan struct{} // nil, or what every payment waits for
	slow    time.Duration // that a payment takes
	net     *simNet       // whose peers are told of payments; nil tells none
	tries   int
	most    int // dues of one payment
}

func newSimPurse() *simPurse {
	return &simPurse{paid: make(map[peer.ID]Amount), dues: make(map[delivered]int), dataset: make(map[cid.Cid]Amount),
		today: make(map[int64]Amount), refs: make(map[string]bool)}
}

func (p *simPurse) Pay(ctx context.Context, id peer.ID, ref []byte, due []Due) error {
	p.mu.Lock()
	gate, slow := p.gate, p.slow
	p.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if slow > 0 && !pass(ctx, slow) {
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	if p.err != nil {
		return p.err
	}
	if p.refs[string(ref)] {
		return errors.New("this was paid already")
	}
	p.refs[string(ref)] = true
	p.most = max(p.most, len(due))
	if p.net != nil {
		p.net.paid(id, due)
	}
	for _, d := range due {
		p.paid[id] += d.Amount
		p.dues[delivered{id, d.CID}]++
		p.dataset[d.Dataset] += d.Amount
		p.today[time.Now().Unix()/86400] += d.Amount
	}
	return nil
}

func (p *simPurse) Spent(dataset cid.Cid) (today, onDataset Amount) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.today[time.Now().Unix()/86400], p.dataset[dataset]
}

// change changes how payments go.
func (p *simPurse) change(f func(*simPurse)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// total is what all peers got.
func (p *simPurse) total() (sum Amount) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.paid {
		sum += a
	}
	return sum
}

// balanced checks that everything paid is for a block that its peer sent, and the sums are right.
func (s *sim) balanced() {
	s.Helper()
	if s.purse == nil {
		return
	}
	s.purse.change(func(p *simPurse) {
		for d, n := range p.dues {
			if sent := s.net.peers[d.peer].sent[d.cid]; n > sent {
				s.Errorf("%s was paid %d times for a block it sent %d times", d.peer, n, sent)
			}
		}
	})
	if st := s.Stats(); st.Spent != s.purse.total() {
		s.Errorf("%d spent, %d paid", st.Spent, s.purse.total())
	}
}

// spend lets a dataset cost something.
func (s *sim) spend(root blocks.Block, sp Spending) {
	s.Helper()
	if err := s.SetSpending(root.Cid(), sp); err != nil {
		s.Fatal(err)
	}
}

// TestBlocksAreBought: from the only peer, which wants money for each, and gets it once.
func TestBlocksAreBought(t *testing.T) {
	for _, tacit := range []bool{false, true} {
		t.Run(fmt.Sprint("tacit=", tacit), func(t *testing.T) {
			simulatePaid(t, Limits{}, newSimPurse(), func(s *sim) {
				root, all := tree(200, 100*kib, 20)
				p := s.net.add("p", all...)
				p.rate, p.price, p.tacit = 10*mib, 1000, tacit
				p.connect()
				var due Amount
				for _, b := range all {
					due += p.price.share(uint64(len(b.RawData())), mib)
				}
				s.spend(root, Spending{MaxPricePerMiB: 1000, Budget: 30_000})
				s.download(root, time.Minute)
				s.after(time.Second)
				if got := s.purse.total(); got > due || got < due-Amount(len(all)) {
					t.Errorf("%d paid, %d asked", got, due)
				}
				if st := s.Stats(); st.Bought != uint64(len(all)) || st.Committed != 0 || st.Owed != 0 || st.Today != s.purse.total() {
					t.Errorf("%+v", st)
				}
				if as := s.Accounts(); len(as) != 1 || as[0].Spent != s.purse.total() || as[0].Dataset != root.Cid() {
					t.Errorf("%+v", as)
				}
			})
		})
	}
}

// TestNothingIsPaidUnlessAllowed: the default is not to pay, and the error says so soon.
func TestNothingIsPaidUnlessAllowed(t *testing.T) {
	simulatePaid(t, Limits{}, newSimPurse(), func(s *sim) {
		root, all := tree(20, 100*kib, 20)
		dear, dearer := s.net.add("dear", all...), s.net.add("dearer", all...)
		dear.price, dearer.price = 500, 700
		dear.connect()
		dearer.connect()
		want := Want{CID: all[0].Cid(), Dataset: root.Cid()}
		for _, limit := range []Amount{0, 100, 489} {
			s.spend(root, Spending{MaxPricePerMiB: limit, Budget: 1 << 40})
			took, err := s.fetch(want, time.Hour)
			var e *TooDearError
			if !errors.Is(err, ErrTooDear) || !errors.As(err, &e) || e.Peer != "dear" || e.PerMiB < 500 || e.Price != 49 || e.Limit != limit || took > 3*time.Second {
				t.Errorf("after %v: %v", took, err)
			}
		}
		s.spend(root, Spending{MaxPricePerMiB: 500, Budget: 1 << 40})
		s.mustFetch(want, time.Minute) // a raised limit helps
		if dearer.sentBytes > 0 {
			t.Errorf("%d bytes of the dearer peer", dearer.sentBytes)
		}
	})
}

// TestAFreePeerHelps: one that appears after the error, and one that appears before it.
func TestAFreePeerHelps(t *testing.T) {
	simulatePaid(t, Limits{}, newSimPurse(), func(s *sim) {
		root, all := tree(20, 100*kib, 20)
		dear := s.net.add("dear", all...)
		dear.price = 500
		dear.connect()
		want := Want{CID: root.Cid(), Dataset: root.Cid()}
		if _, err := s.fetch(want, time.Hour); !errors.Is(err, ErrTooDear) {
			t.Fatal(err)
		}
		s.net.add("free", all...).refuses = 1 // one try is in vain, while the want waits
		s.net.providers[root.Cid()] = []peer.ID{"free"}
		s.after(5 * time.Second)
		s.mustFetch(want, time.Minute)
		s.download(root, time.Minute)
		if s.purse.total() != 0 {
			t.Errorf("%d paid", s.purse.total())
		}
	})
}

// TestTheBudgetIsKept: of the dataset and of the day. What it does not pay for is an error, soon.
func TestTheBudgetIsKept(t *testing.T) {
	for name, day := range map[string]Amount{"dataset": 0, "day": 10_000} {
		t.Run(name, func(t *testing.T) {
			simulatePaid(t, Limits{DayBudget: day}, newSimPurse(), func(s *sim) {
				root, all := tree(200, 100*kib, 20)
				for i := range 3 {
					p := s.net.add(fmt.Sprint("p", i), all...)
					p.rate, p.price = 10*mib, 1000
					p.connect()
				}
				budget := Spending{MaxPricePerMiB: 2000, Budget: 10_000}
				if day > 0 {
					budget.Budget = 1 << 40
				}
				s.spend(root, budget)
				_, err := s.tryDownload(root, time.Hour)
				var e *BudgetError
				if !errors.Is(err, ErrBudget) || !errors.As(err, &e) || e.Day != (day > 0) || e.Budget != 10_000 || e.Price == 0 {
					t.Errorf("ended with %v", err)
				}
				s.after(time.Minute)
				if got := s.purse.total(); got > 10_000 || got < 9_000 {
					t.Errorf("%d of 10000 paid", got)
				}
				budget.Budget = 1 << 40
				s.spend(root, budget)
				if day > 0 {
					s.after(24 * time.Hour) // tomorrow goes on
				}
				_, err = s.tryDownload(root, time.Hour)
				if err != nil {
					t.Errorf("then it ended with %v", err)
				}
				if got := s.purse.total(); got < 19_000 {
					t.Errorf("then %d paid", got)
				}
			})
		})
	}
}

// TestTheChoiceFollowsTheWorthOfTime: two fast peers want money, a slow one does not.
func TestTheChoiceFollowsTheWorthOfTime(t *testing.T) {
	run := func(worth Amount) (took time.Duration, free, bought int) {
		simulatePaid(t, Limits{}, newSimPurse(), func(s *sim) {
			root, all := tree(500, 100*kib, 100)
			slow := s.net.add("slow", all...)
			slow.rate = mib
			slow.connect()
			for i := range 2 {
				p := s.net.add(fmt.Sprint("fast", i), all...)
				p.rate, p.price = 20*mib, 1000
				p.connect()
			}
			s.spend(root, Spending{MaxPricePerMiB: 1000, Budget: 1 << 40, PerSecond: worth})
			took = s.download(root, time.Hour)
			free, bought = slow.sentBytes, s.net.peers["fast0"].sentBytes+s.net.peers["fast1"].sentBytes
		})
		t.Logf("a second is worth %d: %v, %d bytes free, %d bought", worth, took, free, bought)
		return took, free, bought
	}
	const size = 500 * 100 * kib
	if took, free, bought := run(0); free < size*99/100 || bought > size/50 || took < 40*time.Second {
		t.Errorf("time is worth nothing: %v, %d free, %d bought", took, free, bought)
	}
	if took, free, bought := run(1); free < size*95/100 || bought > size/20 {
		t.Errorf("time is worth little: %v, %d free, %d bought", took, free, bought)
	}
	if took, _, bought := run(100_000); bought < size*8/10 || took > 5*time.Second {
		t.Errorf("time is worth much: %v, %d bought", took, bought)
	}
}

// TestAPayeeThatLies: takes wants for money and sends nothing. It costs some time and no money.
func TestAPayeeThatLies(t *testing.T) {
	simulatePaid(t, Limits{}, newSimPurse(), func(s *sim) {
		root, all := tree(100, 100*kib, 20)
		liar, honest := s.net.add("liar"), s.net.add("honest", all...)
		liar.promises, liar.price = true, 10
		honest.price, honest.rate = 1000, 10*mib
		liar.connect()
		honest.connect()
		s.spend(root, Spending{MaxPricePerMiB: 1000, Budget: 12_000})
		if took := s.download(root, 10*time.Minute); took > time.Minute {
			t.Errorf("took %v; %+v", took, s.Stats())
		}
		s.after(time.Second)
		if s.purse.paid["liar"] != 0 || s.purse.paid["honest"] == 0 {
			t.Errorf("paid: %v", s.purse.paid)
		}
	})
}

// TestPaymentsThatFail: readers do not notice, no more is bought until they work, and all is paid then.
func TestPaymentsThatFail(t *testing.T) {
	simulatePaid(t, Limits{}, newSimPurse(), func(s *sim) {
		root, all := tree(100, 100*kib, 100)
		p := s.net.add("p", all...)
		p.price, p.rate = 1000, 10*mib
		p.connect()
		s.spend(root, Spending{MaxPricePerMiB: 1000, Budget: 1 << 40})
		s.purse.change(func(p *simPurse) { p.err = errors.New("no channel") })
		s.mustFetch(Want{CID: root.Cid(), Dataset: root.Cid()}, time.Second)
		s.after(time.Second)
		if took, err := s.fetch(Want{CID: all[0].Cid(), Dataset: root.Cid()}, 10*time.Second); !errors.Is(err, ErrTimeout) {
			t.Errorf("after %v: %v", took, err)
		}
		if ps := s.Peers(); len(ps) != 1 || !ps[0].Unpayable || ps[0].Dues != 1 {
			t.Errorf("%+v", ps)
		}
		tries := s.purse.tries
		if st := s.Stats(); tries < 3 || tries > 8 || st.PaymentFailures != uint64(tries) || st.Bought != 1 {
			t.Errorf("%d tries, %+v", tries, st)
		}
		s.purse.change(func(p *simPurse) { p.err = nil })
		s.download(root, time.Minute)
		s.after(time.Second)
		if ps := s.Peers(); ps[0].Unpayable || ps[0].Dues != 0 {
			t.Errorf("%+v", ps)
		}
	})
}

// TestSlowPaymentsHoldNobodyUp: dues are bounded, readers of what is here wait for none of them.
func TestSlowPaymentsHoldNobodyUp(t *testing.T) {
	purse := newSimPurse()
	simulatePaid(t, Limits{PeerDues: 50}, purse, func(s *sim) {
		gate := make(chan struct{})
		purse.gate = gate
		root, all := tree(300, 10*kib, 300)
		p := s.net.add("p", all...)
		p.price, p.rate = 1000, 10*mib
		p.connect()
		s.spend(root, Spending{MaxPricePerMiB: 1000, Budget: 1 << 40})
		d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.after(5 * time.Second)
		if n := s.Peers()[0].Dues; n < 50 || n > 400 || d.Progress().Blocks < 50 {
			t.Errorf("%d dues, %+v", n, d.Progress())
		}
		close(gate)
		if err := d.Wait(s.ctx); err != nil {
			t.Error(err)
		}
		s.after(time.Minute)
		if purse.most > payBatch {
			t.Errorf("%d dues at once", purse.most)
		}
	})
}

// TestADefaultSpending: is for datasets that nobody set one for, single blocks too.
func TestADefaultSpending(t *testing.T) {
	purse := newSimPurse()
	simulatePaid(t, Limits{Spending: Spending{MaxPricePerMiB: 1000, Budget: 1000}}, purse, func(s *sim) {
		b := leaf(1, 100*kib)
		p := s.net.add("p", b)
		p.price = 1000
		p.connect()
		s.mustFetch(Want{CID: b.Cid()}, time.Second)
		s.after(time.Second)
		if today, spent := purse.Spent(b.Cid()); spent != 98 || today != 98 {
			t.Errorf("%d paid, %d today", spent, today)
		}
	})
}

// TestWithoutAPurse: nothing is bought, whatever the limits say.
func TestWithoutAPurse(t *testing.T) {
	simulate(t, Limits{Spending: Spending{MaxPricePerMiB: 1000, Budget: 1000}}, func(s *sim) {
		b := leaf(1, 100*kib)
		p := s.net.add("p", b)
		p.price = 1000
		p.connect()
		if _, err := s.fetch(Want{CID: b.Cid()}, time.Hour); !errors.Is(err, ErrTooDear) {
			t.Errorf("got %v", err)
		}
		if err := s.SetSpending(b.Cid(), Spending{Budget: 1}); !errors.Is(err, ErrInvalid) {
			t.Errorf("set: %v", err)
		}
		if err := s.SetSpending(b.Cid(), Spending{}); err != nil {
			t.Errorf("set to nothing: %v", err)
		}
	})
}

// TestWhatIsDueIsPaidInTheEnd: when Run ends while a payment waits for its next try.
func TestWhatIsDueIsPaidInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, purse := newSimNet(), newSimPurse()
		x, err := New(Config{Network: net, Providers: net, Store: newSimStore(), Links: simLinks, Purse: purse,
			Limits: Limits{Spending: Spending{MaxPricePerMiB: 1000, Budget: 1000}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- x.Run(ctx) }()
		synctest.Wait()
		b := leaf(1, 100*kib)
		p := net.add("p", b)
		p.price = 1000
		p.connect()
		purse.change(func(p *simPurse) { p.err = errors.New("no channel") })
		if _, err := x.Fetch(ctx, Want{CID: b.Cid()}); err != nil {
			t.Fatal(err)
		}
		pass(ctx, 10*time.Second)
		purse.change(func(p *simPurse) { p.err = nil })
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if purse.total() != 98 {
			t.Errorf("%d paid", purse.total())
		}
		if err := x.SetSpending(b.Cid(), Spending{}); !errors.Is(err, ErrClosed) {
			t.Errorf("set after the end: %v", err)
		}
		net.tasks.Wait()
	})
}
