package uploader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// later lets time pass in a bubble.
func later(d time.Duration) { <-time.NewTimer(d).C }

func TestUploadOverStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 8)
		u, stop := start(t, n.config(), newMemory())
		defer stop()
		ctx := t.Context()
		a, b := n.file("a", 6, Policy{}), n.file("b", 3, Policy{Redundancy: 2})
		for _, f := range []File{a, b, a} {
			if err := u.AddFile(ctx, f); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range []File{a, b} {
			if err := u.Wait(ctx, f.ID); err != nil {
				t.Fatal(err)
			}
		}
		n.checkStored(a, 1)
		n.checkStored(b, 2)
		later(25 * time.Hour)
		n.with(func() {
			if n.most > 3 {
				t.Errorf("%d streams at once to a provider", n.most)
			}
			for c, times := range n.reads {
				if times > 2 { // one for each link
					t.Errorf("shard %s was read %d times", c, times)
				}
			}
		})
		if audits := n.count("audit"); audits < 12 {
			t.Errorf("%d audits of 12 links", audits)
		}
	})
}

// TestTroubleAtEachMessage has one provider do each thing that is wrong. Files reach uploaded on others.
func TestTroubleAtEachMessage(t *testing.T) {
	spoils := map[string]func(*served){
		"refuses":        func(s *served) { s.refuse = seal.RefusedLimit },
		"is full":        func(s *served) { s.free = 1 },
		"fills up":       func(s *served) { s.fillsUp = true },
		"signs other":    func(s *served) { s.forgery = true },
		"clock is off":   func(s *served) { s.skew = time.Hour },
		"clock is back":  func(s *served) { s.skew = -time.Hour },
		"is gone":        func(s *served) { s.gone = true },
		"short expiries": func(s *served) { s.expiry = time.Hour },
		"is dear":        func(s *served) { s.price = 1 << 50 },
	}
	for _, kind := range []string{"quote", "store", "channel", "map", "data", "sign", "voucher"} {
		spoils["stalls at "+kind] = func(s *served) { s.stallAt = kind }
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 5)
				for _, s := range n.order {
					s.price = 1 << 40
				}
				spoil(n.order[0])
				spoil(n.order[3])
				cfg, purse := n.config(), &purse{paid: make(map[string]payment.Amount)}
				cfg.Payments, cfg.MaxPricePerGiBDay = purse, 1<<41
				u, stop := start(t, cfg, newMemory())
				defer stop()
				f := n.file("f", 3, Policy{})
				if err := u.AddFile(t.Context(), f); err != nil {
					t.Fatal(err)
				}
				waitUploaded(t, u, f.ID)
				n.checkStored(f, 1)
				later(time.Minute)
				purse.mu.Lock()
				defer purse.mu.Unlock()
				if got := len(purse.paid); got != 3 {
					t.Errorf("%d links are paid of 3", got)
				}
			})
		})
	}
}

// purse pays without accounts. Nobody but the uploader's tasks uses it.
type purse struct {
	mu   sync.Mutex // guards paid
	paid map[string]payment.Amount
}

func (p *purse) EnsureChannel(context.Context, peer.ID, payment.Amount, payment.Amount) (payment.ChannelID, error) {
	return payment.ChannelID{1}, nil
}

func (p *purse) PayWith(_ context.Context, pay payment.Payment, fn func(*badger.Txn, payment.Voucher) error) (payment.Voucher, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := payment.Voucher{Channel: payment.ChannelID{1}, Amount: pay.Amount, Sequence: 1, Signature: []byte("signed")}
	if err := fn(nil, v); err != nil {
		return payment.Voucher{}, err
	}
	p.paid[string(pay.Ref)] = pay.Amount
	return v, nil
}

func (p *purse) Forget([]byte) error { return nil }

// waitUploaded waits through failures, for an hour.
func waitUploaded(t *testing.T, u *Uploader, id FileID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	err := u.Watch(ctx, func(s FileStatus) bool { return s.ID != id || s.State != Uploaded })
	if err != nil {
		s, _ := u.Status(t.Context(), id)
		links, _ := u.Links(t.Context())
		t.Fatalf("file is %s: %v\n%+v", s, err, links)
	}
}

// TestLiarsAreFoundOut: who says that all is there already, or shows wrong segments, is replaced.
func TestLiarsAreFoundOut(t *testing.T) {
	for name, spoil := range map[string]func(*served){
		"says it has all":      func(s *served) { s.liar = true },
		"shows wrong segments": func(s *served) { s.rotten = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 6)
				liar := n.order[2]
				spoil(liar)
				u, stop := start(t, n.config(), newMemory())
				defer stop()
				f := n.file("f", 5, Policy{})
				if err := u.AddFile(t.Context(), f); err != nil {
					t.Fatal(err)
				}
				waitUploaded(t, u, f.ID)
				later(25 * time.Hour)
				waitUploaded(t, u, f.ID)
				n.checkStored(f, 1)
				links, err := u.Links(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range links {
					if l.Provider == liar.id && l.State != LinkFailed {
						t.Errorf("link with the liar is %s", l.State)
					}
				}
			})
		})
	}
}

// TestProviderVanishes: after a while its links have failed, and the chunk is elsewhere.
func TestProviderVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 5)
		u, stop := start(t, n.config(), newMemory())
		defer stop()
		f := n.file("f", 4, Policy{})
		if err := u.AddFile(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		waitUploaded(t, u, f.ID)
		links, err := u.Links(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lost := n.peers[links[0].Provider]
		n.with(func() { lost.gone = true })
		if err := u.PeerGone(t.Context(), lost.id); err != nil {
			t.Fatal(err)
		}
		later(2 * time.Hour)
		waitUploaded(t, u, f.ID)
		n.checkStored(f, 1)
		n.with(func() { lost.gone = false }) // it comes back, and is told that it need not keep it
		later(time.Hour)
		n.with(func() {
			if kept := lost.kept(); len(kept) > 0 {
				t.Errorf("the provider that came back keeps %d chunks", len(kept))
			}
		})
	})
}

// TestRestarts stops the uploader again and again. In the end all is there, once.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 6)
		j := newMemory()
		f := n.file("f", 6, Policy{AutoRenew: true})
		for i := range 40 {
			u, stop := start(t, n.config(), j)
			if err := u.Put(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			commits := j.count()
			for j.count() < commits+1+i%3 && len(u.closed) == 0 {
				if s, err := u.Status(t.Context(), f.ID); err != nil || s.State == Uploaded {
					break
				}
			}
			stop()
		}
		u, stop := start(t, n.config(), j)
		defer stop()
		waitUploaded(t, u, f.ID)
		n.checkStored(f, 1)
		signed := 0
		n.with(func() {
			for _, s := range n.order {
				signed += s.signed
			}
		})
		if signed != 6 {
			t.Errorf("%d pledges for 6 chunks", signed)
		}
	})
}

// TestFullDisk: nothing is sent that could not be written down, and it goes on when space returns.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 3)
		j := newMemory()
		full := true
		j.fail = func() error {
			if full {
				return fmt.Errorf("write: %w", syscall.ENOSPC)
			}
			return nil
		}
		u, stop := start(t, n.config(), j)
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		f := n.file("f", 3, Policy{})
		if err := u.AddFile(ctx, f); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("add file to a full disk: %v", err)
		}
		if n.count("store") > 0 {
			t.Error("a request was sent that was not written down")
		}
		j.mu.Lock()
		full = false
		j.mu.Unlock()
		waitUploaded(t, u, f.ID)
		n.checkStored(f, 1)
	})
}

func TestFace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 0)
		u, stop := start(t, n.config(), newMemory())
		ctx := t.Context()
		f := n.file("f", 3, Policy{})
		if err := u.Update(ctx, f); !errors.Is(err, ErrNotFound) {
			t.Errorf("update of nothing: %v", err)
		}
		if err := u.AddFile(ctx, f); err != nil {
			t.Fatal(err)
		}
		other := n.file("other", 2, Policy{})
		other.ID = f.ID
		if err := u.AddFile(ctx, other); !errors.Is(err, ErrExists) {
			t.Errorf("add another file of the same ID: %v", err)
		}
		synctest.Wait()
		s, err := u.Status(ctx, f.ID)
		if err != nil || s.String() != "uploading: needs 3 providers, 0 known" {
			t.Errorf("file is %q, %v", s, err)
		}
		if err := u.Cancel(ctx, f.ID); err != nil {
			t.Fatal(err)
		}
		if err := u.Wait(ctx, f.ID); !errors.Is(err, ErrFailed) {
			t.Errorf("wait for a cancelled file: %v", err)
		}
		for range 3 {
			n.add()
		}
		if err := u.Retry(ctx, f.ID); err != nil {
			t.Fatal(err)
		}
		waitUploaded(t, u, f.ID)
		stop()
		if err := u.Remove(ctx, f.ID); !errors.Is(err, ErrClosed) {
			t.Errorf("remove after the end: %v", err)
		}
	})
}

func TestListings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 3)
		u, stop := start(t, n.config(), newMemory())
		defer stop()
		ctx := t.Context()
		f := n.file("f", 3, Policy{})
		if err := u.AddFile(ctx, f); err != nil {
			t.Fatal(err)
		}
		waitUploaded(t, u, f.ID)
		bad := n.file("bad", 1, Policy{})
		bad.Groups[0].Columns[0].Descriptor = []byte("something else")
		if err := u.AddFile(ctx, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("add a file with a wrong descriptor: %v", err)
		}
		list, err := u.ProviderList(ctx)
		if err != nil || len(list) != 3 {
			t.Errorf("%d providers, %v", len(list), err)
		}
		all, err := u.Uploads(ctx)
		if err != nil || len(all) != 1 || all[0].State != Uploaded || all[0].Done != all[0].Bytes {
			t.Errorf("uploads: %+v, %v", all, err)
		}
		links, err := u.Links(ctx, f.ID)
		if err != nil || len(links) != 3 || links[0].State != LinkSigned || links[0].Expiry.Before(time.Now().Add(someLifetime)) {
			t.Errorf("links: %+v, %v", links, err)
		}
		stats, err := u.Stats(ctx)
		if err != nil || stats.Files[Uploaded] != 1 || stats.Links[LinkSigned] != 3 || stats.Fit != 3 || stats.SealedBytes != 0 {
			t.Errorf("figures: %+v, %v", stats, err)
		}
		if err := u.Repair(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if audits := n.count("audit"); audits != 3 {
			t.Errorf("repair made %d audits of 3 links", audits)
		}
		if err := u.Remove(ctx, f.ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n.with(func() {
			for _, s := range n.order {
				if len(s.kept()) > 0 {
					t.Errorf("%s keeps what was removed", s.id)
				}
			}
		})
	})
}
