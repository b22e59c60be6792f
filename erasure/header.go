package erasure

import (
	"fmt"

	"github.com/ipfs/go-cid"
)

// ManifestSchema is the value of the field "schema", by which a manifest is known.
const ManifestSchema = "holdfast/manifest/1"

// header is the manifest block itself:
//
//	{"k": …, "m": …, "root": link, "bytes": …, "index": [[link, entries] …], "level": …,
//	 "pages": [[link, pages, stripes, blocks, bytes] …], "blocks": …, "schema": …, "stripes": …}
//
// Its entries are pages at level 0, else directories of that level.
type header struct {
	root  cid.Cid
	k, m  int
	level int
	sum   totals
	pages []entry
	index []runLink
}

func (h *header) encode() []byte {
	b := putMap(make([]byte, 0, 256+len(h.pages)*72+len(h.index)*48), 10)
	b = putText(b, "k")
	b = putUint(b, int64(h.k))
	b = putText(b, "m")
	b = putUint(b, int64(h.m))
	b = putText(b, "root")
	b = putLink(b, h.root)
	b = putText(b, "bytes")
	b = putUint(b, h.sum.bytes)
	b = putText(b, "index")
	b = putList(b, len(h.index))
	for _, r := range h.index {
		b = putList(b, 2)
		b = putLink(b, r.link)
		b = putUint(b, r.entries)
	}
	b = putText(b, "level")
	b = putUint(b, int64(h.level))
	b = putText(b, "pages")
	b = putEntries(b, h.pages)
	b = putText(b, "blocks")
	b = putUint(b, h.sum.blocks)
	b = putText(b, "schema")
	b = putText(b, ManifestSchema)
	b = putText(b, "stripes")
	return putUint(b, h.sum.stripes)
}

// decodeHeader reads a manifest block, whose sums must be those of its entries.
func decodeHeader(b []byte) (*header, error) {
	d, h := newDecoder(b), new(header)
	d.fields(10)
	d.key("k")
	h.k = int(d.uint(MaxShards))
	d.key("m")
	h.m = int(d.uint(MaxShards))
	if err := CheckCode(h.k, h.m); err != nil {
		d.fail("%v", err)
	}
	d.key("root")
	h.root = d.link(isRoot)
	d.key("bytes")
	bytes := d.uint(maxBytes)
	d.key("index")
	indexed := d.runs(h)
	d.key("level")
	h.level = int(d.uint(maxLevel))
	d.key("pages")
	h.pages, h.sum = d.entries(h.level)
	d.key("blocks")
	blocks := d.uint(maxBlocks)
	d.key("schema")
	d.text(ManifestSchema)
	d.key("stripes")
	stripes := d.uint(maxBlocks)
	switch {
	case bytes != h.sum.bytes || blocks != h.sum.blocks || stripes != h.sum.stripes:
		d.fail("sums are not those of the pages")
	case h.sum.pages <= unindexed && len(h.index) > 0 || h.sum.pages > unindexed && indexed != blocks:
		d.fail("index of %d entries for %d blocks in %d pages", indexed, blocks, h.sum.pages)
	case len(h.pages) == 0 && h.level > 0:
		d.fail("level %d without pages", h.level)
	case blocks > stripes*int64(h.k):
		d.fail("%d blocks in %d stripes", blocks, stripes)
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	return h, nil
}

// runs reads the links to the index and returns the sum of its entries. All runs but the last are full,
// so that there are no more of them to read than the dataset's size warrants.
func (d *decoder) runs(h *header) (entries int64) {
	h.index = make([]runLink, d.list(maxRuns, minRun))
	for i := range h.index {
		d.tuple(2)
		h.index[i] = runLink{d.link(isPart), d.uint(runEntries)}
		if last := i == len(h.index)-1; !last && h.index[i].entries != runEntries || h.index[i].entries == 0 {
			d.fail("index run %d of %d entries", i, h.index[i].entries)
		}
		if d.err != nil {
			return 0
		}
		entries += h.index[i].entries
	}
	return entries
}
