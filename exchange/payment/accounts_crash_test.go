package payment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// crashLedger stops the payer before or after the ledger hears of an opening.
type crashLedger struct {
	Ledger
	before, after bool
}

var errCrash = errors.New("the process is gone")

func (l *crashLedger) Open(ctx context.Context, o Opening) (Channel, error) {
	if l.before {
		return Channel{}, errCrash
	}
	c, err := l.Ledger.Open(ctx, o)
	if l.after {
		return Channel{}, errCrash
	}
	return c, err
}

func (l *crashLedger) Close(ctx context.Context, c Closing) (Channel, error) {
	if l.before {
		return Channel{}, errCrash
	}
	return l.Ledger.Close(ctx, c)
}

// TestOpeningSurvivesCrash: an opening that was broken off is taken up with the same nonce.
func TestOpeningSurvivesCrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, byRun := range []bool{false, true} {
			t.Run(fmt.Sprint(after, byRun), func(t *testing.T) {
				w := newWorld(t, nil)
				cut := &crashLedger{Ledger: w.book, before: !after, after: after}
				w.payer.acc.cfg.Ledger = cut
				w.payer.followDisk()
				_, err := w.payer.acc.EnsureChannel(t.Context(), w.payee.id, 1, 100)
				wantErr(t, err, errCrash)
				w.payer.crash(true)
				if byRun {
					w.payer.maintain()
				}
				w.payer.ensure(w.payee.id, 100)
				w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 1, "a"))
				all, err := w.book.Channels(t.Context(), w.payer.id)
				must(t, err)
				if len(all) != 1 {
					t.Fatalf("%d deposits", len(all))
				}
				w.balances(t, -100, 0)
			})
		}
	}
}

// TestOldOpeningIsDropped: after a long time nobody would take it.
func TestOldOpeningIsDropped(t *testing.T) {
	for _, byRun := range []bool{false, true} {
		w := newWorld(t, nil)
		w.payer.acc.cfg.Ledger = &crashLedger{Ledger: w.book, before: true}
		_, err := w.payer.acc.EnsureChannel(t.Context(), w.payee.id, 1, 100)
		wantErr(t, err, errCrash)
		w.payer.crash(false)
		w.clock.advance(48 * time.Hour)
		if byRun {
			w.payer.maintain()
			if n := w.payer.acc.Stats().Paying; n != 0 {
				t.Fatalf("%d channels", n)
			}
		}
		w.payer.ensure(w.payee.id, 50)
		w.balances(t, -50, 0)
		if n := w.payer.acc.Stats().Paying; n != 1 {
			t.Fatalf("%d channels", n)
		}
	}
}

// TestLostDatabase: deposits come back, and the payee can be paid again.
func TestLostDatabase(t *testing.T) {
	w := newWorld(t, nil)
	w.payer.ensure(w.payee.id, 100)
	w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 40, "a"))
	must(t, w.payee.acc.Settle(t.Context(), w.payer.id))
	must(t, w.payer.db.DropAll())
	w.payer.crash(false)
	w.payer.maintain()
	w.clock.advance(25 * time.Hour)
	w.payer.maintain()
	w.payee.maintain()
	w.balances(t, -40, 40)
	w.payer.ensure(w.payee.id, 100)
	if got := w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 40, "a2")); got != 40 {
		t.Fatalf("grew by %d", got)
	}
}

// TestIdleAndOld: idle channels are closed, closed ones forgotten, and with them the sums.
func TestIdleAndOld(t *testing.T) {
	w := newWorld(t, nil)
	w.payer.ensure(w.payee.id, 100)
	w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 40, "a"))
	w.clock.advance(31 * 24 * time.Hour)
	w.payee.maintain()
	w.payer.maintain()
	w.balances(t, -40, 40)
	w.agree(t, 40)
	w.clock.advance(31 * 24 * time.Hour)
	for _, n := range []*node{w.payer, w.payee} {
		n.acc.cfg.Ledger = forgetful{w.book}
		n.maintain()
		list, err := n.acc.Channels(t.Context())
		if must(t, err); len(list) != 0 {
			t.Errorf("still listed: %+v", list)
		}
	}
	w.agree(t, 0)
}

// forgetful is a ledger that has forgotten all closed channels.
type forgetful struct{ Ledger }

func (forgetful) Channels(context.Context, peer.ID) ([]Channel, error) { return nil, nil }

// TestManyAtOnce: payments of many goroutines, in every way, add up.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.payer.ensure(w.payee.id, 10_000)
	vouchers := make(chan Voucher, 1000)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				p := Payment{To: w.payee.id, Amount: 3, Ref: fmt.Appendf(nil, "%d %d", g/2, i)} // each by two
				v, err := w.payer.acc.Pay(context.Background(), p)
				if err != nil {
					t.Error(err)
				}
				vouchers <- v
			}
		})
	}
	wg.Go(func() {
		for i := range 20 {
			err := badger.ErrConflict
			for errors.Is(err, badger.ErrConflict) {
				err = w.payer.db.Update(func(txn *badger.Txn) error {
					_, err := w.payer.acc.PayTxn(txn, Payment{To: w.payee.id, Amount: 2, Ref: fmt.Append(nil, "txn", i)})
					return err
				})
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	for range 4 {
		wg.Go(func() {
			for range 30 {
				if _, err := w.payee.acc.Accept(context.Background(), w.payer.id, <-vouchers); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if err := errors.Join(w.payer.acc.Maintain(context.Background()), w.payee.acc.Maintain(context.Background())); err != nil {
				t.Error(err)
			}
			if _, err := w.payer.acc.Channels(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	vs, err := w.payer.acc.Last(t.Context(), w.payee.id)
	must(t, err)
	for _, v := range vs {
		w.payee.accept(w.payer.id, v)
	}
	w.agree(t, 4*20*3+20*2)
}

// TestRunEnds: Run looks after channels at once and ends with its context.
func TestRunEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.payer.ensure(w.payee.id, 100)
	w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 40, "a"))
	w.clock.advance(2 * time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	w.payee.acc.cfg.Ledger = tellSettled{w.book, cancel}
	go func() { done <- w.payee.acc.Run(ctx) }()
	must(t, <-done)
	w.balances(t, -100, 40)
}

type tellSettled struct {
	Ledger
	done func()
}

func (l tellSettled) Settle(ctx context.Context, v Voucher) (Channel, error) {
	defer l.done()
	return l.Ledger.Settle(ctx, v)
}

// TestSyncFails: when the disk does not take a payment, no voucher leaves, nor later.
func TestSyncFails(t *testing.T) {
	w := newWorld(t, nil)
	w.payer.ensure(w.payee.id, 100)
	v := w.payer.pay(w.payee.id, 1, "a")
	broken := errors.New("disk is broken")
	for _, n := range []*node{w.payer, w.payee} {
		n.acc.disk.Flush = func() error { return broken }
	}
	_, err := w.payee.acc.Accept(t.Context(), w.payer.id, v)
	wantErr(t, err, broken)
	for range 2 {
		_, err = w.payer.acc.Pay(t.Context(), Payment{To: w.payee.id, Amount: 1, Ref: []byte("b")})
		wantErr(t, err, broken)
	}
	_, err = w.payer.acc.Last(t.Context(), w.payee.id)
	wantErr(t, err, broken)
}

func TestConfig(t *testing.T) {
	c := newClock()
	good := newNode(t, "payer", c, newBook(t, c), nil).cfg
	cases := map[string]func(*Config){
		"no database":      func(c *Config) { c.DB = nil },
		"no ledger":        func(c *Config) { c.Ledger = nil },
		"no key":           func(c *Config) { c.Key = nil },
		"negative time":    func(c *Config) { c.SettleEvery = -1 },
		"too seldom looks": func(c *Config) { c.Every = time.Hour },
	}
	for name, change := range cases {
		cfg := good
		change(&cfg)
		if _, err := Open(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	must(t, good.DB.Update(func(txn *badger.Txn) error { return txn.Set([]byte("pay/v"), []byte{9}) }))
	_, err := Open(good)
	wantErr(t, err, ErrMalformed)
	if live(&pb.Record{Phase: pb.Record_Closed}) {
		t.Error("closed is live")
	}
}
