package uploader

import (
	"container/heap"
	"time"
)

// timer is one time that its owner waits for. Call is what happens then.
type timer struct {
	at   time.Duration
	seq  uint64 // orders equal times, so that a machine repeats itself exactly
	pos  int    // in the heap plus one; 0 when not set
	call func()
}

// on says whether the timer is set.
func (t *timer) on() bool { return t.pos > 0 }

func (t *timer) ring() { t.call() }

// timers is a heap by time, out of which any timer can be taken.
type timers struct {
	heap timerHeap
	seq  uint64
}

// set makes t call fn at a time, whatever it waited for before.
func (h *timers) set(t *timer, at time.Duration, fn func()) {
	h.stop(t)
	h.seq++
	t.at, t.seq, t.call = at, h.seq, fn
	heap.Push(&h.heap, t)
}

// stop takes t out. A timer that is not set may be stopped.
func (h *timers) stop(t *timer) {
	if t.on() {
		heap.Remove(&h.heap, t.pos-1)
	}
}

// due takes out the earliest timer if its time has come.
func (h *timers) due(now time.Duration) *timer {
	if len(h.heap) == 0 || h.heap[0].at > now {
		return nil
	}
	return heap.Pop(&h.heap).(*timer)
}

// next returns the earliest time that somebody waits for.
func (h *timers) next() (time.Duration, bool) {
	if len(h.heap) == 0 {
		return 0, false
	}
	return h.heap[0].at, true
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i+1, j+1
}

// Push implements heap.Interface.
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	*h = append(*h, t)
	t.pos = len(*h)
}

// Pop implements heap.Interface.
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.pos = 0
	return t
}
