package exchange

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// takeVouchers has payments of the peer accepted aside, as each is written to the disk.
func (r *remote) takeVouchers(vouchers [][]byte) {
	if r.ledger == nil || r.ledger.s.cfg.Till == nil {
		return
	}
	r.vouchers.add(vouchers)
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	if !r.n.stopped {
		r.startLocked(&r.vouchersOn, r.acceptVouchers)
	}
}

const (
	// vouchersPerSecond of one peer are accepted, and so many at once: each is written to the disk, and a payer that
	// pays in crumbs must not keep the disk busy. Of those that wait the last ones count.
	vouchersPerSecond = 200
	vouchersAtOnce    = 32
)

// acceptVouchers accepts payments until the remote ends. A bad one pays nothing, and is no reason to do without
// the peer: who does not pay gets no more blocks.
func (r *remote) acceptVouchers() {
	pace := rate.NewLimiter(vouchersPerSecond, vouchersAtOnce)
	refused := 0
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.vouchers.wake:
		}
		for _, v := range r.vouchers.take() {
			if pace.Wait(r.ctx) != nil {
				return
			}
			if err := r.ledger.paid(v); err != nil && r.ctx.Err() == nil {
				r.n.counts.refusedPayments.Add(1)
				level := slog.LevelWarn
				if refused++; refused > 1 { // a peer must not fill the log
					level = slog.LevelDebug
				}
				r.n.cfg.Logger.Log(r.ctx, level, "payment not accepted", "peer", r.id, "err", err)
			}
		}
	}
}

// payAgain sends a peer that has come what it may have lost of our payments.
func (n *HostNetwork) payAgain(p peer.ID) {
	if n.cfg.Owed == nil {
		return
	}
	vouchers, err := n.cfg.Owed(n.ctx, p)
	if err != nil && n.ctx.Err() == nil {
		n.cfg.Logger.Warn("last payments are not sent again", "peer", p, "err", err)
	}
	n.Pay(p, vouchers)
}
