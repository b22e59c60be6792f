package erasure

// The field GF(2^8) with the polynomial 0x11d and the generator 2, as klauspost/reedsolomon uses it.
// Here only small matrices are computed; bytes of shards go through the library.

// fieldTables are the powers of the generator, twice over so that sums of two logarithms need no
// reduction, and the logarithms.
type fieldTables struct {
	exp [510]byte
	log [256]int
}

var field = makeField()

func makeField() *fieldTables {
	var f fieldTables
	x := 1
	for i := range 255 {
		f.exp[i], f.exp[i+255] = byte(x), byte(x)
		f.log[x] = i
		if x <<= 1; x > 255 {
			x ^= 0x11d
		}
	}
	return &f
}

func gfMul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return field.exp[field.log[a]+field.log[b]]
}

// gfInv returns 1/a for a that is not zero.
func gfInv(a byte) byte { return field.exp[255-field.log[a]] }

// gfAddScaled adds c × src to dst.
func gfAddScaled(dst, src []byte, c byte) {
	if c == 0 {
		return
	}
	for i, v := range src {
		dst[i] ^= gfMul(v, c)
	}
}

// invert returns the inverse of the square matrix a, which it destroys; ok is false if there is none.
func invert(a [][]byte) (inverse [][]byte, ok bool) {
	n := len(a)
	inverse = newMatrix(n, n)
	for i := range n {
		inverse[i][i] = 1
	}
	for c := range n {
		pivot := c
		for pivot < n && a[pivot][c] == 0 {
			pivot++
		}
		if pivot == n {
			return nil, false
		}
		a[c], a[pivot] = a[pivot], a[c]
		inverse[c], inverse[pivot] = inverse[pivot], inverse[c]
		scale := gfInv(a[c][c])
		for i := range n {
			a[c][i], inverse[c][i] = gfMul(a[c][i], scale), gfMul(inverse[c][i], scale)
		}
		for r := range n {
			if f := a[r][c]; r != c && f != 0 {
				gfAddScaled(a[r], a[c], f)
				gfAddScaled(inverse[r], inverse[c], f)
			}
		}
	}
	return inverse, true
}

func newMatrix(rows, columns int) [][]byte {
	m := make([][]byte, rows)
	cells := make([]byte, rows*columns)
	for i := range m {
		m[i] = cells[i*columns : (i+1)*columns : (i+1)*columns]
	}
	return m
}
