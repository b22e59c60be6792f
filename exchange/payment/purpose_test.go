package payment

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestPurposesStayApart: one payer and one payee with accounts of two purposes each, in one book.
func TestPurposesStayApart(t *testing.T) {
	with := func(p Purpose) func(*Config) { return func(c *Config) { c.Purpose = p } }
	w := newWorld(t, with(ForBlocks))
	storagePayer := newNode(t, "payer", w.clock, w.book, with(ForStorage))
	storagePayee := newNode(t, "payee", w.clock, w.book, with(ForStorage))

	blocks, storage := w.payer.ensure(w.payee.id, 100), storagePayer.ensure(w.payee.id, 100)
	if blocks == storage {
		t.Fatal("one channel is for two purposes")
	}
	forBlocks := w.payer.pay(w.payee.id, 10, "a")
	forStorage := storagePayer.pay(w.payee.id, 20, "a")
	_, err := storagePayee.acc.Accept(t.Context(), w.payer.id, forBlocks)
	wantErr(t, err, ErrTerms)
	_, err = w.payee.acc.Accept(t.Context(), w.payer.id, forStorage)
	wantErr(t, err, ErrTerms)
	grew, err := w.payee.acc.Accept(t.Context(), w.payer.id, forBlocks)
	must(t, err)
	more, err := storagePayee.acc.Accept(t.Context(), w.payer.id, forStorage)
	must(t, err)
	if grew != 10 || more != 20 {
		t.Errorf("accepted %d and %d, want 10 and 20", grew, more)
	}
	// Neither takes the other's channels for lost ones, whatever time passes.
	for _, n := range []*node{w.payer, storagePayer, w.payee, storagePayee} {
		w.clock.advance(25 * time.Hour)
		must(t, n.acc.Maintain(t.Context()))
	}
	for _, id := range []ChannelID{blocks, storage} {
		c, err := w.book.Channel(t.Context(), id)
		must(t, err)
		if c.State != StateOpen {
			t.Errorf("channel %s is %s", id, c.State)
		}
	}
	if got, err := w.payee.acc.Received(w.payer.id); err != nil || got != 10 {
		t.Errorf("received %d for blocks, %v", got, err)
	}
	if got, err := storagePayee.acc.Received(w.payer.id); err != nil || got != 20 {
		t.Errorf("received %d for storage, %v", got, err)
	}
}

// TestUsedUpChannelsMakeRoom: a payer of small deposits goes through many channels without the payee looking at the
// ledger in between.
func TestUsedUpChannelsMakeRoom(t *testing.T) {
	w := newWorld(t, nil)
	const deposits = 100
	for i := range deposits {
		w.payer.ensure(w.payee.id, 10)
		if grew := w.payee.accept(w.payer.id, w.payer.pay(w.payee.id, 10, fmt.Sprint(i))); grew != 10 {
			t.Fatalf("deposit %d: grew by %d", i, grew)
		}
	}
	w.agree(t, 10*deposits)
	// Channels with something left don't make room for others.
	for i := range w.payee.acc.cfg.Limits.PaidPerPeer + 1 {
		o, err := NewOpening(w.payer.key, w.payee.id, 100, 24*time.Hour, w.clock.now())
		must(t, err)
		c, err := w.book.Open(t.Context(), o)
		must(t, err)
		v, err := NewVoucher(w.payer.key, c.ID, 1, 1)
		must(t, err)
		if _, err = w.payee.acc.Accept(t.Context(), w.payer.id, v); i == w.payee.acc.cfg.Limits.PaidPerPeer {
			wantErr(t, err, ErrLimit)
		} else if err != nil && !errors.Is(err, ErrLimit) {
			t.Fatal(err)
		}
	}
}
