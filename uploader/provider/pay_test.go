package provider

import (
	"context"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

func paidNode(t testing.TB) *node {
	return newNode(t, func(c *Config) { c.PricePerGiBDay = 1 << 30 })
}

func (n *node) earned(from peer.ID) Earning {
	n.t.Helper()
	all, err := n.p.Earnings(n.t.Context())
	must(n.t, err)
	for _, e := range all {
		if e.Writer == from {
			return e
		}
	}
	return Earning{Writer: from}
}

func TestPaymentNeedsChannelAndPledge(t *testing.T) {
	n := paidNode(t)
	l := n.newLink("ann", 1, makePiece(t, 1, 70_000))
	_, err := l.agree()
	must(t, err)
	_, err = l.sendMap()
	wantRefusal(t, err, seal.RefusedNoChannel)
	wantRefusal(t, n.ask(l.from, &seal.OpenChannel{Channel: [32]byte{9}}, &seal.BasicAnswer{}), seal.RefusedNoChannel)
	must(t, l.openChannel())
	must(t, l.openChannel())
	missing, err := l.sendMap()
	must(t, err)
	wantRefusal(t, l.pay(l.price), seal.RefusedNotStored)
	if got, _ := n.till.Received(t.Context(), l.from); got != 0 {
		t.Errorf("%d was taken before the pledge", got)
	}
	_, err = l.send(missing)
	must(t, err)
	_, err = l.sign()
	must(t, err)
	wantRefusal(t, l.pay(l.price-1), seal.RefusedPrice)
	if e := n.earned(l.from); e.Earned != 0 || e.Credit != l.price-1 || e.Pledges != 1 {
		t.Errorf("after a part: %+v", e)
	}
	must(t, l.pay(l.price))
	must(t, l.pay(l.price))
	must(t, l.pay(1)) // an older one
	if e := n.earned(l.from); e.Earned != l.price || e.Credit != 0 {
		t.Errorf("after all: %+v", e)
	}
	wantRefusal(t, n.ask(l.from, &seal.Voucher{Link: l.id, Voucher: []byte("what")}, &seal.BasicAnswer{}), seal.RefusedMismatch)
	n.clock.advance(2 * time.Hour)
	n.tend()
	if _, err := l.audit(0); err != nil {
		t.Errorf("a paid chunk is gone after the grace: %v", err)
	}
	n.checkSums()
}

func TestUnpaidIsDropped(t *testing.T) {
	n := paidNode(t)
	l := n.newLink("ann", 1, makePiece(t, 1, 70_000))
	l.mustStore()
	n.clock.advance(59 * time.Minute)
	n.tend()
	_, err := l.audit(0)
	must(t, err)
	n.clock.advance(2 * time.Minute)
	n.tend()
	for name, got := range map[string]error{
		"audit": func() error { _, err := l.audit(0); return err }(),
		"sign":  func() error { _, err := l.sign(); return err }(),
		"agree": func() error { _, err := l.agree(); return err }(),
		"renew": func() error { _, err := l.renew(linkID(2), l.expiry.Add(time.Hour), 1<<40); return err }(),
		"pay":   l.pay(l.price),
	} {
		if !errors.Is(got, &seal.Refusal{Code: seal.RefusedUnpaid}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got, _ := n.till.Received(t.Context(), l.from); got != 0 {
		t.Errorf("%d was taken for what was dropped", got)
	}
	if st := n.p.Stats(); st.UsedBytes != 0 {
		t.Errorf("%d bytes are used", st.UsedBytes)
	}
	must(t, l.release())
	n.checkSums()
}

// The last voucher says it all: one for the second link pays the first as well.
func TestLastVoucherPaysAll(t *testing.T) {
	n := paidNode(t)
	one := n.newLink("ann", 1, makePiece(t, 1, 70_000))
	two := n.newLink("ann", 2, makePiece(t, 2, 90_000))
	one.mustStore()
	two.mustStore()
	must(t, two.pay(one.price+two.price))
	n.clock.advance(2 * time.Hour)
	n.tend()
	for _, l := range []*link{one, two} {
		if _, err := l.audit(0); err != nil {
			t.Errorf("a paid chunk was dropped: %v", err)
		}
	}
	if e := n.earned(one.from); e.Earned != one.price+two.price || e.Credit != 0 {
		t.Errorf("earned %+v", e)
	}
	n.checkSums()
}

// A till that breaks after it has taken a voucher: what it received is found.
func TestVoucherWithUnknownOutcome(t *testing.T) {
	n := paidNode(t)
	l := n.newLink("ann", 1, makePiece(t, 1, 70_000))
	l.mustStore()
	n.till.broken = errors.New("broken")
	wantRefusal(t, l.pay(l.price), seal.RefusedFailed)
	n.till.broken = nil
	must(t, l.pay(l.price))
	if e := n.earned(l.from); e.Earned != l.price || e.Credit != 0 {
		t.Errorf("earned %+v", e)
	}
}

// accountsTill is how the node's accounts become a provider's till.
type accountsTill struct {
	a      *payment.Accounts
	ledger payment.Ledger
}

func (t accountsTill) Accept(ctx context.Context, from peer.ID, b []byte) (uint64, error) {
	v, err := payment.UnmarshalVoucher(b)
	if err != nil {
		return 0, err
	}
	grew, err := t.a.Accept(ctx, from, v)
	return uint64(grew), err
}

func (t accountsTill) Received(_ context.Context, from peer.ID) (uint64, error) {
	sum, err := t.a.Received(from)
	return uint64(sum), err
}

func (t accountsTill) Channel(ctx context.Context, from peer.ID, id [32]byte) error {
	c, err := t.ledger.Channel(ctx, id)
	if err == nil && (c.Payer != from || c.Payee != t.a.Self() || c.State != payment.StateOpen) {
		err = payment.ErrParty
	}
	return err
}

// With real channels: paid by vouchers of the payment room, through the same database.
func TestRealPayments(t *testing.T) {
	n := newNode(t, nil)
	n.stop()
	n.life++
	book, err := payment.OpenBook(filepath.Join(n.root, "book.json"), payment.BookConfig{Now: n.clock.now})
	must(t, err)
	annKey, annID := testKey(t, "ann")
	annDB := openDB(t, filepath.Join(n.root, "ann"))
	defer annDB.Close()
	ann, err := payment.Open(payment.Config{DB: annDB, Ledger: book, Key: annKey, Now: n.clock.now})
	must(t, err)
	n.cfg.DB = openDB(t, n.path("db"))
	accounts, err := payment.Open(payment.Config{DB: n.cfg.DB, Prefix: []byte("pay/"), Ledger: book, Key: n.cfg.Key, Now: n.clock.now})
	must(t, err)
	n.cfg.Till, n.cfg.PricePerGiBDay, n.cfg.Dir = accountsTill{accounts, book}, 1<<30, n.path("chunks")
	n.p, err = Open(n.cfg)
	must(t, err)
	n.alive = true
	l := n.newLink("ann", 1, makePiece(t, 1, 70_000))
	id, err := ann.EnsureChannel(t.Context(), n.id, payment.Amount(l.price), payment.Amount(10*l.price))
	must(t, err)
	_, err = l.agree()
	must(t, err)
	must(t, n.ask(annID, &seal.OpenChannel{Channel: id}, &seal.BasicAnswer{}))
	missing, err := l.sendMap()
	must(t, err)
	_, err = l.send(missing)
	must(t, err)
	_, err = l.sign()
	must(t, err)
	v, err := ann.Pay(t.Context(), payment.Payment{To: n.id, Amount: payment.Amount(l.price), Ref: l.id[:]})
	must(t, err)
	b, err := v.Marshal()
	must(t, err)
	for range 2 {
		must(t, n.ask(annID, &seal.Voucher{Link: l.id, Voucher: b}, &seal.BasicAnswer{}))
	}
	if e := n.earned(annID); e.Earned != l.price || e.Credit != 0 {
		t.Errorf("earned %+v", e)
	}
	wrong, err := payment.NewVoucher(annKey, sha256.Sum256(nil), 5, 1)
	must(t, err)
	b, err = wrong.Marshal()
	must(t, err)
	wantRefusal(t, n.ask(annID, &seal.Voucher{Link: l.id, Voucher: b}, &seal.BasicAnswer{}), seal.RefusedNoChannel)
}
