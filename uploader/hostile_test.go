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
				cfg.Payments, cfg.MaxPricePerGiBDay, cfg.AuditInterval = &purse{paid: make(map[string]payment.Amount)}, 1<<41, time.Minute
				u, stop := start(t, cfg, newMemory())
				defer stop()
				f := n.file("f", 3, Policy{})
				if err := u.AddFile(t.Context(), f); err != nil {
					t.Fatal(err)
				}
				later(3 * time.Hour)
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
