package blockcache

import (
	"os"
	"strconv"
	"testing"
)

// BenchmarkOpen opens a store of many blocks after a clean and after an unclean stop. It has 100,000
// blocks of 200 bytes, or HOLDFAST_BLOCKS.
func BenchmarkOpen(b *testing.B) {
	n := 100_000
	if v, err := strconv.Atoi(os.Getenv("HOLDFAST_BLOCKS")); err == nil {
		n = v
	}
	s := newBox(b, StoreConfig{})
	es := make([]Entry, 0, maxPart)
	for i := range n {
		es = append(es, Entry{Block: randBlock(b, uint64(i), 200)})
		if len(es) == cap(es) || i == n-1 {
			mustPut(b, s, es...)
			es = es[:0]
		}
	}
	b.Run("clean", func(b *testing.B) {
		for range b.N {
			must(b, s.Store.Close())
			s.reopenStore(false)
		}
	})
	b.Run("unclean", func(b *testing.B) {
		for range b.N {
			s.crash()
		}
	})
	if got := s.Stats().Blocks; got != int64(n) {
		b.Errorf("%d blocks of %d", got, n)
	}
}
