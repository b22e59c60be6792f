package payment

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkPay pays one peer from so many goroutines. syncs/op tells how many payments share a sync.
func BenchmarkPay(b *testing.B) {
	for _, at := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", at), func(b *testing.B) {
			w := newWorld(b, nil)
			w.payer.ensure(w.payee.id, MaxAmount/2)
			var n atomic.Int64
			before := w.payer.acc.Stats().Syncs
			b.ResetTimer()
			share(b, at, func() error {
				_, err := w.payer.acc.Pay(context.Background(), Payment{To: w.payee.id, Amount: 1, Ref: fmt.Append(nil, n.Add(1))})
				return err
			})
			b.ReportMetric(float64(w.payer.acc.Stats().Syncs-before)/float64(b.N), "syncs/op")
		})
	}
}

// BenchmarkAccept takes vouchers of so many peers at once.
func BenchmarkAccept(b *testing.B) {
	for _, at := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("peers=%d", at), func(b *testing.B) {
			w := newWorld(b, nil)
			type payer struct {
				*node
				id  ChannelID
				seq uint64
			}
			payers := make(chan *payer, at)
			for i := range at {
				p := &payer{node: &node{t: b}}
				p.key, p.node.id = testKey(b, fmt.Sprint("payer ", i))
				o, err := NewOpening(p.key, w.payee.id, MaxAmount/2, 24*60*60e9, w.clock.now())
				must(b, err)
				_, err = w.book.Open(context.Background(), o)
				must(b, err)
				p.id = o.ID()
				payers <- p
			}
			before := w.payee.acc.Stats().Syncs
			b.ResetTimer()
			share(b, at, func() error {
				p := <-payers
				defer func() { payers <- p }()
				p.seq++
				v, err := NewVoucher(p.key, p.id, Amount(p.seq), p.seq)
				if err == nil {
					_, err = w.payee.acc.Accept(context.Background(), p.node.id, v)
				}
				return err
			})
			b.ReportMetric(float64(w.payee.acc.Stats().Syncs-before)/float64(b.N), "syncs/op")
		})
	}
}

// BenchmarkBookSettle settles in a book of so many channels.
func BenchmarkBookSettle(b *testing.B) {
	for _, channels := range []int{10, 1000} {
		b.Run(fmt.Sprintf("channels=%d", channels), func(b *testing.B) {
			p := newPair(b, MaxAmount/2)
			l, err := p.book.read(true)
			must(b, err)
			l = l.clone()
			for range channels {
				o, err := NewOpening(p.payerKey, p.opening.Payee, 10, 0, p.clock.now())
				must(b, err)
				_, err = l.open(o, p.book.now())
				must(b, err)
			}
			l.revision++
			must(b, p.book.write(l))
			n := Amount(0)
			for b.Loop() {
				n++
				_, err := p.book.Settle(context.Background(), p.voucher(n, uint64(n)))
				must(b, err)
			}
		})
	}
}

// share runs b.N calls of fn in so many goroutines.
func share(b *testing.B, at int, fn func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range at {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := fn(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
