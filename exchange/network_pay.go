package exchange

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

// acceptVouchers accepts payments until the remote ends. A bad one pays nothing, and is no reason to do without
// the peer: who does not pay gets no more blocks.
func (r *remote) acceptVouchers() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.vouchers.wake:
		}
		for _, v := range r.vouchers.take() {
			if err := r.ledger.paid(v); err != nil && r.ctx.Err() == nil {
				r.n.counts.refusedPayments.Add(1)
				r.n.cfg.Logger.Warn("payment not accepted", "peer", r.id, "err", err)
			}
		}
	}
}
