package fs

import "slices"

const (
	// firstWindow is how many bytes are asked for ahead when a reader is first seen to be sequential.
	firstWindow = 1 << 20

	// spansKept is how many separate ranges a reader may have under way before the oldest is forgotten. The kernel
	// sends its own readahead as several requests at once, which arrive in any order.
	spansKept = 16

	// slack is how large a hole in a range may be: pages that the kernel has are not read again.
	slack = 64 << 10
)

// span is a range of bytes that was read.
type span struct{ from, to uint64 }

// sequence watches the reads of one handle and says what to fetch ahead. It only counts: no IO, clock or lock. Reads
// that touch each other grow into one span, in whatever order they come; the second one that goes forward starts the
// readahead, and the window doubles each time the reader gets within half of it, up to max.
type sequence struct {
	max    uint64 // bytes
	size   uint64 // the file's length
	spans  []span // the one used last at the end
	window uint64
	ahead  uint64 // everything before it, from the running span on, was asked for
}

// observe takes note of a read of n bytes at off and returns the range to fetch ahead, empty most times.
func (s *sequence) observe(off, n uint64) (from, to uint64) {
	run := span{off, off + n}
	forward := false
	keep := s.spans[:0]
	for _, old := range s.spans {
		if old.to+slack < run.from || old.from > run.to {
			keep = append(keep, old)
			continue
		}
		forward = forward || off >= old.from && off+n > old.to
		run = span{min(run.from, old.from), max(run.to, old.to)}
	}
	s.spans = append(keep, run)
	if len(s.spans) > spansKept {
		s.spans = slices.Delete(s.spans, 0, 1)
	}
	if !forward || s.max == 0 || run.to >= s.size {
		return 0, 0
	}
	return s.advance(run)
}

// advance moves the window for a reader that has everything up to the end of run.
func (s *sequence) advance(run span) (from, to uint64) {
	switch {
	case s.window == 0 || run.from > s.ahead || s.ahead > run.to+2*s.max:
		// Nothing is ahead of this reader: it just began, or jumped.
		s.ahead, s.window = run.to, min(firstWindow, s.max)
	case s.ahead > run.to && s.ahead-run.to > s.window/2:
		return 0, 0
	default:
		s.ahead, s.window = max(s.ahead, run.to), min(2*s.window, s.max)
	}
	from = s.ahead
	to = min(run.to+s.window, s.size)
	if to <= from {
		return 0, 0
	}
	s.ahead = to
	return from, to
}
