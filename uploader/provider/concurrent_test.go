package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// fine says whether an error is a refusal that needs no explanation: nothing of the provider's failed.
func fine(err error) bool {
	var r *seal.Refusal
	return err == nil || errors.As(err, &r) && r.Code != seal.RefusedFailed && r.Code != seal.RefusedMalformed
}

// TestConcurrent has writers store, renew, audit and release the same chunks side by side, with readers
// and the work of Run between, and holds the sums together at the end.
func TestConcurrent(t *testing.T) {
	n := newNode(t, func(c *Config) {
		c.PricePerGiBDay, c.Limits.OpenFiles, c.QuotaBytes = 1<<30, 3, 4<<20
		c.saveEvery = time.Millisecond
	})
	pieces := []*piece{makePiece(t, 1, 70_000, 500), makePiece(t, 2, 200_000), makePiece(t, 3, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	var workers, others sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 5))
			for i := range 25 {
				l := n.newLink(fmt.Sprint("writer ", w/2), byte(100*(w%2)+i), pieces[r.IntN(len(pieces))])
				live(t, n, l, r)
			}
		})
	}
	others.Go(func() {
		for ctx.Err() == nil {
			if err := n.p.tend(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			if err := n.p.sweepWriters(); err != nil {
				t.Error(err)
			}
			must(t, n.p.Links(context.Background(), func(Link) bool { return true }))
			n.p.Stats()
		}
	})
	others.Go(func() {
		for ctx.Err() == nil {
			for _, pc := range pieces {
				b, err := n.p.Get(t.Context(), pc.chunk[0].CID)
				if err != nil && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
				if err == nil && !bytes.Equal(b.RawData(), pc.blocks[0]) {
					t.Error("a wrong block was served")
				}
			}
		}
	})
	workers.Wait()
	cancel()
	others.Wait()
	n.checkSums()
	st := n.p.Stats()
	if st.Failed > 0 || st.Damaged > 0 || st.Signed == 0 {
		t.Errorf("%d requests failed, %d copies are damaged, %d pledges signed", st.Failed, st.Damaged, st.Signed)
	}
	for _, pc := range pieces {
		for w := range 2 {
			must(t, ignore(n.newLink(fmt.Sprint("writer ", w), 0, pc).release(), seal.RefusedUnknownLink))
		}
	}
	n.checkSums()
	if st := n.p.Stats(); st.UsedBytes != 0 {
		t.Errorf("%d bytes are used", st.UsedBytes)
	}
}

func ignore(err error, code seal.RefusalCode) error {
	if errors.Is(err, &seal.Refusal{Code: code}) {
		return nil
	}
	return err
}

// live takes a link some way, as others of the same writer and chunk do at the same time.
func live(t *testing.T, n *node, l *link, r *rand.Rand) {
	pledge, err := l.store()
	if !fine(err) {
		t.Error(err)
	}
	if err != nil {
		return
	}
	if err := pledge.Check(l.want()); err != nil {
		t.Error(err)
	}
	steps := []func() error{
		func() error { _, err := l.audit(0); return err },
		func() error { _, err := l.sign(); return err },
		func() error { return l.pay(uint64(r.IntN(1000))) },
		func() error {
			_, err := l.renew(linkID(byte(r.IntN(256))), l.expiry.Add(time.Duration(r.IntN(1000))*time.Hour), 1<<30)
			return err
		},
		l.release,
	}
	for range 3 {
		if err := steps[r.IntN(len(steps))](); !fine(err) {
			t.Error(err)
		}
	}
}
