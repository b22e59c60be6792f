package test

import (
	"context"
	"sync"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestWhoCantPayGetsTheCredit lets another implementation, which knows nothing of payments, fetch from a peer
// that takes money: it gets what the credit gives and no more, while who pays gets all.
func TestWhoCantPayGetsTheCredit(t *testing.T) {
	t.Parallel()
	const credit, size = 4 << 20, 24 << 20
	s := swarm.New(t)
	a := s.Start("a", "--price", "1000", "--credit", "4MiB")
	file := s.RandomFile(size, 5, "file")
	root := a.Add(file)

	dag := newBoxoDAG(t, uio2025)
	guest := startBoxo(t, dag)
	guest.connect(a)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := merkledag.FetchGraph(ctx, cid.MustParse(root), guest.online); err == nil {
			t.Error("who pays nothing got everything")
		}
	})
	defer work.Wait()
	defer cancel()
	s.Eventually("the guest has what the credit gives", func() bool { return dag.size(t) >= credit-1<<20 })

	b := s.Start("b", "--max-price", "1000", "--budget", "1000000")
	b.Connect(a)
	b.Must("get", root, "-o", s.Path("out"))
	s.MustSh(`cmp "$1" "$2"`, file, s.Path("out"))
	s.Eventually("all is paid", func() bool { return b.Figure(owed) == 0 && a.Figure("money.earned") >= 24_000 })

	// A debt is forgotten so slowly that the guest has at most a block more, and the one that went over the credit.
	got := dag.size(t)
	t.Logf("the guest got %.2f MiB of %d with a credit of %d", float64(got)/(1<<20), size>>20, credit>>20)
	if got > credit+2<<20 {
		t.Errorf("who pays nothing got %d bytes with a credit of %d", got, credit)
	}
	b.Kill() // it has everything now, and asks nothing for it
	c := s.Start("c")
	c.Connect(a)
	refused(t, c, 1, []string{"too dear"}, "get", root, "-o", s.Path("nothing"))
}

// size is how much the blockstore holds.
func (b *boxoDAG) size(t *testing.T) (sum int64) {
	t.Helper()
	keys, err := b.bs.AllKeysChan(t.Context())
	must(t, err)
	for k := range keys {
		n, err := b.bs.GetSize(t.Context(), k)
		must(t, err)
		sum += int64(n)
	}
	return sum
}
