package payment

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// pair is a payer and a payee with a channel in a book.
type pair struct {
	t        testing.TB
	clock    *clock
	book     *Book
	payerKey crypto.PrivKey
	payeeKey crypto.PrivKey
	opening  Opening
	id       ChannelID
}

func newPair(t testing.TB, deposit Amount) *pair {
	t.Helper()
	p := &pair{t: t, clock: newClock()}
	p.book = newBook(t, p.clock)
	p.payerKey, _ = testKey(t, "payer")
	var payee peer.ID
	p.payeeKey, payee = testKey(t, "payee")
	var err error
	p.opening, err = NewOpening(p.payerKey, payee, deposit, time.Hour, p.clock.now())
	must(t, err)
	p.id = p.opening.ID()
	_, err = p.book.Open(context.Background(), p.opening)
	must(t, err)
	return p
}

func (p *pair) voucher(amount Amount, seq uint64) Voucher {
	v, err := NewVoucher(p.payerKey, p.id, amount, seq)
	must(p.t, err)
	return v
}

func (p *pair) close(key crypto.PrivKey, last Voucher) (Channel, error) {
	c, err := NewClosing(key, p.id, last)
	must(p.t, err)
	return p.book.Close(context.Background(), c)
}

// want checks state, settled amount and the two balances.
func (p *pair) want(state State, settled Amount, payer, payee int64) {
	p.t.Helper()
	ctx := context.Background()
	c, err := p.book.Channel(ctx, p.id)
	must(p.t, err)
	a, err := p.book.Account(ctx, p.opening.Payer)
	must(p.t, err)
	b, err := p.book.Account(ctx, p.opening.Payee)
	must(p.t, err)
	if c.State != state || c.Settled != settled || a.Balance != payer || b.Balance != payee {
		p.t.Fatalf("%s, settled %d, balances %d and %d; want %s, %d, %d and %d", c.State, c.Settled, a.Balance, b.Balance, state, settled, payer, payee)
	}
	checkBook(p.t, p.book)
}

func TestBookPayeeCloses(t *testing.T) {
	p := newPair(t, 100)
	p.want(StateOpen, 0, -100, 0)
	_, err := p.book.Settle(t.Context(), p.voucher(30, 3))
	must(t, err)
	p.want(StateOpen, 30, -100, 30)
	_, err = p.book.Settle(t.Context(), p.voucher(20, 2)) // an older one changes nothing
	must(t, err)
	_, err = p.book.Open(t.Context(), p.opening) // nor does the opening again
	must(t, err)
	p.want(StateOpen, 30, -100, 30)
	_, err = p.close(p.payeeKey, p.voucher(45, 4))
	must(t, err)
	p.want(StateClosed, 45, -45, 45)
	_, err = p.close(p.payeeKey, Voucher{})
	must(t, err)
	_, err = p.book.Settle(t.Context(), p.voucher(45, 4))
	must(t, err)
	_, err = p.book.Settle(t.Context(), p.voucher(46, 5))
	wantErr(t, err, ErrClosed)
	c, err := p.book.Open(t.Context(), p.opening)
	if must(t, err); c.State != StateClosed {
		t.Fatal("a replayed opening opened a channel again")
	}
	p.want(StateClosed, 45, -45, 45)
}

func TestBookPayerCloses(t *testing.T) {
	p := newPair(t, 100)
	_, err := p.close(p.payerKey, p.voucher(10, 1))
	must(t, err)
	p.want(StateClosing, 10, -100, 10)
	p.clock.advance(30 * time.Minute)
	c, err := p.close(p.payerKey, Voucher{})
	if must(t, err); c.Due.Unix() != p.clock.unix.Load()+1800 {
		t.Fatalf("closing again moved the end of the challenge period to %v", c.Due)
	}
	_, err = p.book.Settle(t.Context(), p.voucher(60, 2))
	must(t, err)
	_, err = p.book.Finish(t.Context(), p.id)
	wantErr(t, err, ErrNotDue)
	p.clock.advance(30 * time.Minute)
	_, err = p.book.Settle(t.Context(), p.voucher(70, 3))
	wantErr(t, err, ErrClosed)
	_, err = p.book.Finish(t.Context(), p.id)
	must(t, err)
	p.want(StateClosed, 60, -60, 60)
	_, err = p.book.Finish(t.Context(), p.id)
	must(t, err)
}

func TestBookRefuses(t *testing.T) {
	p := newPair(t, 100)
	ctx := t.Context()
	otherKey, other := testKey(t, "other")
	_, err := p.book.Settle(ctx, p.voucher(101, 1))
	wantErr(t, err, ErrDeposit)
	forged, err := NewVoucher(otherKey, p.id, 10, 1)
	must(t, err)
	_, err = p.book.Settle(ctx, forged)
	wantErr(t, err, ErrSignature)
	elsewhere := p.voucher(10, 1)
	elsewhere.Channel[0]++
	_, err = p.book.Settle(ctx, elsewhere)
	wantErr(t, err, ErrNoChannel)
	_, err = p.close(otherKey, Voucher{})
	wantErr(t, err, ErrParty)
	_, err = p.close(p.payeeKey, forged)
	wantErr(t, err, ErrSignature)

	c, err := NewClosing(p.payeeKey, p.id, p.voucher(50, 5))
	must(t, err)
	c.Last = Voucher{} // somebody drops the payee's voucher from its closing
	_, err = p.book.Close(ctx, c)
	wantErr(t, err, ErrSignature)
	c.By = p.opening.Payer
	_, err = p.book.Close(ctx, c)
	wantErr(t, err, ErrSignature)

	o := p.opening
	o.Deposit++
	_, err = p.book.Open(ctx, o)
	wantErr(t, err, ErrSignature)
	o.Signature, err = p.payerKey.Sign(o.signed())
	must(t, err)
	_, err = p.book.Open(ctx, o)
	wantErr(t, err, ErrExists)
	late, err := NewOpening(p.payerKey, other, 5, time.Hour, p.clock.now().Add(-25*time.Hour))
	must(t, err)
	_, err = p.book.Open(ctx, late)
	wantErr(t, err, ErrExpired)
	_, err = NewOpening(p.payerKey, p.opening.Payer, 5, time.Hour, p.clock.now())
	wantErr(t, err, ErrTerms)
	_, err = NewOpening(p.payerKey, other, MaxAmount+1, time.Hour, p.clock.now())
	wantErr(t, err, ErrOverflow)
	big, err := NewOpening(p.payerKey, other, MaxAmount-100, time.Hour, p.clock.now())
	must(t, err)
	_, err = p.book.Open(ctx, big)
	must(t, err)
	big, err = NewOpening(p.payerKey, other, MaxAmount, time.Hour, p.clock.now())
	must(t, err)
	_, err = p.book.Open(ctx, big)
	wantErr(t, err, ErrOverflow)
}

func TestBookLimitsAndForgetting(t *testing.T) {
	c := newClock()
	b, err := OpenBook(filepath.Join(t.TempDir(), "book.json"), BookConfig{Now: c.now, MaxPerPayer: 2, MaxChannels: 3})
	must(t, err)
	_, payee := testKey(t, "payee")
	open := func(name string) error {
		key, _ := testKey(t, name)
		o, err := NewOpening(key, payee, 10, 0, c.now())
		must(t, err)
		if _, err = b.Open(t.Context(), o); err == nil && name == "first" {
			cl, err := NewClosing(key, o.ID(), Voucher{})
			must(t, err)
			_, err = b.Close(t.Context(), cl) // without a challenge period it ends at once
			must(t, err)
		}
		return err
	}
	must(t, open("first"))
	must(t, open("first"))
	wantErr(t, open("first"), ErrLimit)
	must(t, open("second"))
	wantErr(t, open("third"), ErrLimit)
	c.advance(8 * 24 * time.Hour)
	must(t, open("third"))
	_, first := testKey(t, "first")
	if all, err := b.Channels(t.Context(), first); err != nil || len(all) != 0 {
		t.Fatalf("closed channels are kept for ever: %v %v", all, err)
	}
	checkBook(t, b)
}

// TestBookRefusesOtherFiles: what is not a whole book is neither read nor written over.
func TestBookRefusesOtherFiles(t *testing.T) {
	p := newPair(t, 100)
	good, err := os.ReadFile(p.book.Path())
	must(t, err)
	files := map[string][]byte{
		"empty":          {},
		"foreign text":   []byte("shopping list\n"),
		"foreign JSON":   []byte(`{"name": "something else"}`),
		"other version":  bytes.Replace(good, []byte("book/1"), []byte("book/2"), 1),
		"torn":           good[:len(good)/2],
		"zeros":          make([]byte, len(good)),
		"more after it":  append(bytes.Clone(good), "{}"...),
		"unknown field":  bytes.Replace(good, []byte(`"note"`), []byte(`"nota"`), 1),
		"not balanced":   bytes.Replace(good, []byte(`-100`), []byte(`-101`), 1),
		"other deposit":  bytes.Replace(good, []byte(`"deposit": 100`), []byte(`"deposit": 101`), 1),
		"negative":       bytes.Replace(good, []byte(`"deposit": 100`), []byte(`"deposit": -100`), 1),
		"other payee":    bytes.Replace(good, []byte(p.opening.Payee.String()), []byte(p.opening.Payer.String()), 1),
		"unknown state":  bytes.Replace(good, []byte(`"open"`), []byte(`"opened"`), 1),
		"closed, no end": bytes.Replace(good, []byte(`"open"`), []byte(`"closed"`), 1),
	}
	for name, content := range files {
		t.Run(name, func(t *testing.T) {
			if bytes.Equal(content, good) {
				t.Fatal("nothing was changed")
			}
			path := filepath.Join(t.TempDir(), "book.json")
			must(t, os.WriteFile(path, good, 0o640))
			b, err := OpenBook(path, BookConfig{Now: p.clock.now})
			must(t, err)
			must(t, os.WriteFile(path, content, 0o640))
			_, err = OpenBook(path, BookConfig{})
			wantErr(t, err, ErrBook)
			if !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not name the file: %v", err)
			}
			_, err = b.Settle(t.Context(), p.voucher(5, 1))
			wantErr(t, err, ErrBook)
			after, err := os.ReadFile(path)
			if must(t, err); !bytes.Equal(after, content) {
				t.Error("the file was written over")
			}
		})
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{pipe, t.TempDir()} {
		_, err := OpenBook(path, BookConfig{})
		wantErr(t, err, ErrBook)
	}
	huge := filepath.Join(t.TempDir(), "huge")
	must(t, os.WriteFile(huge, nil, 0o600))
	must(t, os.Truncate(huge, maxBookBytes+1))
	_, err = OpenBook(huge, BookConfig{})
	wantErr(t, err, ErrBook)
}

// TestBookKeepsLinksAndRights: a change replaces neither a link to the book nor its rights.
func TestBookKeepsLinksAndRights(t *testing.T) {
	p := newPair(t, 100)
	must(t, os.Chmod(p.book.Path(), 0o664))
	link := filepath.Join(t.TempDir(), "link.json")
	must(t, os.Symlink(p.book.Path(), link))
	b, err := OpenBook(link, BookConfig{Now: p.clock.now})
	must(t, err)
	_, err = b.Settle(t.Context(), p.voucher(9, 1))
	must(t, err)
	p.want(StateOpen, 9, -100, 9)
	info, err := os.Stat(p.book.Path())
	if must(t, err); info.Mode().Perm() != 0o664 {
		t.Errorf("rights are %v", info.Mode())
	}
	if target, err := os.Readlink(link); err != nil || target != p.book.Path() {
		t.Errorf("link points to %q, %v", target, err)
	}
	var head struct{ Note string }
	data, err := os.ReadFile(p.book.Path())
	must(t, err)
	must(t, json.Unmarshal(data, &head))
	if !strings.Contains(head.Note, "not money") {
		t.Errorf("the book says of itself: %q", head.Note)
	}
}

func TestBookLockHonoursContext(t *testing.T) {
	p := newPair(t, 100)
	f, err := lockFile(t.Context(), p.book.Path()+".lock")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	for range 2 { // one waits for the file, the other for its turn
		go func() {
			_, err := p.book.Settle(ctx, p.voucher(1, 1))
			done <- err
		}()
	}
	cancel()
	wantErr(t, <-done, context.Canceled)
	wantErr(t, <-done, context.Canceled)
	must(t, f.Close())
	_, err = p.book.Settle(t.Context(), p.voucher(1, 1))
	must(t, err)
	p.want(StateOpen, 1, -100, 1)
}

// TestBookWriteFails: where the new book can't be written, the old one stays and nothing is believed.
func TestBookWriteFails(t *testing.T) {
	p := newPair(t, 100)
	must(t, os.Mkdir(p.book.Path()+".tmp", 0o700))
	must(t, os.WriteFile(filepath.Join(p.book.Path()+".tmp", "x"), nil, 0o600))
	if _, err := p.book.Settle(t.Context(), p.voucher(5, 1)); err == nil {
		t.Fatal("settled without writing")
	}
	p.want(StateOpen, 0, -100, 0)
	must(t, os.RemoveAll(p.book.Path()+".tmp"))
	_, err := p.book.Settle(t.Context(), p.voucher(5, 1))
	must(t, err)
	p.want(StateOpen, 5, -100, 5)
}

// TestBookManyWriters: several books on one file, as several processes have, lose nothing.
func TestBookManyWriters(t *testing.T) {
	t.Parallel()
	c := newClock()
	path := filepath.Join(t.TempDir(), "book.json")
	const writers, rounds = 8, 12
	_, payee := testKey(t, "payee")
	var wg sync.WaitGroup
	errs := make(chan error, 2*writers)
	for w := range writers {
		key, _ := testKey(t, fmt.Sprint("writer ", w))
		b, err := OpenBook(path, BookConfig{Now: c.now})
		must(t, err)
		wg.Go(func() { errs <- openAndSettle(t.Context(), b, key, payee, c, rounds) })
		wg.Go(func() {
			for range 50 { // readers never see half a book
				if _, err := b.Accounts(t.Context()); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		must(t, err)
	}
	b, err := OpenBook(path, BookConfig{Now: c.now})
	must(t, err)
	got, err := b.Account(t.Context(), payee)
	if must(t, err); got.Balance != writers*rounds*3 {
		t.Fatalf("payee has %d", got.Balance)
	}
	checkBook(t, b)
}

// openAndSettle opens channels and settles 3 of the 10 in each.
func openAndSettle(ctx context.Context, b *Book, key crypto.PrivKey, payee peer.ID, c *clock, rounds int) error {
	for range rounds {
		o, err := NewOpening(key, payee, 10, time.Hour, c.now())
		if err != nil {
			return err
		}
		if _, err := b.Open(ctx, o); err != nil {
			return err
		}
		v, err := NewVoucher(key, o.ID(), 3, 1)
		if err != nil {
			return err
		}
		if _, err := b.Settle(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// TestBookRandom: random changes, one by one; accounts sum to zero after each, and the file says
// what the rules say.
func TestBookRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	p := newPair(t, 50)
	pairs := []*pair{p}
	for range 400 {
		q := pairs[rng.IntN(len(pairs))]
		before, err := q.book.Channel(t.Context(), q.id)
		must(t, err)
		amount := Amount(rng.IntN(60))
		switch rng.IntN(7) {
		case 0:
			q = &pair{t: t, clock: p.clock, book: p.book, payerKey: p.payerKey, payeeKey: p.payeeKey}
			q.opening, err = NewOpening(p.payerKey, p.opening.Payee, 1+amount, time.Hour, p.clock.now())
			must(t, err)
			q.id = q.opening.ID()
			before, err = p.book.Open(t.Context(), q.opening)
			pairs = append(pairs, q)
		case 1, 2, 3:
			_, err = q.book.Settle(t.Context(), q.voucher(amount, uint64(amount)))
		case 4:
			_, err = q.close([]crypto.PrivKey{q.payerKey, q.payeeKey}[rng.IntN(2)], []Voucher{{}, q.voucher(amount, uint64(amount))}[rng.IntN(2)])
		case 5:
			_, err = q.book.Finish(t.Context(), q.id)
		case 6:
			p.clock.advance(time.Duration(rng.IntN(3600)) * time.Second)
		}
		after, err2 := q.book.Channel(t.Context(), q.id)
		must(t, err2)
		if err != nil && after != before {
			t.Fatalf("%+v became %+v in spite of %v", before, after, err)
		}
		if after.Settled < before.Settled || before.State == StateClosed && after != before {
			t.Fatalf("%+v became %+v", before, after)
		}
		checkBook(t, p.book)
	}
}
