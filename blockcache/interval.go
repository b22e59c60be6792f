package blockcache

import (
	"encoding/binary"
	"slices"
)

// span is the half-open byte range [lo, hi).
type span struct{ lo, hi uint64 }

// spans is a set of bytes: sorted, disjoint, never touching ranges.
type spans []span

// find returns the index of the first range that ends after off.
func (s spans) find(off uint64) int {
	i, _ := slices.BinarySearchFunc(s, off, func(x span, off uint64) int {
		if x.hi <= off {
			return -1
		}
		return 1
	})
	return i
}

// overlaps reports whether any byte of [lo, hi) is in the set.
func (s spans) overlaps(lo, hi uint64) bool {
	i := s.find(lo)
	return i < len(s) && s[i].lo < hi
}

// covers reports whether every byte of [lo, hi) is in the set.
func (s spans) covers(lo, hi uint64) bool {
	i := s.find(lo)
	return lo >= hi || i < len(s) && s[i].lo <= lo && hi <= s[i].hi
}

// add puts [lo, hi) into the set.
func (s spans) add(lo, hi uint64) spans {
	if lo >= hi {
		return s
	}
	i := s.find(lo)
	if i > 0 && s[i-1].hi == lo {
		i--
	}
	j := i
	for j < len(s) && s[j].lo <= hi {
		lo, hi = min(lo, s[j].lo), max(hi, s[j].hi)
		j++
	}
	return slices.Replace(s, i, j, span{lo, hi})
}

// remove takes [lo, hi) out of the set.
func (s spans) remove(lo, hi uint64) spans {
	if lo >= hi {
		return s
	}
	i := s.find(lo)
	j := i
	var keep []span
	for j < len(s) && s[j].lo < hi {
		if s[j].lo < lo {
			keep = append(keep, span{s[j].lo, lo})
		}
		if s[j].hi > hi {
			keep = append(keep, span{hi, s[j].hi})
		}
		j++
	}
	return slices.Replace(s, i, j, keep...)
}

// bytes counts the set.
func (s spans) bytes() uint64 {
	var n uint64
	for _, x := range s {
		n += x.hi - x.lo
	}
	return n
}

// encode writes the set as pairs of gap and length.
func (s spans) encode() []byte {
	var b []byte
	var at uint64
	for _, x := range s {
		b = binary.AppendUvarint(b, x.lo-at)
		b = binary.AppendUvarint(b, x.hi-x.lo)
		at = x.hi
	}
	return b
}

// decodeSpans is the inverse of encode; ok is false for anything else.
func decodeSpans(b []byte) (s spans, ok bool) {
	var at uint64
	for len(b) > 0 {
		gap, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, false
		}
		length, m := binary.Uvarint(b[n:])
		if m <= 0 || length == 0 || at+gap < at || at+gap+length < at+gap || len(s) > 0 && gap == 0 {
			return nil, false
		}
		s = append(s, span{at + gap, at + gap + length})
		at += gap + length
		b = b[n+m:]
	}
	return s, true
}
