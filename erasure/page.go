package erasure

import (
	"fmt"

	"github.com/ipfs/go-cid"
)

// A page is a dag-cbor block of whole groups:
//
//	{"groups": [{"chunks": [ID of each column …], "stripes": [[[data CIDs], [data lengths], [parity CIDs]] …]} …]}
//
// All CIDs are links. A parity shard is as long as the longest block of its stripe; it is not written.
const (
	pageTarget    = 256 << 10    // a page is written before it passes this; recovery of one block reads one
	pageHead      = 1 + 7 + 5    // map, key, list of groups
	maxGroupSize  = MaxPage - 64 // a group is never split
	minStripe     = 1 + 1 + minLink + 1 + minUint + 1
	minGroup      = 1 + 7 + 1 + minLink + 8 + 1 + minStripe
	maxGroups     = MaxPage / minGroup
	maxPageStripe = MaxPage / minStripe
)

// totals is what a part of a manifest holds, summed over all below it.
type totals struct {
	pages, stripes, blocks, bytes int64
}

func (t *totals) add(o totals) {
	t.pages += o.pages
	t.stripes += o.stripes
	t.blocks += o.blocks
	t.bytes += o.bytes
}

func groupTotals(g Group) totals {
	t := totals{stripes: int64(len(g.Stripes))}
	for _, s := range g.Stripes {
		t.blocks += int64(len(s.Data))
		for _, d := range s.Data {
			t.bytes += int64(d.Bytes)
		}
	}
	return t
}

// stripeSize returns how many bytes a stripe takes in a page, at most.
func stripeSize(s Stripe) int {
	n := 1 + 3 + 3 + 3
	for _, d := range s.Data {
		n += linkSize(d.CID) + 5
	}
	for _, p := range s.Parity {
		n += linkSize(p.CID)
	}
	return n
}

// groupOverhead returns how many bytes a group takes in a page beside its stripes, at most.
func groupOverhead(columns int) int { return 1 + 7 + 3 + columns*(2+2+1+36) + 8 + 5 }

func linkSize(c cid.Cid) int { return 2 + 2 + 1 + c.ByteLen() }

func putGroup(b []byte, g Group) []byte {
	b = putMap(b, 2)
	b = putText(b, "chunks")
	b = putList(b, len(g.Chunks))
	for _, c := range g.Chunks {
		b = putLink(b, c)
	}
	b = putText(b, "stripes")
	b = putList(b, len(g.Stripes))
	for _, s := range g.Stripes {
		b = putList(b, 3)
		b = putList(b, len(s.Data))
		for _, d := range s.Data {
			b = putLink(b, d.CID)
		}
		b = putList(b, len(s.Data))
		for _, d := range s.Data {
			b = putUint(b, int64(d.Bytes))
		}
		b = putList(b, len(s.Parity))
		for _, p := range s.Parity {
			b = putLink(b, p.CID)
		}
	}
	return b
}

// putPage puts a page's head before groups that were encoded one after another.
func putPage(groups int, encoded []byte) []byte {
	b := putMap(make([]byte, 0, pageHead+len(encoded)), 1)
	b = putText(b, "groups")
	b = putList(b, groups)
	return append(b, encoded...)
}

// decodePage reads a page of the code (k,m) and sums it up.
func decodePage(b []byte, k, m int) ([]Group, totals, error) {
	d := newDecoder(b)
	d.fields(1)
	d.key("groups")
	groups := make([]Group, d.list(maxGroups, minGroup))
	sum := totals{pages: 1}
	for i := range groups {
		groups[i] = d.group(k, m)
		if d.err != nil {
			break
		}
		sum.add(groupTotals(groups[i]))
	}
	if len(groups) == 0 {
		d.fail("no groups")
	}
	if err := d.end(); err != nil {
		return nil, totals{}, fmt.Errorf("decode page: %w", err)
	}
	return groups, sum, nil
}

func (d *decoder) group(k, m int) Group {
	d.fields(2)
	d.key("chunks")
	g := Group{Chunks: make([]cid.Cid, d.list(k+m, minLink))}
	for i := range g.Chunks {
		g.Chunks[i] = d.link(isPart)
	}
	d.key("stripes")
	g.Stripes = make([]Stripe, d.list(maxPageStripe, minStripe))
	width := 0
	for i := range g.Stripes {
		if g.Stripes[i] = d.stripe(k, m); d.err != nil {
			return Group{}
		}
		width += g.Stripes[i].Width()
	}
	switch columns := g.dataColumns() + m; {
	case len(g.Stripes) == 0:
		d.fail("group of no stripes")
	case len(g.Chunks) != columns:
		d.fail("%d chunks for %d columns", len(g.Chunks), columns)
	case width > MaxChunk:
		d.fail("chunk of %d bytes", width)
	}
	return g
}

func (d *decoder) stripe(k, m int) Stripe {
	d.tuple(3)
	data := make([]Shard, d.list(k, minLink+minUint))
	if len(data) == 0 {
		d.fail("stripe of no blocks")
	}
	for i := range data {
		data[i].CID = d.link(isBlock)
	}
	d.tuple(len(data))
	for i := range data {
		data[i].Bytes = int(d.uint(MaxBlock))
	}
	d.tuple(m)
	if d.err != nil || m > len(d.rest)/minLink {
		d.fail("stripe ends early")
		return Stripe{}
	}
	width := widest(data)
	parity := make([]Shard, m)
	for i := range parity {
		parity[i] = Shard{CID: d.link(isParity), Bytes: width}
	}
	return Stripe{Data: data, Parity: parity}
}
