package erasure

import (
	"fmt"

	"github.com/ipfs/go-cid"
)

// Group is a run of stripes whose columns are chunks: first those of the data shards, as many as the
// longest stripe has blocks, then those of the m parity shards.
type Group struct {
	Stripes []Stripe
	Chunks  []cid.Cid // by column: the chunks' IDs
}

// dataColumns returns how many columns hold data.
func (g Group) dataColumns() int {
	n := 0
	for _, s := range g.Stripes {
		n = max(n, len(s.Data))
	}
	return n
}

// Columns returns the chunks of all columns, each in the order of the stripes. A stripe of fewer blocks
// than others has no shard in some of them.
func (g Group) Columns() []Chunk {
	if len(g.Stripes) == 0 {
		return nil
	}
	data := g.dataColumns()
	columns := make([]Chunk, data+len(g.Stripes[0].Parity))
	for _, s := range g.Stripes {
		for j, d := range s.Data {
			columns[j] = append(columns[j], d)
		}
		for j, p := range s.Parity {
			columns[data+j] = append(columns[data+j], p)
		}
	}
	return columns
}

// chunks returns the IDs of the chunks that a stripe's shards lie in, in the order of [Stripe.Shards].
func (g Group) chunks(s Stripe) []cid.Cid {
	ids := append(make([]cid.Cid, 0, len(s.Data)+len(s.Parity)), g.Chunks[:len(s.Data)]...)
	return append(ids, g.Chunks[g.dataColumns():]...)
}

// checkStripe says with ErrShape what is wrong with a stripe of the code (k,m).
func checkStripe(s Stripe, k, m int) error {
	if len(s.Data) < 1 || len(s.Data) > k || len(s.Parity) != m {
		return shapef("stripe of %d and %d shards in code (%d,%d)", len(s.Data), len(s.Parity), k, m)
	}
	for _, d := range s.Data {
		if d.Bytes < 0 || d.Bytes > MaxBlock || !isBlock(d.CID) {
			return shapef("data shard %s of %d bytes", d.CID, d.Bytes)
		}
	}
	width := s.Width()
	for _, p := range s.Parity {
		if p.Bytes != width || !isParity(p.CID) {
			return shapef("parity shard %s of %d bytes over blocks of up to %d", p.CID, p.Bytes, width)
		}
	}
	return nil
}

// Grouper puts stripes together into groups, in their order. A group ends where a chunk would pass
// [MaxChunk], where its entry in the manifest would pass a page, and before a block that it has already.
type Grouper struct {
	k, m  int
	emit  func(Group) error
	open  []Stripe
	width int                 // the open stripes' widths together: the longest column's bytes
	size  int                 // of their entry in a page, at most
	has   map[string]struct{} // hashes of their blocks

	described func(id cid.Cid, descriptor []byte) error // gets the descriptors before emit, if not nil
}

// NewGrouper returns a Grouper for stripes of the code (k,m). Emit gets each group when it is full, and
// owns it; its error is returned to who added the stripe. It fails with ErrShape.
func NewGrouper(k, m int, emit func(Group) error) (*Grouper, error) {
	if err := CheckCode(k, m); err != nil {
		return nil, err
	}
	return &Grouper{k: k, m: m, emit: emit, has: make(map[string]struct{})}, nil
}

// Add takes the next stripe. It fails with ErrShape, also if the stripe holds a block twice.
func (g *Grouper) Add(s Stripe) error {
	if err := checkStripe(s, g.k, g.m); err != nil {
		return err
	}
	width, size := s.Width(), stripeSize(s)
	again := false
	for _, d := range s.Data {
		_, has := g.has[string(d.CID.Hash())]
		again = again || has
	}
	if again || g.width+width > MaxChunk || g.size+size > maxGroupSize-groupOverhead(g.k+g.m) {
		if err := g.Flush(); err != nil {
			return err
		}
	}
	for i, d := range s.Data {
		key := string(d.CID.Hash())
		if _, has := g.has[key]; has {
			for _, earlier := range s.Data[:i] {
				delete(g.has, string(earlier.CID.Hash()))
			}
			return shapef("stripe with block %s twice", d.CID)
		}
		g.has[key] = struct{}{}
	}
	g.open = append(g.open, s)
	g.width += width
	g.size += size
	return nil
}

// Flush ends the open group, if there is one. More stripes may follow.
func (g *Grouper) Flush() error {
	if len(g.open) == 0 {
		return nil
	}
	full := Group{Stripes: g.open}
	g.open, g.width, g.size = nil, 0, 0
	clear(g.has)
	for j, column := range full.Columns() {
		id, descriptor, err := column.Encode()
		if err != nil {
			return fmt.Errorf("column %d: %w", j, err)
		}
		if g.described != nil {
			if err := g.described(id, descriptor); err != nil {
				return err
			}
		}
		full.Chunks = append(full.Chunks, id)
	}
	return g.emit(full)
}
