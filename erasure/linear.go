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
	step    int // bytes of each input that are worked on at once
}

// The library works through all of a shard for ten inputs and ten outputs, then for the next ten. A
// narrow code is done in one pass, limited by memory; a wide one is several times faster if what is
// passed over again is still in the cache. Steps also bound what is copied to pad unequal inputs.
const (
	narrowStep  = 64 << 10
	wideStep    = 8 << 10
	narrowCodes = 10
)

// zeros is what a shard is read as behind its end.
var zeros [narrowStep]byte

// newLinear makes the map of the given rows, one an output; all rows have one cell an input.
func newLinear(rows [][]byte) (*linear, error) {
	l := &linear{in: len(rows[0]), out: len(rows), step: narrowStep}
	if l.in > narrowCodes || l.out > narrowCodes {
		l.step = wideStep
	}
	// One goroutine a stripe: splitting a stripe over cores costs more than it gains, stripes in
	// parallel do not. The library's cache of inverted matrices has no bound and is not used here.
	mul, err := reedsolomon.New(l.in, l.out, reedsolomon.WithCustomMatrix(rows),
		reedsolomon.WithMaxGoroutines(1), reedsolomon.WithInversionCache(false))
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
	for from := 0; from < size; from += l.step {
		to := min(from+l.step, size)
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
