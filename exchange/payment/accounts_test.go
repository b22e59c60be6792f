package payment

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"
)

// world is a payer and a payee with a book.
type world struct {
	clock        *clock
	book         *Book
	payer, payee *node
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	w := &world{clock: newClock()}
	w.book = newBook(t, w.clock)
	w.payer = newNode(t, "payer", w.clock, w.book, change)
	w.payee = newNode(t, "payee", w.clock, w.book, change)
	return w
}

// agree fails unless both sides count the same.
func (w *world) agree(t testing.TB, want Amount) {
	t.Helper()
	paid, _ := w.payer.sums(w.payee.id)
	_, received := w.payee.sums(w.payer.id)
	if paid != want || received != want {
		t.Fatalf("paid %d, received %d, want %d", paid, received, want)
	}
	checkBook(t, w.book)
}

func (w *world) balances(t testing.TB, payer, payee int64) {
	t.Helper()
	a, err := w.book.Account(context.Background(), w.payer.id)
	must(t, err)
	b, err := w.book.Account(context.Background(), w.payee.id)
	must(t, err)
	if a.Balance != payer || b.Balance != payee {
		t.Fatalf("balances are %d and %d, want %d and %d", a.Balance, b.Balance, payer, payee)
	}
}

func TestPayAndClose(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.payer.acc.Pay(t.Context(), Payment{To: w.payee.id, Amount: 1})
	wantErr(t, err, ErrNoChannel)
	id := w.payer.ensure(w.payee.id, 100)
	if again := w.payer.ensure(w.payee.id, 100); again != id {
		t.Fatal("a second channel was opened though the first has enough")
	}
	a := w.payer.pay(w.payee.id, 30, "a")
	b := w.payer.pay(w.payee.id, 12, "b")
	if got := w.payee.accept(w.payer.id, b); got != 42 {
		t.Fatalf("grew by %d", got)
	}
	for _, v := range []Voucher{a, b} {
		if got := w.payee.accept(w.payer.id, v); got != 0 {
			t.Fatalf("a repeated voucher grew by %d", got)
		}
	}
	w.agree(t, 42)
	_, err = w.payer.acc.Pay(t.Context(), Payment{To: w.payee.id, Amount: 59})
	wantErr(t, err, ErrDeposit)

	w.payee.maintain()
	w.balances(t, -100, 0) // it is not yet time to settle
	w.clock.advance(time.Hour)
	w.payee.maintain()
	w.balances(t, -100, 42)
	c := w.payer.pay(w.payee.id, 8, "c")
	w.payee.accept(w.payer.id, c)
	must(t, w.payee.acc.CloseChannel(t.Context(), w.payer.id))
	w.balances(t, -50, 50)
	w.payer.maintain()
	w.agree(t, 50)
	_, err = w.payer.acc.Pay(t.Context(), Payment{To: w.payee.id, Amount: 1})
	wantErr(t, err, ErrNoChannel)
	wantErr(t, w.payer.acc.CloseChannel(t.Context(), w.payee.id), ErrNoChannel)
	list, err := w.payer.acc.Channels(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].State != StateClosed || list[0].Settled != 50 || list[0].Direction != Paying || list[0].Closed.IsZero() {
		t.Fatalf("list is %+v", list)
	}
}

// TestPayerCloses: the payee settles within the challenge period; afterwards the rest comes back.
func TestPayerCloses(t *testing.T) {
	w := newWorld(t, nil)
	w.payer.ensure(w.payee.id, 100)
	w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 10, "a"))
	last := w.payer.pay(w.payee.id, 15, "b") // is lost on the way
	must(t, w.payer.acc.CloseChannel(t.Context(), w.payee.id))
	w.balances(t, -100, 25) // the payer settled what it signed
	w.payee.maintain()
	w.agree(t, 25)
	if got := w.payee.accept(w.payer.id, last); got != 0 {
		t.Fatalf("grew by %d", got)
	}
	w.clock.advance(23 * time.Hour)
	w.payer.maintain()
	w.balances(t, -100, 25)
	w.clock.advance(time.Hour)
	w.payer.maintain()
	w.payee.maintain()
	w.balances(t, -25, 25)
	w.agree(t, 25)
	if s := w.payer.acc.Stats(); s.Paying != 0 {
		t.Errorf("payer counts %+v", s)
	}
	if s := w.payee.acc.Stats(); s.Paid != 0 {
		t.Errorf("payee counts %+v", s)
	}
}

// TestCloseIsTriedAgain: a side that could not reach the ledger pays and accepts no more, and Run closes.
func TestCloseIsTriedAgain(t *testing.T) {
	for _, byPayer := range []bool{true, false} {
		w := newWorld(t, nil)
		w.payer.ensure(w.payee.id, 100)
		w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 10, "a"))
		next := w.payer.pay(w.payee.id, 5, "b")
		n, with := w.payee, w.payer.id
		if byPayer {
			n, with = w.payer, w.payee.id
		}
		n.acc.cfg.Ledger = &crashLedger{Ledger: w.book, before: true}
		wantErr(t, n.acc.CloseChannel(t.Context(), with), errCrash)
		n.crash(false)
		if byPayer {
			_, err := w.payer.acc.Pay(t.Context(), Payment{To: w.payee.id, Amount: 1})
			wantErr(t, err, ErrNoChannel)
		} else {
			_, err := w.payee.acc.Accept(t.Context(), w.payer.id, next)
			wantErr(t, err, ErrClosed)
		}
		n.maintain()
		list, err := n.acc.Channels(t.Context())
		must(t, err)
		if len(list) != 1 || list[0].State == StateOpen {
			t.Fatalf("list is %+v", list)
		}
		if !byPayer { // the payer hears of it when it asks, and opens another
			must(t, w.payer.acc.Refresh(t.Context(), w.payee.id))
			w.agree(t, 10)
			w.payer.ensure(w.payee.id, 100)
			w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 7, "c"))
			w.agree(t, 17)
		}
	}
}

// TestPayerCheats: a payer that closes with an old voucher is answered in time.
func TestPayerCheats(t *testing.T) {
	w := newWorld(t, nil)
	id := w.payer.ensure(w.payee.id, 100)
	old := w.payer.pay(w.payee.id, 1, "a")
	w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 79, "b"))
	cl, err := NewClosing(w.payer.key, id, old)
	must(t, err)
	_, err = w.book.Close(t.Context(), cl)
	must(t, err)
	w.balances(t, -100, 1)
	w.payee.maintain()
	w.balances(t, -100, 80)
}

// TestChannelUsedUp: another channel takes the place of one that has not enough left, which is closed.
func TestChannelUsedUp(t *testing.T) {
	w := newWorld(t, nil)
	first := w.payer.ensure(w.payee.id, 100)
	w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 95, "a"))
	second, err := w.payer.acc.EnsureChannel(t.Context(), w.payee.id, 10, 100)
	if must(t, err); second == first {
		t.Fatal("no second channel")
	}
	v := w.payer.pay(w.payee.id, 10, "b")
	if v.Channel != second || v.Amount != 10 {
		t.Fatalf("voucher is %+v", v)
	}
	vs, err := w.payer.acc.Last(t.Context(), w.payee.id)
	must(t, err)
	if len(vs) != 2 {
		t.Fatalf("%d last vouchers", len(vs))
	}
	for _, v := range vs {
		w.payee.accept(w.payer.id, v)
	}
	w.agree(t, 105)
	w.payer.maintain()
	w.clock.advance(25 * time.Hour)
	w.payer.maintain()
	w.payee.maintain()
	w.balances(t, -195, 105)
	w.agree(t, 105)
}

// badVouchers makes each kind of voucher that must be refused or be no growth.
func TestAcceptRefuses(t *testing.T) {
	w := newWorld(t, nil)
	other := newNode(t, "other", w.clock, w.book, nil)
	id := w.payer.ensure(w.payee.id, 100)
	elsewhere := w.payer.ensure(other.id, 100)
	first := w.payer.pay(w.payee.id, 10, "a")
	good := w.payer.pay(w.payee.id, 20, "b")
	w.payee.accept(w.payer.id, good)
	sign := func(id ChannelID, amount Amount, seq uint64) Voucher {
		v, err := NewVoucher(w.payer.key, id, amount, seq)
		must(t, err)
		return v
	}
	forged, err := NewVoucher(other.key, id, 60, 9)
	must(t, err)
	cases := []struct {
		name string
		from peer.ID
		v    Voucher
		want error
	}{
		{"replayed", w.payer.id, good, nil},
		{"older", w.payer.id, first, nil},
		{"forged", w.payer.id, forged, ErrSignature},
		{"forged and sent by the forger", other.id, forged, ErrParty},
		{"sent by another", other.id, good, ErrSignature},
		{"no voucher", w.payer.id, Voucher{}, ErrSignature},
		{"shrunk", w.payer.id, sign(id, 29, 3), ErrVoucher},
		{"same amount, later", w.payer.id, sign(id, 30, 3), ErrVoucher},
		{"more, same sequence", w.payer.id, sign(id, 40, 2), ErrVoucher},
		{"more, older sequence", w.payer.id, sign(id, 40, 1), ErrVoucher},
		{"over the deposit", w.payer.id, sign(id, 101, 3), ErrDeposit},
		{"of a channel to another", w.payer.id, sign(elsewhere, 10, 1), ErrParty},
	}
	for _, c := range cases {
		grew, err := w.payee.acc.Accept(t.Context(), c.from, c.v)
		if grew != 0 || !errors.Is(err, c.want) {
			t.Errorf("%s: grew %d, %v, want %v", c.name, grew, err, c.want)
		}
		w.clock.advance(2 * time.Second) // strangers' channels are not looked up too often
	}
	_, err = w.payee.acc.Accept(t.Context(), w.payer.id, sign(ChannelID{9}, 1, 1))
	wantErr(t, err, ErrNoChannel)
	w.agree(t, 30)
}

// TestUnknownChannelsAreNotLookedUpOften: a peer can't make us ask the ledger all the time.
func TestUnknownChannelsAreNotLookedUpOften(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 200 {
		v, err := NewVoucher(w.payer.key, ChannelID{byte(i), 1}, 1, 1)
		must(t, err)
		_, err = w.payee.acc.Accept(t.Context(), w.payer.id, v)
		wantErr(t, err, ErrNoChannel)
	}
	if n := w.payee.acc.Stats().Lookups; n != 1 {
		t.Errorf("%d lookups for 200 vouchers of unknown channels within a second", n)
	}
}

func TestAcceptLimits(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Limits = Limits{PaidPerPeer: 2, PaidTotal: 3}
		c.MinDeposit = 10
	})
	pay := func(n *node, deposit Amount, challenge time.Duration) error {
		o, err := NewOpening(n.key, w.payee.id, deposit, challenge, w.clock.now())
		must(t, err)
		_, err = w.book.Open(t.Context(), o)
		must(t, err)
		v, err := NewVoucher(n.key, o.ID(), 1, 1)
		must(t, err)
		_, err = w.payee.acc.Accept(t.Context(), n.id, v)
		return err
	}
	other := newNode(t, "other", w.clock, w.book, nil)
	wantErr(t, pay(w.payer, 9, 2*time.Hour), ErrTerms)
	wantErr(t, pay(w.payer, 10, time.Minute), ErrTerms)
	must(t, pay(w.payer, 10, 2*time.Hour))
	must(t, pay(w.payer, 10, 2*time.Hour))
	wantErr(t, pay(w.payer, 10, 2*time.Hour), ErrLimit)
	must(t, pay(other, 10, 2*time.Hour))
	wantErr(t, pay(other, 10, 2*time.Hour), ErrLimit)
	if s := w.payee.acc.Stats(); s.Paid != 3 {
		t.Errorf("%d channels are counted", s.Paid)
	}
	w.payee.crash(false)
	wantErr(t, pay(other, 10, 2*time.Hour), ErrLimit)
	must(t, w.payee.acc.CloseChannel(t.Context(), w.payer.id))
	must(t, pay(other, 10, 2*time.Hour))
}

// TestLateVoucher: shortly before a challenge period ends nothing more is accepted.
func TestLateVoucher(t *testing.T) {
	w := newWorld(t, nil)
	id := w.payer.ensure(w.payee.id, 100)
	w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 10, "a"))
	in := w.payer.pay(w.payee.id, 10, "b")
	late := w.payer.pay(w.payee.id, 10, "c")
	cl, err := NewClosing(w.payer.key, id, Voucher{})
	must(t, err)
	_, err = w.book.Close(t.Context(), cl)
	must(t, err)
	w.clock.advance(23 * time.Hour)
	if got := w.payee.accept(w.payer.id, in); got != 10 {
		t.Fatalf("grew by %d", got)
	}
	w.clock.advance(59 * time.Minute)
	_, err = w.payee.acc.Accept(t.Context(), w.payer.id, late)
	wantErr(t, err, ErrClosed)
	w.payee.maintain()
	w.clock.advance(time.Hour)
	w.payee.maintain()
	w.payer.maintain()
	w.balances(t, -20, 20)
	w.agree(t, 20) // the payer has back what was not accepted
}

func TestRefsAndBudgets(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{MaxRefs: 4} })
	w.payer.ensure(w.payee.id, 1000)
	pay := func(amount Amount, ref string, budgets ...Budget) error {
		_, err := w.payer.acc.Pay(t.Context(), Payment{To: w.payee.id, Amount: amount, Ref: []byte(ref), Budgets: budgets})
		return err
	}
	spent := func(key string, total, today Amount) {
		t.Helper()
		a, err := w.payer.acc.Spent(key)
		must(t, err)
		b, err := w.payer.acc.SpentToday(key)
		if must(t, err); a != total || b != today {
			t.Fatalf("budget %q: %d and %d today, want %d and %d", key, a, b, total, today)
		}
	}
	set := Budget{Key: "set", Limit: 50, PerDay: 20}
	must(t, pay(15, "a", set, set))
	must(t, pay(15, "a", set))
	wantErr(t, pay(16, "a", set), ErrRef)
	wantErr(t, pay(6, "b", set), ErrBudget)
	must(t, pay(5, "b", set))
	spent("set", 20, 20)
	spent("", 20, 20)
	w.clock.advance(24 * time.Hour)
	spent("set", 20, 0)
	must(t, pay(20, "c", set))
	w.payer.crash(false)
	wantErr(t, pay(11, "d", Budget{Key: "set", Limit: 50}), ErrBudget)
	wantErr(t, pay(1, "d", Budget{Key: "", PerDay: 20}), ErrBudget)
	must(t, pay(10, "d", Budget{Key: "other"}))
	spent("set", 40, 20)
	spent("", 50, 30)

	wantErr(t, pay(1, "e"), ErrLimit)
	must(t, pay(20, "c", set))
	must(t, w.payer.acc.Forget([]byte("a")))
	must(t, w.payer.acc.Forget([]byte("a")))
	must(t, pay(1, "e"))
	w.clock.advance(181 * 24 * time.Hour)
	w.payer.ensure(w.payee.id, 1000)
	w.payer.maintain()
	if n := w.payer.acc.Stats().Refs; n != 0 {
		t.Errorf("%d refs are remembered after their life", n)
	}
	spent("set", 0, 0)
	spent("", 51, 0)
	must(t, pay(0, "free"))
	spent("", 51, 0)
}

// TestPayInTransactions: what the caller writes and the payment are one.
func TestPayInTransactions(t *testing.T) {
	w := newWorld(t, nil)
	w.payer.ensure(w.payee.id, 100)
	p := Payment{To: w.payee.id, Amount: 10, Ref: []byte("link")}
	refused := errors.New("not today")
	_, err := w.payer.acc.PayWith(t.Context(), p, func(txn *badger.Txn, v Voucher) error {
		must(t, txn.Set([]byte("link/1"), v.Signature))
		return refused
	})
	wantErr(t, err, refused)

	lost := w.payer.db.NewTransaction(true)
	_, err = w.payer.acc.PayTxn(lost, p)
	must(t, err)
	lost.Discard()
	txn := w.payer.db.NewTransaction(true)
	_, err = w.payer.acc.PayTxn(txn, p)
	must(t, err)
	between := w.payer.pay(w.payee.id, 5, "between")
	wantErr(t, txn.Commit(), badger.ErrConflict)
	if between.Sequence != 1 || between.Amount != 5 {
		t.Fatalf("voucher is %+v", between)
	}
	err = w.payer.db.Update(func(txn *badger.Txn) error {
		v, err := w.payer.acc.PayTxn(txn, p)
		if err != nil {
			return err
		}
		b, err := v.Marshal()
		if err != nil {
			return err
		}
		return txn.Set([]byte("link/1"), b)
	})
	must(t, err)
	must(t, w.payer.acc.Sync())
	w.payer.crash(false)
	var v Voucher
	must(t, w.payer.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte("link/1"))
		if err != nil {
			return err
		}
		return item.Value(func(b []byte) error {
			v, err = UnmarshalVoucher(b)
			return err
		})
	}))
	w.payee.accept(w.payer.id, v)
	w.agree(t, 15)
	again := w.payer.pay(w.payee.id, 10, "link")
	if again.Sequence != v.Sequence {
		t.Fatalf("paid twice: %+v after %+v", again, v)
	}
}
