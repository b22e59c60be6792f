package erasure

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/reedsolomon"
)

// Codec computes parity and what is lost, for one k and m. All methods may be called from many
// goroutines at once, each working on its own stripe; [Parallel] spreads stripes over the cores.
type Codec struct {
	k, m   int
	parity [][]byte                 // the generator's rows below the identity: m rows of k cells
	encode []atomic.Pointer[linear] // by number of blocks, made when first needed

	mu     sync.Mutex
	decode map[string]*linear // by pattern of loss; under mu
}

const (
	keptCodecs  = 64  // codes kept by New
	keptDecodes = 128 // patterns of loss kept by a Codec: lost providers make few
)

var codecs struct {
	sync.Mutex
	made map[[2]int]*Codec // under the lock
}

// New returns the codec for k data and m parity shards, k+m at most [MaxShards]. Codecs are kept, so
// that asking again is cheap. An m of 0 codes nothing and recovers nothing. It fails with ErrShape.
func New(k, m int) (*Codec, error) {
	if err := CheckCode(k, m); err != nil {
		return nil, err
	}
	codecs.Lock()
	defer codecs.Unlock()
	if c := codecs.made[[2]int{k, m}]; c != nil {
		return c, nil
	}
	c, err := newCodec(k, m)
	if err != nil {
		return nil, err
	}
	// A manifest may name any code: what strangers make us keep has a limit.
	if codecs.made == nil || len(codecs.made) >= keptCodecs {
		codecs.made = make(map[[2]int]*Codec)
	}
	codecs.made[[2]int{k, m}] = c
	return c, nil
}

// newCodec asks the library for its matrix: the parity of the unit vectors is the matrix itself.
func newCodec(k, m int) (*Codec, error) {
	c := &Codec{k: k, m: m, encode: make([]atomic.Pointer[linear], k+1), decode: make(map[string]*linear)}
	if m == 0 {
		return c, nil
	}
	enc, err := reedsolomon.New(k, m, reedsolomon.WithMaxGoroutines(1), reedsolomon.WithInversionCache(false))
	if err != nil {
		return nil, fmt.Errorf("make code (%d,%d): %w", k, m, err)
	}
	units := newMatrix(k+m, k)
	for i := range k {
		units[i][i] = 1
	}
	if err := enc.Encode(units); err != nil {
		return nil, fmt.Errorf("read matrix of code (%d,%d): %w", k, m, err)
	}
	c.parity = units[k:]
	return c, nil
}

// Data returns k, the number of blocks of a full stripe.
func (c *Codec) Data() int { return c.k }

// Parity returns m, the number of parity shards of every stripe.
func (c *Codec) Parity() int { return c.m }

// Encode returns the parity over 1 to k blocks of up to [MaxBlock] bytes each, as long as the longest of
// them. The blocks are only read. Parity's own memory is used where it suffices, so buffers can be used
// again; parity may be nil, and then memory comes from a pool, to which [Recycle] gives it back. The
// caller owns the result. It fails with ErrShape.
func (c *Codec) Encode(data, parity [][]byte) ([][]byte, error) {
	n := len(data)
	if n < 1 || n > c.k || len(parity) > c.m {
		return nil, shapef("encode %d blocks with %d buffers by code (%d,%d)", n, len(parity), c.k, c.m)
	}
	size := 0
	for _, b := range data {
		size = max(size, len(b))
	}
	if size > MaxBlock {
		return nil, shapef("encode block of %d bytes", size)
	}
	out := make([][]byte, c.m)
	copy(out, parity)
	for i := range out {
		out[i] = grow(out[i], size)
	}
	if c.m == 0 || size == 0 {
		return out, nil
	}
	l, err := c.encoder(n)
	if err != nil {
		return nil, err
	}
	return out, l.apply(data, out, size)
}

// encoder returns the map from n blocks to parity: the matrix without the columns of absent blocks.
func (c *Codec) encoder(n int) (*linear, error) {
	if l := c.encode[n].Load(); l != nil {
		return l, nil
	}
	rows := make([][]byte, c.m)
	for i := range rows {
		rows[i] = c.parity[i][:n:n]
	}
	l, err := newLinear(rows)
	if err != nil {
		return nil, err
	}
	c.encode[n].Store(l)
	return l, nil
}

// Protect encodes the blocks that data names, in the same order, and returns the whole stripe and the
// parity's bytes, for which parity gives memory as in [Codec.Encode]. It fails with ErrShape, also if
// a block is not as long as data says. Whether blocks hash to their CIDs is the caller's to know.
func (c *Codec) Protect(data []Shard, blocks, parity [][]byte) (Stripe, [][]byte, error) {
	if len(data) != len(blocks) {
		return Stripe{}, nil, shapef("protect %d blocks named by %d shards", len(blocks), len(data))
	}
	for i, b := range blocks {
		if len(b) != data[i].Bytes {
			return Stripe{}, nil, shapef("protect block of %d bytes said to have %d", len(b), data[i].Bytes)
		}
	}
	out, err := c.Encode(blocks, parity)
	if err != nil {
		return Stripe{}, nil, err
	}
	s := Stripe{Data: data, Parity: make([]Shard, len(out))}
	for i, p := range out {
		s.Parity[i] = Shard{CID: sumCID(cid.Raw, p), Bytes: len(p)}
	}
	return s, out, nil
}

func shapef(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrShape)...)
}
