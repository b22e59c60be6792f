package erasure

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Parallel calls do with 0 to n-1 on as many goroutines as there are cores and returns when all have
// ended: with nil, or with the error of the lowest number that failed. After an error no more are begun.
func Parallel(n int, do func(i int) error) error {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers <= 1 {
		for i := range n {
			if err := do(i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		next   atomic.Int64
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed = n // the lowest number that failed, and its error; under mu
		first  error
	)
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					next.Store(int64(n))
					mu.Lock()
					if i < failed {
						failed, first = i, err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}

func tooFew(have, need int) error {
	return fmt.Errorf("%d of %d shards needed: %w", have, need, ErrTooFew)
}
