package dataset

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// BenchmarkCloses closes 10,000 files of 10 KiB one after the other, with a pass of Work after each: what a loop does
// that keeps up with whoever writes.
func BenchmarkCloses(bm *testing.B) {
	const files = 10000
	for bm.Loop() {
		bm.StopTimer()
		db := openDB(bm, bm.TempDir())
		b := newBox(bm, db)
		for i := range files / 100 {
			b.tree.mkdir(fmt.Sprint(i))
		}
		b.settle()
		begin := time.Now()
		bm.StartTimer()
		for i := range files {
			b.tree.write(fmt.Sprintf("%d/%d", i/100, i%100), b.tree.randomBytes(10<<10))
			_, err := b.d.Work(context.Background(), b.now)
			must(bm, err)
			if i == files/10-1 {
				bm.ReportMetric(float64(time.Since(begin).Microseconds())/(files/10), "µs/close-first-tenth")
			}
			if i == files-files/10 {
				begin = time.Now()
			}
		}
		bm.ReportMetric(float64(time.Since(begin).Microseconds())/(files/10), "µs/close-last-tenth")
		bm.StopTimer()
		must(bm, db.Close())
		bm.StartTimer()
	}
}
