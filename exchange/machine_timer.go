package exchange

import "time"

// alarm is something that waits for a time: an ask for its answer, a session for its next look
// around, a peer for the end of a pause.
type alarm interface {
	ring(m *machine)
}

// timer is the one time its owner waits for. It is embedded in the owner.
type timer struct {
	owner alarm
	at    time.Duration
	seq   uint64 // orders equal times, so that a machine repeats itself exactly
	pos   int    // position in the heap plus one; 0 when not set
}

// timers is a heap by time, out of which any timer can be taken.
type timers struct {
	heap []*timer
	seq  uint64
}

// set makes t wait for at, whatever it waited for before.
func (h *timers) set(t *timer, at time.Duration) {
	h.seq++
	t.at, t.seq = at, h.seq
	if t.pos == 0 {
		h.heap = append(h.heap, t)
		t.pos = len(h.heap)
	}
	if !h.up(t.pos - 1) {
		h.down(t.pos - 1)
	}
}

// stop takes t out. A timer that is not set may be stopped.
func (h *timers) stop(t *timer) {
	if t.pos == 0 {
		return
	}
	i, last := t.pos-1, len(h.heap)-1
	h.swap(i, last)
	h.heap[last] = nil
	h.heap = h.heap[:last]
	t.pos = 0
	if i < last && !h.up(i) {
		h.down(i)
	}
}

// due takes out the earliest timer if its time has come.
func (h *timers) due(now time.Duration) *timer {
	if len(h.heap) == 0 || h.heap[0].at > now {
		return nil
	}
	t := h.heap[0]
	h.stop(t)
	return t
}

// next returns the earliest time that somebody waits for.
func (h *timers) next() (time.Duration, bool) {
	if len(h.heap) == 0 {
		return 0, false
	}
	return h.heap[0].at, true
}

func (h *timers) less(i, j int) bool {
	a, b := h.heap[i], h.heap[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (h *timers) swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	h.heap[i].pos, h.heap[j].pos = i+1, j+1
}

func (h *timers) up(i int) bool {
	moved := false
	for i > 0 && h.less(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i, moved = (i-1)/2, true
	}
	return moved
}

func (h *timers) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h.heap); c++ {
			if h.less(c, least) {
				least = c
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}
