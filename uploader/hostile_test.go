package uploader

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// TestNobodyIsLeft has all providers do the same wrong thing: the file is not uploaded, and says why. When honest ones
// come it goes up.
func TestNobodyIsLeft(t *testing.T) {
	type bad struct {
		spoil func(*served)
		says  string
	}
	bads := map[string]bad{
		"refuses":          {func(s *served) { s.refuse = seal.RefusedLimit }, "limit: not now"},
		"is full":          {func(s *served) { s.free = 1 }, "needs 3 providers, 0 known, 4 do not fit: 1 bytes are free"},
		"fills up":         {func(s *served) { s.fillsUp = true }, "full: no space for data"},
		"signs other":      {func(s *served) { s.forgery = true }, "pledge"},
		"has all already":  {func(s *served) { s.liar = true }, "segment does not lead to the root"},
		"clock is off":     {func(s *served) { s.skew = time.Hour }, "0 known, 4 do not fit: clock-skew: its clock differs by 1h0m0s"},
		"is gone":          {func(s *served) { s.gone = true }, "needs 3 providers, 0 known"},
		"is dear":          {func(s *served) { s.price = 1 << 50 }, "0 known, 4 do not fit: price of"},
		"keeps it briefly": {func(s *served) { s.expiry = time.Hour }, "0 known, 4 do not fit: nothing is kept longer"},
	}
	for _, kind := range []string{"store", "channel", "map", "data", "sign"} {
		bads["stalls at "+kind] = bad{func(s *served) { s.stallAt = kind }, "no answer in time"}
	}
	for name, b := range bads {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 4)
				for _, s := range n.order {
					s.price = 1 << 40
					b.spoil(s)
				}
				cfg := n.config()
				cfg.Payments, cfg.MaxPricePerGiBDay, cfg.AuditInterval = &purse{paid: make(map[string]payment.Amount)}, 1<<41, 10*time.Minute
				u, stop := start(t, cfg, newMemory())
				defer stop()
				f := n.file("f", 3, Policy{})
				if err := u.AddFile(t.Context(), f); err != nil {
					t.Fatal(err)
				}
				later(time.Hour)
				s, err := u.Status(t.Context(), f.ID)
				if err != nil || s.State == Uploaded || !strings.Contains(s.String(), b.says) {
					t.Errorf("file is %q, %v, want %q", s, err, b.says)
				}
				for range 3 {
					n.add()
				}
				waitUploaded(t, u, f.ID)
				later(10 * time.Minute) // and stays so
				waitUploaded(t, u, f.ID)
				n.checkStored(f, 1)
			})
		})
	}
}

// TestAuditsAreNotAnswered: a provider that answers everything else, but audits with silence or excuses, is replaced.
func TestAuditsAreNotAnswered(t *testing.T) {
	for name, spoil := range map[string]func(s *served){
		"silence":          func(s *served) { s.stallAt = "audit" },
		"busy":             func(s *served) { s.excuse = seal.RefusedBusy },
		"failed":           func(s *served) { s.excuse = seal.RefusedFailed },
		"not yet invented": func(s *served) { s.excuse = 200 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 5)
				cfg := n.config()
				cfg.AuditInterval = time.Hour
				u, stop := start(t, cfg, newMemory())
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
				bad := n.peers[links[0].Provider]
				n.with(func() { spoil(bad) })
				for range 6 { // other files make it answer other requests
					later(time.Hour)
					if err := u.AddFile(t.Context(), n.file(time.Now().String(), 1, Policy{Redundancy: 5})); err != nil {
						t.Fatal(err)
					}
				}
				waitUploaded(t, u, f.ID)
				if links, err = u.Links(t.Context(), f.ID); err != nil {
					t.Fatal(err)
				}
				for _, l := range links {
					if l.Provider == bad.id && l.State == LinkSigned {
						t.Errorf("link that can't be audited is %s: %q", l.State, l.Reason)
					}
				}
			})
		})
	}
}

// TestRenewalsAreNotAnswered: a provider that does not renew is replaced before its pledge ends.
func TestRenewalsAreNotAnswered(t *testing.T) {
	for name, spoil := range map[string]func(s *served){
		"silence": func(s *served) { s.stallAt = "renew" },
		"busy":    func(s *served) { s.excuse = seal.RefusedBusy },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 5)
				cfg := n.config()
				cfg.AuditInterval = 1000 * time.Hour
				u, stop := start(t, cfg, newMemory())
				defer stop()
				f := n.file("f", 4, Policy{AutoRenew: true, Lifetime: 8 * 24 * time.Hour})
				if err := u.AddFile(t.Context(), f); err != nil {
					t.Fatal(err)
				}
				waitUploaded(t, u, f.ID)
				links, err := u.Links(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				bad := n.peers[links[0].Provider]
				n.with(func() { spoil(bad) })
				later(time.Until(links[0].Expiry) - time.Hour)
				if links, err = u.Links(t.Context()); err != nil {
					t.Fatal(err)
				}
				good := 0
				for _, l := range links {
					if l.State == LinkSigned && l.Provider != bad.id && time.Until(l.Expiry) > 24*time.Hour {
						good++
					}
				}
				if good != 4 {
					t.Errorf("%d links last, want 4: %+v", good, links)
				}
			})
		})
	}
}
