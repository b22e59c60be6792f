package payment

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

var seedFlag = flag.Uint64("seed", 0, "run the random lives of this seed alone")

// faultyLedger fails now and then, before a change or after it.
type faultyLedger struct {
	Ledger
	rng  *rand.Rand
	rate int // one call of rate fails; zero: none
}

var errLedger = errors.New("ledger is out of reach")

func (f *faultyLedger) fails() bool { return f.rate > 0 && f.rng.IntN(f.rate) == 0 }

func faulty[T any](f *faultyLedger, do func() (Channel, error), _ T) (Channel, error) {
	if f.fails() {
		return Channel{}, errLedger
	}
	c, err := do()
	if err == nil && f.fails() {
		return Channel{}, errLedger
	}
	return c, err
}

func (f *faultyLedger) Open(ctx context.Context, o Opening) (Channel, error) {
	return faulty(f, func() (Channel, error) { return f.Ledger.Open(ctx, o) }, o)
}

func (f *faultyLedger) Settle(ctx context.Context, v Voucher) (Channel, error) {
	return faulty(f, func() (Channel, error) { return f.Ledger.Settle(ctx, v) }, v)
}

func (f *faultyLedger) Close(ctx context.Context, c Closing) (Channel, error) {
	return faulty(f, func() (Channel, error) { return f.Ledger.Close(ctx, c) }, c)
}

func (f *faultyLedger) Finish(ctx context.Context, id ChannelID) (Channel, error) {
	return faulty(f, func() (Channel, error) { return f.Ledger.Finish(ctx, id) }, id)
}

func (f *faultyLedger) Channel(ctx context.Context, id ChannelID) (Channel, error) {
	return faulty(f, func() (Channel, error) { return f.Ledger.Channel(ctx, id) }, id)
}

// life is a payer and two payees that share a book, and what ought to be true of them.
type life struct {
	cuts     bool // power cuts, too
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	clock    *clock
	book     *Book
	faults   *faultyLedger
	payer    *node
	payees   []*node
	flight   []sent                // vouchers on the way; they may be lost, doubled and late
	refs     map[string]sent       // what was paid, by ref
	owed     map[peer.ID]Amount    // sum of refs
	signed   map[ChannelID]Voucher // highest voucher that left the payer
	taken    map[ChannelID]Info    // last state seen at a payee
	accepted map[ChannelID]Voucher // highest voucher that a payee said yes to
	log      []string
}

type sent struct {
	to     int
	amount Amount
	v      Voucher
}

func newLife(t *testing.T, seed uint64) *life {
	l := &life{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), clock: newClock(), refs: map[string]sent{},
		owed: map[peer.ID]Amount{}, signed: map[ChannelID]Voucher{}, taken: map[ChannelID]Info{},
		accepted: map[ChannelID]Voucher{}}
	l.book = newBook(t, l.clock)
	l.faults = &faultyLedger{Ledger: l.book, rng: l.rng, rate: 12}
	limits := func(c *Config) {
		c.Limits = Limits{KeepClosed: 900 * 24 * time.Hour, RefLife: 900 * 24 * time.Hour}
		c.IdleAfter = 20 * 24 * time.Hour
	}
	l.payer = newNode(t, "payer", l.clock, l.faults, limits)
	for _, name := range []string{"payee 1", "payee 2"} {
		l.payees = append(l.payees, newNode(t, name, l.clock, l.faults, limits))
	}
	if l.cuts = seed%2 == 0; l.cuts {
		for _, n := range l.nodes() {
			n.followDisk()
		}
	}
	return l
}

func (l *life) nodes() []*node { return append([]*node{l.payer}, l.payees...) }

func (l *life) fatalf(format string, args ...any) {
	l.t.Helper()
	for _, line := range l.log {
		l.t.Log(line)
	}
	l.t.Fatalf("seed %d: %s", l.seed, fmt.Sprintf(format, args...))
}

func (l *life) note(format string, args ...any) { l.log = append(l.log, fmt.Sprintf(format, args...)) }

func (l *life) step() {
	i := l.rng.IntN(len(l.payees))
	q := l.payees[i]
	ctx := context.Background()
	switch k := l.rng.IntN(20); {
	case k < 3:
		_, err := l.payer.acc.EnsureChannel(ctx, q.id, Amount(l.rng.IntN(40)), Amount(l.rng.IntN(200)))
		l.note("ensure %d: %v", i, err)
	case k < 9:
		l.pay(i)
	case k < 13:
		l.deliver()
	case k < 14:
		l.resend(i)
	case k < 16:
		n := l.nodes()[l.rng.IntN(3)]
		l.note("maintain %s: %v", n.id, n.acc.Maintain(ctx))
	case k < 17:
		d := time.Duration(l.rng.IntN(30*3600)) * time.Second
		l.clock.advance(d)
		l.note("%v pass", d)
	case k < 18 && l.rng.IntN(3) == 0:
		from, with := l.payer, q.id
		if l.rng.IntN(2) == 0 {
			from, with = q, l.payer.id
		}
		l.note("%s closes: %v", from.id, from.acc.CloseChannel(ctx, with))
	case k >= 18:
		n, cut := l.nodes()[l.rng.IntN(3)], l.cuts && l.rng.IntN(2) == 0
		l.note("%s crashes, power cut %v", n.id, cut)
		n.crash(cut)
		if cut { // what was learned from the ledger alone may be learned again
			for id := range l.taken {
				l.taken[id] = Info{Amount: l.accepted[id].Amount, Sequence: l.accepted[id].Sequence}
			}
		}
	}
}

// pay pays a ref, often one that was paid before.
func (l *life) pay(i int) {
	ref := fmt.Sprintf("ref %d", l.rng.IntN(60))
	amount := Amount(1 + l.rng.IntN(30))
	was, before := l.refs[ref]
	if before {
		i, amount = was.to, was.amount
	}
	to := l.payees[i].id
	v, err := l.payer.acc.Pay(context.Background(), Payment{To: to, Amount: amount, Ref: []byte(ref), Budgets: []Budget{{Key: "set"}}})
	l.note("pay %d %s %d: %d %d %v", i, ref, amount, v.Amount, v.Sequence, err)
	if err != nil {
		if before {
			l.fatalf("ref that was paid: %v", err)
		}
		return
	}
	if !before {
		l.refs[ref] = sent{to: i, amount: amount}
		l.owed[to] += amount
		if last := l.signed[v.Channel]; v.Sequence != last.Sequence+1 || v.Amount != last.Amount+amount {
			l.fatalf("voucher %d, %d after %d, %d", v.Amount, v.Sequence, last.Amount, last.Sequence)
		}
		l.signed[v.Channel] = v
	}
	if !v.IsZero() {
		l.flight = append(l.flight, sent{to: i, v: v})
	}
}

func (l *life) deliver() {
	if len(l.flight) == 0 {
		return
	}
	s := l.flight[l.rng.IntN(len(l.flight))]
	q := l.payees[s.to]
	before, err := q.acc.Received(l.payer.id)
	must(l.t, err)
	grew, err := q.acc.Accept(context.Background(), l.payer.id, s.v)
	l.note("deliver %d %s %d %d: %d %v", s.to, s.v.Channel.String()[:6], s.v.Amount, s.v.Sequence, grew, err)
	if err != nil && !errors.Is(err, errLedger) && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNoChannel) {
		l.fatalf("honest voucher is refused: %v", err)
	}
	if err == nil && s.v.Sequence > l.accepted[s.v.Channel].Sequence {
		l.accepted[s.v.Channel] = s.v
	}
	if err == nil && grew > s.v.Amount {
		l.fatalf("grew by %d after %d with a voucher of %d", grew, before, s.v.Amount)
	}
}

func (l *life) resend(i int) {
	vs, err := l.payer.acc.Last(context.Background(), l.payees[i].id)
	must(l.t, err)
	for _, v := range vs {
		l.flight = append(l.flight, sent{to: i, v: v})
	}
}

// check looks at everything that must hold at all times.
func (l *life) check() {
	checkBook(l.t, l.book)
	ctx := context.Background()
	out, err := l.payer.acc.Channels(ctx)
	must(l.t, err)
	signed := map[peer.ID]Amount{}
	for _, c := range out {
		if c.Amount > c.Deposit || c.Amount != l.signed[c.ID].Amount {
			l.fatalf("payer has %+v, signed %d", c, l.signed[c.ID].Amount)
		}
		signed[c.Peer] += c.Amount
	}
	for i, q := range l.payees {
		if signed[q.id] != l.owed[q.id] {
			l.fatalf("%d signed to payee %d, refs sum to %d", signed[q.id], i, l.owed[q.id])
		}
		in, err := q.acc.Channels(ctx)
		must(l.t, err)
		for _, c := range in {
			was := l.taken[c.ID]
			if c.Amount > c.Deposit || c.Amount > l.signed[c.ID].Amount || c.Amount < was.Amount || c.Sequence < was.Sequence {
				l.fatalf("payee %d has %+v after %+v", i, c, was)
			}
			l.taken[c.ID] = c
		}
	}
	total := l.owed[l.payees[0].id] + l.owed[l.payees[1].id]
	for _, key := range []string{"", "set"} {
		if spent, err := l.payer.acc.Spent(key); err != nil || spent != total {
			l.fatalf("budget %q is %d, %d were paid: %v", key, spent, total, err)
		}
	}
}

// finish brings all to rest: sums agree while channels are open and after all are closed.
func (l *life) finish() {
	l.faults.rate = 0
	for _, n := range l.nodes() {
		n.maintain()
	}
	for i, q := range l.payees {
		vs, err := l.payer.acc.Last(context.Background(), q.id)
		must(l.t, err)
		for _, v := range vs {
			if _, err := q.acc.Accept(context.Background(), l.payer.id, v); err != nil && !errors.Is(err, ErrClosed) {
				l.fatalf("last voucher to %d is refused: %v", i, err)
			}
		}
	}
	for _, wait := range []time.Duration{2 * time.Hour, 0, 25 * time.Hour, 0} {
		l.clock.advance(wait)
		for _, n := range l.nodes() {
			n.maintain()
		}
		l.agree()
		if wait == 0 {
			err := l.payer.acc.CloseChannel(context.Background(), l.payees[0].id)
			if err != nil && !errors.Is(err, ErrNoChannel) {
				l.fatalf("close: %v", err)
			}
		}
	}
	l.check()
}

func (l *life) agree() {
	l.t.Helper()
	for i, q := range l.payees {
		paid, _ := l.payer.sums(q.id)
		_, received := q.sums(l.payer.id)
		if paid != received {
			out, _ := l.payer.acc.Channels(context.Background())
			in, _ := q.acc.Channels(context.Background())
			l.fatalf("payer has paid %d, payee %d received %d\n%+v\n%+v", paid, i, received, out, in)
		}
	}
}

// TestRandomLives: events of payer, payees and ledger in any order, with crashes and power cuts.
func TestRandomLives(t *testing.T) {
	t.Parallel()
	first, lives := rand.Uint64N(1<<32), randomLives
	if *seedFlag != 0 {
		first, lives = *seedFlag, 1
	}
	t.Logf("seeds %d to %d; run one with -seed", first, first+uint64(lives)-1)
	for i := range uint64(lives) {
		l := newLife(t, first+i)
		for range 200 {
			l.step()
			l.check()
		}
		l.finish()
		for _, n := range l.nodes() {
			n.db.Close()
		}
	}
}
