package erasure

import (
	"fmt"
	"math/bits"
	"slices"

	mh "github.com/multiformats/go-multihash"
)

// A Planner decides which blocks share a stripe, as they stream by.
//
// Parity is as long as a stripe's longest block, so blocks of like size belong together. Blocks are
// collected by size class, two classes an octave. A full class (k × depth blocks) is sorted by size and
// cut into stripes; what is left at the end, of all classes, is sorted and cut as one, the largest
// first, so that only the last stripe is shortened.
//
// Why that is enough: in a sorted row each stripe's longest block is no longer than any of the stripe
// before, so the padding of all stripes together is less than k × (longest − shortest of the row). In a
// class the longest is at most 1.5 × the shortest; spread over 8 stripes that is 1/16 of the bytes.
// For the rest it is one stripe, k × the longest. Hence parity ≤ m/k × 1.0625 × data + m × longest.
//
// Within a row, blocks of equal size can change places at no cost. Those are dealt to the row's stripes
// in turn, and each stripe begins one column further. So neighbours in a file come to lie in different
// stripes and different columns: a lost provider costs a file one block in k, hardly ever two in a row.
type Planner struct {
	k       int
	seen    Seen
	emit    func(data []Shard) error
	classes [sizeClasses][]Shard
	pending map[string]struct{} // hashes of the blocks in classes
	err     error               // the first one; it sticks
	stats   PlannerStats
}

// PlannerStats counts what a Planner did.
type PlannerStats struct {
	Blocks   int64 // blocks protected
	Bytes    int64 // their bytes
	Repeated int64 // blocks left out because they were seen before
	Inline   int64 // blocks left out because their bytes are in their CID
	Stripes  int64 // stripes emitted
	Padded   int64 // bytes of parity for m = 1: the sum of the stripes' widths
}

const (
	sizeClasses = 2*22 + 1 // of lengths 0, 1, 2, 3, 4–5, 6–7, 8–11, … , MaxBlock
	deepBelow   = 64 << 10 // classes of blocks shorter than this are collected deeper
	deepRow     = 32       // stripes in a row of short blocks: at most 8 MiB a column is waiting anyway
	shallowRow  = 8        // stripes in a row of long blocks: a column group of 1 MiB blocks
)

// MaxPending returns the most block descriptions that a Planner for k holds at a time.
func MaxPending(k int) int { return sizeClasses * k * deepRow }

// NewPlanner returns a Planner for stripes of k blocks. Emit gets the blocks of each stripe as it fills,
// in the order of their columns, and owns the slice; its error ends the plan. Blocks that seen has seen
// are left out; nil means a [Recent]. It fails with ErrShape.
func NewPlanner(k int, seen Seen, emit func(data []Shard) error) (*Planner, error) {
	if err := CheckCode(k, 0); err != nil {
		return nil, err
	}
	if seen == nil {
		seen = NewRecent(0)
	}
	return &Planner{k: k, seen: seen, emit: emit, pending: make(map[string]struct{})}, nil
}

// Add takes the next block of the dataset, in the order of the DAG; the order is what tells which blocks
// are neighbours. A block whose CID holds its bytes (identity) cannot be lost and is left out. It
// fails with ErrShape for a length out of bounds or a hash that peers accept no block by, or with the error of seen or emit.
func (p *Planner) Add(block Shard) error {
	if p.err == nil {
		p.err = p.add(block)
	}
	return p.err
}

func (p *Planner) add(block Shard) error {
	if block.CID.Defined() && block.CID.Prefix().MhType == mh.IDENTITY {
		p.stats.Inline++
		return nil
	}
	if !block.CID.Defined() || !isBlock(block.CID) || block.Bytes < 0 || block.Bytes > MaxBlock {
		return shapef("plan block %s of %d bytes", block.CID, block.Bytes)
	}
	// Seen may forget; a stripe with a block twice would be a stripe that loses two shards at once.
	key := string(block.CID.Hash())
	_, again := p.pending[key]
	if !again {
		var err error
		if again, err = p.seen.Add(block.CID); err != nil {
			return fmt.Errorf("ask whether %s was planned: %w", block.CID, err)
		}
	}
	if again {
		p.stats.Repeated++
		return nil
	}
	p.pending[key] = struct{}{}
	p.stats.Blocks++
	p.stats.Bytes += int64(block.Bytes)
	class := sizeClass(block.Bytes)
	p.classes[class] = append(p.classes[class], block)
	if len(p.classes[class]) < p.k*rowDepth(block.Bytes) {
		return nil
	}
	row := p.classes[class]
	p.classes[class] = row[:0]
	return p.cut(row)
}

// Close plans what is left. The Planner is of no use afterwards.
func (p *Planner) Close() error {
	if p.err != nil {
		return p.err
	}
	var rest []Shard
	for i := range p.classes {
		rest = append(rest, p.classes[i]...)
		p.classes[i] = nil
	}
	if p.err = p.cut(rest); p.err != nil {
		return p.err
	}
	p.err = fmt.Errorf("planner is closed: %w", ErrShape)
	return nil
}

// Stats returns what was done so far.
func (p *Planner) Stats() PlannerStats { return p.stats }

// cut sorts a row, which it only reads afterwards, and emits it as stripes.
func (p *Planner) cut(row []Shard) error {
	slices.SortStableFunc(row, func(a, b Shard) int { return b.Bytes - a.Bytes })
	stripes := make([][]Shard, (len(row)+p.k-1)/p.k)
	for i := range stripes {
		stripes[i] = make([]Shard, min(p.k, len(row)-i*p.k))
	}
	for from := 0; from < len(row); {
		to := from + 1
		for to < len(row) && row[to].Bytes == row[from].Bytes {
			to++
		}
		p.deal(stripes, row, from, to)
		from = to
	}
	for i, s := range stripes {
		p.stats.Stripes++
		p.stats.Padded += int64(widest(s))
		for _, b := range s {
			delete(p.pending, string(b.CID.Hash()))
		}
		if err := p.emit(rotate(s, i)); err != nil {
			return err
		}
	}
	return nil
}

// deal puts the blocks row[from:to], which are of one size, into the same places of the stripes, taking
// the stripes in turn.
func (p *Planner) deal(stripes [][]Shard, row []Shard, from, to int) {
	first, last := from/p.k, (to-1)/p.k
	next := from
	for place := range p.k {
		for s := first; s <= last; s++ {
			if at := s*p.k + place; at >= from && at < to {
				stripes[s][place] = row[next]
				next++
			}
		}
	}
}

// rotate moves every block of a stripe by columns further.
func rotate(s []Shard, by int) []Shard {
	by %= len(s)
	return append(append(make([]Shard, 0, len(s)), s[len(s)-by:]...), s[:len(s)-by]...)
}

// sizeClass returns the class of a length: two an octave, so 1.5 × wide at most.
func sizeClass(n int) int {
	if n == 0 {
		return 0
	}
	octave := bits.Len(uint(n)) - 1
	return 1 + 2*octave + n>>max(0, octave-1)&min(1, octave)
}

func rowDepth(n int) int {
	if n < deepBelow {
		return deepRow
	}
	return shallowRow
}
