package erasure

import (
	"math/bits"
	"sync"
)

// Buffers are pooled by powers of two from 4 KiB, because buffers of the size of a block are dear to
// allocate and clear. Below that the allocator is as fast.
const (
	minPooled = 12
	maxPooled = 21 // MaxBlock
)

var (
	pools   [maxPooled + 1]sync.Pool // of *buffer, each with a capacity of 1<<index
	holders sync.Pool                // of *buffer without bytes, so that pooling allocates nothing
)

type buffer struct{ b []byte }

// getBuffer returns n bytes of any content.
func getBuffer(n int) []byte {
	if n <= 1<<(minPooled-1) || n > 1<<maxPooled {
		return make([]byte, n)
	}
	size := max(bits.Len(uint(n-1)), minPooled)
	p, ok := pools[size].Get().(*buffer)
	if !ok {
		return make([]byte, n, 1<<size)
	}
	b := p.b[:n]
	p.b = nil
	holders.Put(p)
	return b
}

// Recycle gives buffers back that came from [Codec.Encode], [Codec.Protect] or [Codec.Reconstruct].
// Nobody may use them any more. Calling it is optional.
func Recycle(buffers ...[]byte) {
	for _, b := range buffers {
		size := bits.Len(uint(cap(b))) - 1
		if size < minPooled || size > maxPooled || cap(b) != 1<<size {
			continue
		}
		p, ok := holders.Get().(*buffer)
		if !ok {
			p = new(buffer)
		}
		p.b = b
		pools[size].Put(p)
	}
}

// grow returns n bytes of any content: b's own memory if it is large enough, else from the pool.
func grow(b []byte, n int) []byte {
	if b != nil && cap(b) >= n {
		return b[:n]
	}
	return getBuffer(n)
}
