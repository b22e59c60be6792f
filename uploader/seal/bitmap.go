package seal

import "math/bits"

// Bitmap is a set of segments of one chunk. The zero Bitmap is empty.
type Bitmap [MaxSegments / 8]byte

// AllSegments returns the set of the first n segments.
func AllSegments(n int) (b Bitmap) {
	for i := range min(n, MaxSegments) {
		b.Set(i)
	}
	return b
}

// Set adds segment i; one that no chunk has is ignored.
func (b *Bitmap) Set(i int) {
	if i >= 0 && i < MaxSegments {
		b[i/8] |= 1 << (i % 8)
	}
}

// Clear removes segment i.
func (b *Bitmap) Clear(i int) {
	if i >= 0 && i < MaxSegments {
		b[i/8] &^= 1 << (i % 8)
	}
}

// Has says whether segment i is in the set.
func (b Bitmap) Has(i int) bool {
	return i >= 0 && i < MaxSegments && b[i/8]&(1<<(i%8)) != 0
}

// Count returns how many segments are in the set.
func (b Bitmap) Count() int {
	n := 0
	for _, x := range b {
		n += bits.OnesCount8(x)
	}
	return n
}

// Missing returns the first n segments without those in b.
func (b Bitmap) Missing(n int) Bitmap {
	m := AllSegments(n)
	for i := range m {
		m[i] &^= b[i]
	}
	return m
}

// Next returns the first segment in the set from i on, or -1.
func (b Bitmap) Next(i int) int {
	for i = max(i, 0); i < MaxSegments; i++ {
		if b.Has(i) {
			return i
		}
	}
	return -1
}
