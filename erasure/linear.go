package erasure

import (
	"fmt"

	"github.com/klauspost/reedsolomon"
)

// linear maps inputs to outputs by a matrix over GF(2^8). Encoding is one such map, decoding another
// for each pattern of loss; the library multiplies, whichever it is. Safe for many goroutines.
type linear struct {
	mul     reedsolomon.Encoder
	in, out int
}

// step is how many bytes of each shard are worked on at once. It bounds what is copied to pad unequal
// inputs, and larger steps were not measured faster.
const step = 64 << 10

// One goroutine a stripe is best: splitting a stripe over cores costs more than it gains where there
// are other stripes. But for more than ten inputs or outputs the library has its fast way, in which the
// data stays in the cache between passes, only for two goroutines and more (2.4 × on (64,32)).
const (
	narrow       = 10
	wideSplit    = 2
	wideMinSplit = 1 << 10
)

// zeros is what a shard is read as behind its end.
var zeros [step]byte

// newLinear makes the map of the given rows, one an output; all rows have one cell an input.
func newLinear(rows [][]byte) (*linear, error) {
	l := &linear{in: len(rows[0]), out: len(rows)}
	split := reedsolomon.WithMaxGoroutines(1)
	if l.in > narrow || l.out > narrow {
		split = reedsolomon.WithMaxGoroutines(wideSplit)
	}
	// The library's cache of inverted matrices has no bound; nothing is inverted there.
	mul, err := reedsolomon.New(l.in, l.out, reedsolomon.WithCustomMatrix(rows), split,
		reedsolomon.WithMinSplitSize(wideMinSplit), reedsolomon.WithInversionCache(false))
	if err != nil {
		return nil, fmt.Errorf("prepare %d × %d code: %w", l.in, l.out, err)
	}
	l.mul = mul
	return l, nil
}

// apply computes the first size bytes of all outputs. Inputs are read as if zeros followed them, or
// cut at size. Outputs must have size bytes each.
func (l *linear) apply(in, out [][]byte, size int) error {
	window := make([][]byte, l.in+l.out)
	var padded [][]byte
	for from := 0; from < size; from += step {
		to := min(from+step, size)
		padded = padded[:0]
		for i, b := range in {
			switch {
			case len(b) >= to:
				window[i] = b[from:to]
			case len(b) <= from:
				window[i] = zeros[:to-from]
			default:
				p := getBuffer(to - from)
				clear(p[copy(p, b[from:]):])
				window[i] = p
				padded = append(padded, p)
			}
		}
		for i, b := range out {
			window[l.in+i] = b[from:to]
		}
		err := l.mul.Encode(window)
		Recycle(padded...)
		if err != nil {
			return fmt.Errorf("multiply shards: %w", err)
		}
	}
	return nil
}
