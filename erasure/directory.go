package erasure

import (
	"fmt"

	"github.com/ipfs/go-cid"
)

// The pages of a manifest are the leaves of a tree. A directory is a dag-cbor block of a level above them:
//
//	{"level": 1 …, "pages": [[link, pages, stripes, blocks, bytes] …]}
//
// and links to pages (level 1) or to directories of the level below; the numbers sum up what is there.
const (
	fanout     = 2048 // entries of a directory; 4 levels hold more pages than 32 bits number
	maxLevel   = 4
	minEntries = 1 + minLink + 4*minUint

	maxBytes  = 1 << 50 // of a dataset, so that no sum overflows
	maxBlocks = 1 << 40
	maxPages  = 1<<32 - 1
)

// entry is a link to a page or directory with its totals.
type entry struct {
	link cid.Cid
	totals
}

func putEntries(b []byte, entries []entry) []byte {
	b = putList(b, len(entries))
	for _, e := range entries {
		b = putList(b, 5)
		b = putLink(b, e.link)
		b = putUint(b, e.pages)
		b = putUint(b, e.stripes)
		b = putUint(b, e.blocks)
		b = putUint(b, e.bytes)
	}
	return b
}

// entries reads entries that link to parts of the given level and sums them up.
func (d *decoder) entries(level int) ([]entry, totals) {
	list := make([]entry, d.list(fanout, minEntries))
	var sum totals
	for i := range list {
		e := &list[i]
		d.tuple(5)
		e.link = d.link(isPart)
		e.pages = d.uint(maxPages)
		e.stripes = d.uint(maxBlocks)
		e.blocks = d.uint(maxBlocks)
		e.bytes = d.uint(maxBytes)
		if d.err != nil {
			return nil, totals{}
		}
		if e.pages < 1 || level == 0 && e.pages != 1 || e.stripes < e.pages ||
			e.blocks < e.stripes || e.bytes > e.blocks*MaxBlock {
			d.fail("entry of %d pages, %d stripes, %d blocks, %d bytes", e.pages, e.stripes, e.blocks, e.bytes)
		}
		sum.add(e.totals)
	}
	if sum.pages > maxPages || sum.blocks > maxBlocks || sum.bytes > maxBytes {
		d.fail("too large a dataset")
	}
	return list, sum
}

func encodeDirectory(level int, entries []entry) []byte {
	b := putMap(make([]byte, 0, 16+len(entries)*72), 2)
	b = putText(b, "level")
	b = putUint(b, int64(level))
	b = putText(b, "pages")
	return putEntries(b, entries)
}

// decodeDirectory reads a directory of the given level, at least 1, and sums it up.
func decodeDirectory(b []byte, level int) ([]entry, totals, error) {
	d := newDecoder(b)
	d.fields(2)
	d.key("level")
	if got := d.uint(maxLevel); got != int64(level) {
		d.fail("level %d, want %d", got, level)
	}
	d.key("pages")
	entries, sum := d.entries(level - 1)
	if len(entries) == 0 {
		d.fail("empty directory")
	}
	if err := d.end(); err != nil {
		return nil, totals{}, fmt.Errorf("decode directory: %w", err)
	}
	return entries, sum, nil
}
