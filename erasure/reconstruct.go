package erasure

// Reconstruct rebuilds the lost shards of one stripe that want asks for, and no others, into shards.
//
// All three lists follow [Stripe.Shards]: the stripe's 1 to k blocks, then its m parity shards. A lost
// shard is nil or empty; an empty one's capacity is used if the longest wanted shard fits, else memory
// comes from a pool, to which [Recycle] gives it back. Lengths are the true ones, and shards are trimmed
// to them. A block of length zero is never lost. Shards must be checked before: any bytes of the right
// length are taken for true.
//
// It needs as many shards as the stripe has blocks, else ErrTooFew; ErrShape says that lists or lengths
// do not fit each other. On an error shards is unchanged.
func (c *Codec) Reconstruct(shards [][]byte, lengths []int, want []bool) error {
	if err := c.checkShape(shards, lengths, want); err != nil {
		return err
	}
	var missing []int // what is to be made
	size := 0         // of the longest of them: nothing behind it is computed
	for i := range shards {
		if !want[i] || len(shards[i]) > 0 {
			continue
		}
		missing = append(missing, i)
		size = max(size, lengths[i])
	}
	if size == 0 {
		for _, i := range missing {
			shards[i] = []byte{}
		}
		return nil
	}
	n := len(shards) - c.m
	have := make([]int, 0, n)
	for i := 0; i < len(shards) && len(have) < n; i++ {
		if lengths[i] == 0 || len(shards[i]) > 0 {
			have = append(have, i)
		}
	}
	if len(have) < n {
		return tooFew(len(have), n)
	}
	l, err := c.decoder(n, have, missing)
	if err != nil {
		return err
	}
	in, out := make([][]byte, n), make([][]byte, len(missing))
	for i, h := range have {
		in[i] = shards[h][:min(len(shards[h]), size)]
	}
	for i, w := range missing {
		out[i] = grow(shards[w], size)
	}
	if err := l.apply(in, out, size); err != nil {
		return err
	}
	for i, w := range missing {
		shards[w] = out[i][:lengths[w]]
	}
	return nil
}

func (c *Codec) checkShape(shards [][]byte, lengths []int, want []bool) error {
	n := len(shards) - c.m
	if n < 1 || n > c.k || len(lengths) != len(shards) || len(want) != len(shards) {
		return shapef("reconstruct from %d shards, %d lengths, %d wants by code (%d,%d)",
			len(shards), len(lengths), len(want), c.k, c.m)
	}
	width := 0
	for i, length := range lengths {
		if i < n {
			width = max(width, length)
		}
		if length < 0 || length > MaxBlock || i >= n && length != width {
			return shapef("reconstruct shard %d of %d bytes", i, length)
		}
		if len(shards[i]) > 0 && len(shards[i]) != length {
			return shapef("reconstruct from shard %d of %d bytes said to have %d", i, len(shards[i]), length)
		}
	}
	return nil
}

// decoder returns the map from the shards that are there to those wanted, in a stripe of n blocks.
func (c *Codec) decoder(n int, have, want []int) (*linear, error) {
	key := make([]byte, 0, 1+len(have)+len(want))
	key = append(key, byte(n)) // n ≤ 256, and 256 blocks leave no parity to decode with
	for _, i := range have {
		key = append(key, byte(i))
	}
	for _, i := range want {
		key = append(key, byte(i))
	}
	c.mu.Lock()
	l := c.decode[string(key)]
	c.mu.Unlock()
	if l != nil {
		return l, nil
	}
	l, err := newLinear(c.decodeRows(n, have, want))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.decode) >= keptDecodes {
		clear(c.decode)
	}
	c.decode[string(key)] = l
	return l, nil
}

// decodeRows solves for the wanted shards. With d the blocks at hand, x the lost ones and p as many
// parity shards, p = B·d + A·x, so x = A⁻¹·p + A⁻¹·B·d (signs do not matter in this field). A wanted
// parity shard is its own row times the blocks, each of them by its row.
func (c *Codec) decodeRows(n int, have, want []int) [][]byte {
	rows := newMatrix(n, n) // of all blocks over what is at hand
	at := make([]int, n)    // of a block at hand, its place in have, else -1
	for i := range at {
		at[i] = -1
	}
	var parity []int // the parity rows at hand
	for i, h := range have {
		if h < n {
			rows[h][i], at[h] = 1, i
		} else {
			parity = append(parity, h-n)
		}
	}
	var lost []int
	for i, a := range at {
		if a < 0 {
			lost = append(lost, i)
		}
	}
	c.solve(rows, at, lost, parity)
	result := newMatrix(len(want), n)
	for i, w := range want {
		if w < n {
			copy(result[i], rows[w])
			continue
		}
		for j := range n {
			gfAddScaled(result[i], rows[j], c.parity[w-n][j])
		}
	}
	return result
}

// solve fills in the rows of the lost blocks.
func (c *Codec) solve(rows [][]byte, at, lost, parity []int) {
	n, e := len(rows), len(lost)
	a, right := newMatrix(e, e), newMatrix(e, n) // A, and [B | identity] over what is at hand
	for i, p := range parity {
		for j, x := range lost {
			a[i][j] = c.parity[p][x]
		}
		for block, place := range at {
			if place >= 0 {
				right[i][place] = c.parity[p][block]
			}
		}
		right[i][n-e+i] = 1 // parity follows the blocks in have
	}
	inverse, ok := invert(a)
	if !ok {
		return // never: every square part of these parity rows has an inverse
	}
	for i, x := range lost {
		for j := range e {
			gfAddScaled(rows[x], right[j], inverse[i][j])
		}
	}
}
