package erasure

import (
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
)

// PartKind says what a Part is.
type PartKind int

// The kinds of parts. A descriptor follows from its page, so a writer may keep or drop it; links to
// it (the chunk's ID) stay, and tools that walk all links miss it then.
const (
	PartDescriptor PartKind = iota // a chunk's descriptor
	PartPage                       // a page of groups
	PartDirectory                  // a page of pages
	PartIndex                      // a leaf or run of the index
	PartManifest                   // the manifest block, always the last
)

// Part is one finished block of a manifest, at most [MaxPage] bytes. Who gets it owns Data.
type Part struct {
	Kind PartKind
	CID  cid.Cid // dag-cbor, sha2-256
	Data []byte
}

// ManifestWriter writes the manifest of one dataset, stripe by stripe or group by group. The same calls
// give the same parts.
type ManifestWriter struct {
	head    header
	put     func(Part) error
	grouper *Grouper
	err     error // the first one; it sticks

	page   []byte // the open page's encoded groups
	groups int    // in the open page
	open   totals // of the open page
	levels [maxLevel + 1][]entry
	run    []indexEntry // of the open run of the index
}

// NewManifestWriter returns a writer for the dataset below root, protected by the code (k,m). Put takes
// each part as it is finished; its error ends the writing. It fails with ErrShape.
func NewManifestWriter(root cid.Cid, k, m int, put func(Part) error) (*ManifestWriter, error) {
	if !root.Defined() || !isRoot(root) {
		return nil, shapef("write manifest of root %s", root)
	}
	w := &ManifestWriter{head: header{root: root, k: k, m: m}, put: put}
	var err error
	if w.grouper, err = NewGrouper(k, m, w.addGroup); err != nil {
		return nil, err
	}
	w.grouper.described = func(id cid.Cid, descriptor []byte) error {
		return w.put(Part{PartDescriptor, id, descriptor})
	}
	return w, nil
}

// Add takes the next stripe and groups it with those before. It fails with ErrShape or put's error.
func (w *ManifestWriter) Add(s Stripe) error {
	if w.err == nil {
		w.err = w.grouper.Add(s)
	}
	return w.err
}

// AddGroup takes a whole group, as of an earlier manifest, whose chunks stay what they are. Stripes
// added before form a group of their own. It fails with ErrShape or put's error.
func (w *ManifestWriter) AddGroup(g Group) error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.grouper.Flush(); w.err != nil {
		return w.err
	}
	for _, s := range g.Stripes {
		if w.err = w.grouper.Add(s); w.err != nil {
			return w.err
		}
	}
	if len(w.grouper.open) != len(g.Stripes) {
		w.err = shapef("write group of %d stripes: it passes a limit", len(g.Stripes))
		return w.err
	}
	w.err = w.grouper.Flush()
	return w.err
}

func (w *ManifestWriter) addGroup(g Group) error {
	encoded := putGroup(nil, g)
	if w.groups > 0 && pageHead+len(w.page)+len(encoded) > pageTarget {
		if err := w.endPage(); err != nil {
			return err
		}
	}
	w.page = append(w.page, encoded...)
	w.groups++
	w.open.add(groupTotals(g))
	for _, s := range g.Stripes {
		for _, d := range s.Data {
			if err := w.index(indexEntry{indexKey(d.CID), uint32(w.head.sum.pages)}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *ManifestWriter) endPage() error {
	if w.groups == 0 {
		return nil
	}
	sum := w.open
	sum.pages = 1
	link, err := w.part(PartPage, putPage(w.groups, w.page))
	if err != nil {
		return err
	}
	w.page, w.groups, w.open = w.page[:0], 0, totals{}
	w.head.sum.add(sum)
	if s := w.head.sum; s.pages > maxPages || s.blocks > maxBlocks || s.bytes > maxBytes {
		return shapef("write manifest of %d bytes in %d pages", s.bytes, s.pages)
	}
	return w.link(0, entry{link, sum})
}

// link adds an entry for what is in the directories of the level; those that are full are written.
func (w *ManifestWriter) link(level int, e entry) error {
	if len(w.levels[level]) == fanout {
		if err := w.endDirectory(level); err != nil {
			return err
		}
	}
	w.levels[level] = append(w.levels[level], e)
	return nil
}

// endDirectory writes the entries of a level as a directory of the next.
func (w *ManifestWriter) endDirectory(level int) error {
	if level == maxLevel {
		return shapef("write manifest of more than %d levels", maxLevel)
	}
	var sum totals
	for _, e := range w.levels[level] {
		sum.add(e.totals)
	}
	link, err := w.part(PartDirectory, encodeDirectory(level+1, w.levels[level]))
	if err != nil {
		return err
	}
	w.levels[level] = w.levels[level][:0]
	return w.link(level+1, entry{link, sum})
}

// index adds an entry to the open run and ends it if it is full.
func (w *ManifestWriter) index(e indexEntry) error {
	w.run = append(w.run, e)
	if len(w.run) < runEntries {
		return nil
	}
	return w.endRun()
}

func (w *ManifestWriter) endRun() error {
	if len(w.run) == 0 {
		return nil
	}
	if len(w.head.index) == maxRuns {
		return shapef("write index of more than %d runs", maxRuns)
	}
	slices.SortFunc(w.run, compareEntries)
	var leaves []leafLink
	for part := range slices.Chunk(w.run, leafEntries) {
		link, err := w.part(PartIndex, encodeLeaf(part))
		if err != nil {
			return err
		}
		leaves = append(leaves, leafLink{link, int64(len(part)), part[0].key})
	}
	link, err := w.part(PartIndex, encodeRun(leaves))
	if err != nil {
		return err
	}
	w.head.index = append(w.head.index, runLink{link, int64(len(w.run))})
	w.run = w.run[:0]
	return nil
}

// Close writes what is open, and the manifest last, and returns its CID. The writer is of no use
// afterwards.
func (w *ManifestWriter) Close() (cid.Cid, error) {
	if w.err != nil {
		return cid.Undef, w.err
	}
	manifest, err := w.close()
	if err != nil {
		w.err = err
		return cid.Undef, err
	}
	w.err = fmt.Errorf("manifest writer is closed: %w", ErrShape)
	return manifest, nil
}

func (w *ManifestWriter) close() (cid.Cid, error) {
	if err := w.grouper.Flush(); err != nil {
		return cid.Undef, err
	}
	if err := w.endPage(); err != nil {
		return cid.Undef, err
	}
	if w.head.sum.pages > unindexed {
		if err := w.endRun(); err != nil {
			return cid.Undef, err
		}
	}
	for w.above(w.head.level) {
		if err := w.endDirectory(w.head.level); err != nil {
			return cid.Undef, err
		}
		w.head.level++
	}
	w.head.pages = w.levels[w.head.level]
	return w.part(PartManifest, w.head.encode())
}

// above reports whether there are entries above the level.
func (w *ManifestWriter) above(level int) bool {
	for _, l := range w.levels[level+1:] {
		if len(l) > 0 {
			return true
		}
	}
	return false
}

func (w *ManifestWriter) part(kind PartKind, data []byte) (cid.Cid, error) {
	if len(data) > MaxPage {
		return cid.Undef, shapef("write part of %d bytes", len(data))
	}
	p := Part{kind, sumCID(cid.DagCBOR, data), data}
	return p.CID, w.put(p)
}
