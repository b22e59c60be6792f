package erasure

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/ipfs/go-cid"
)

// The index finds the page of a block without reading the others. It is a list of runs, one for each two
// million blocks in the order of the manifest, so that a writer needs 32 MiB for it at most; a dataset of
// 1 TiB in blocks of 1 MiB has one run. A run is sorted by the first 8 bytes of the blocks' digests:
//
//	run:  {"leaves": [[link, entries, first key] …]}
//	leaf: {"entries": bytes}     12 bytes an entry: key, number of the page, both big endian
//
// A lookup reads, for each run, the run and a leaf, then the page. Manifests of few pages have no index.
const (
	runEntries  = 1 << 21
	leafEntries = 20000 // 240 kB
	entryBytes  = 12
	unindexed   = 4    // up to so many pages are searched without an index
	maxRuns     = 1024 // two billion blocks
	minRun      = 1 + minLink + minUint
	minLeaf     = 1 + minLink + 2*minUint
	maxAlike    = 16 // pages that a lookup tries: more with one key are no accident
	maxLeaves   = 2  // leaves of a run that a lookup reads: a key may end one and begin the next
)

// indexEntry says that a block with the key is in the page.
type indexEntry struct {
	key  uint64
	page uint32
}

// indexKey returns the first bytes of a CID's digest, which isBlock has found long enough.
func indexKey(c cid.Cid) uint64 {
	// The digest is the end of the CID.
	b := c.KeyString()
	n := 32
	if !isOurs(c, cid.Raw) && !isOurs(c, cid.DagProtobuf) {
		n = c.Prefix().MhLength
	}
	var key [8]byte
	copy(key[:], b[max(0, len(b)-n):])
	return binary.BigEndian.Uint64(key[:])
}

// runLink links to a run; leafLink to a leaf.
type runLink struct {
	link    cid.Cid
	entries int64
}

type leafLink struct {
	link    cid.Cid
	entries int64
	first   uint64
}

// encodeLeaf returns a leaf of sorted entries.
func encodeLeaf(entries []indexEntry) []byte {
	packed := make([]byte, 0, len(entries)*entryBytes)
	for _, e := range entries {
		packed = binary.BigEndian.AppendUint64(packed, e.key)
		packed = binary.BigEndian.AppendUint32(packed, e.page)
	}
	b := putMap(make([]byte, 0, len(packed)+16), 1)
	b = putText(b, "entries")
	return putBytes(b, packed)
}

// decodeLeaf reads a leaf whose entries, sorted, are in pages below the given number.
func decodeLeaf(b []byte, pages int64) ([]indexEntry, error) {
	d := newDecoder(b)
	d.fields(1)
	d.key("entries")
	packed := d.bytes()
	if len(packed) == 0 || len(packed)%entryBytes != 0 || len(packed) > leafEntries*entryBytes {
		d.fail("%d bytes of entries", len(packed))
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode index leaf: %w", err)
	}
	entries := make([]indexEntry, len(packed)/entryBytes)
	for i := range entries {
		p := packed[i*entryBytes:]
		e := indexEntry{binary.BigEndian.Uint64(p), binary.BigEndian.Uint32(p[8:])}
		if int64(e.page) >= pages || i > 0 && compareEntries(entries[i-1], e) > 0 {
			return nil, fmt.Errorf("decode index leaf: entry %d: %w", i, ErrMalformed)
		}
		entries[i] = e
	}
	return entries, nil
}

func compareEntries(a, b indexEntry) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.page, b.page))
}

func encodeRun(leaves []leafLink) []byte {
	b := putMap(make([]byte, 0, 16+len(leaves)*64), 1)
	b = putText(b, "leaves")
	b = putList(b, len(leaves))
	for _, l := range leaves {
		b = putList(b, 3)
		b = putLink(b, l.link)
		b = putUint(b, l.entries)
		b = putHead(b, cborUint, l.first)
	}
	return b
}

// decodeRun reads a run of so many entries.
func decodeRun(b []byte, entries int64) ([]leafLink, error) {
	d := newDecoder(b)
	d.fields(1)
	d.key("leaves")
	leaves := make([]leafLink, d.list(runEntries/leafEntries+1, minLeaf))
	var sum int64
	for i := range leaves {
		d.tuple(3)
		leaves[i] = leafLink{d.link(isPart), d.uint(leafEntries), d.head(cborUint)}
		if d.err != nil {
			break
		}
		if leaves[i].entries == 0 || i > 0 && leaves[i].first < leaves[i-1].first {
			d.fail("leaf %d is empty or out of order", i)
		}
		sum += leaves[i].entries
	}
	if sum != entries {
		d.fail("%d entries, want %d", sum, entries)
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode index run: %w", err)
	}
	return leaves, nil
}

// leavesFor returns the leaves in which the key may be: most often one, at most maxLeaves.
func leavesFor(leaves []leafLink, key uint64) []leafLink {
	to := sort.Search(len(leaves), func(i int) bool { return leaves[i].first > key })
	from := to
	for from > 0 {
		from--
		if leaves[from].first < key {
			break
		}
	}
	return leaves[max(from, to-maxLeaves):to]
}

// pagesFor returns the pages that sorted entries give for the key.
func pagesFor(entries []indexEntry, key uint64) []int64 {
	at, _ := slices.BinarySearchFunc(entries, indexEntry{key: key}, compareEntries)
	var pages []int64
	for ; at < len(entries) && entries[at].key == key && len(pages) < maxAlike; at++ {
		pages = append(pages, int64(entries[at].page))
	}
	return slices.Compact(pages)
}
