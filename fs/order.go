package fs

import (
	"cmp"
	"slices"

	"github.com/holdfastfs/holdfast/fs/unixfs"
)

const (
	// stride is how far the next file of a sequence may lie from the last: programs skip some, and parallel ones
	// swap some.
	stride = 8

	firstFiles = 16   // files fetched ahead when a sequence is first seen
	mostFiles  = 1024 // at most
)

// order follows a program through the files of a directory. It only counts: no IO, clock or lock. Programs go
// through a directory in one of three ways: as it lists (tar, grep -r), sorted by name (shells, rsync, diff -r), or
// sorted by inode number (cp -r, find and du in big directories).
type order struct {
	entries []unixfs.Entry
	index   map[string]int32
	ways    [3]way
	window  int   // files
	budget  int64 // bytes that the files of one window may have together
}

// way is one of the orders: which entry has which rank.
type way struct {
	entry []int32 // by rank
	rank  []int32 // by index in entries
	last  int32   // the highest rank opened lately
	hits  int     // opens in sequence so far
	ahead int32   // ranks below it were asked for
}

// newOrder makes the orders of a directory whose inode number is parent.
func newOrder(entries []unixfs.Entry, parent uint64, budget int64) *order {
	o := &order{entries: entries, index: make(map[string]int32, len(entries)), budget: budget}
	inodes := make([]uint64, len(entries))
	listed := make([]int32, len(entries))
	for i, e := range entries {
		o.index[e.Name] = int32(i)
		inodes[i] = inodeOf(parent, e.Name)
		listed[i] = int32(i)
	}
	byName, byInode := slices.Clone(listed), slices.Clone(listed)
	slices.SortFunc(byName, func(a, b int32) int { return cmp.Compare(entries[a].Name, entries[b].Name) })
	slices.SortFunc(byInode, func(a, b int32) int { return cmp.Compare(inodes[a], inodes[b]) })
	for i, ranked := range [][]int32{listed, byName, byInode} {
		w := way{entry: ranked, rank: make([]int32, len(ranked)), last: -2 * stride}
		for rank, at := range ranked {
			w.rank[at] = int32(rank)
		}
		o.ways[i] = w
	}
	return o
}

// observe takes note that a file was opened and returns those to fetch ahead, none most times.
func (o *order) observe(name string) []unixfs.Entry {
	at, ok := o.index[name]
	if !ok {
		return nil
	}
	best := &o.ways[0]
	for i := range o.ways {
		w := &o.ways[i]
		w.step(w.rank[at])
		if w.hits > best.hits {
			best = w
		}
	}
	if best.hits == 0 {
		o.window = 0
		return nil
	}
	return o.advance(best, best.rank[at])
}

// step counts an open of a rank.
func (w *way) step(rank int32) {
	switch delta := rank - w.last; {
	case delta == 0:
	case delta > 0 && delta <= stride:
		w.last = rank
		w.hits++
	case delta < 0 && delta >= -stride && w.hits > 0:
	default:
		w.last, w.hits, w.ahead = rank, 0, 0
	}
}

// start begins a sequence at the front of the listing, with a window that another directory has earned.
func (o *order) start(window int) []unixfs.Entry {
	o.window = window
	return o.collect(&o.ways[0], 0)
}

// advance moves the window behind rank, when half of it is used up.
func (o *order) advance(w *way, rank int32) []unixfs.Entry {
	from := max(w.ahead, rank+1)
	if o.window > 0 && int(from-rank) > o.window/2 {
		return nil
	}
	o.window = min(max(2*o.window, firstFiles), mostFiles)
	return o.collect(w, rank+1)
}

// collect takes the entries from rank on that are in the window and were not asked for.
func (o *order) collect(w *way, rank int32) []unixfs.Entry {
	var out []unixfs.Entry
	bytes := int64(0)
	end := min(int(rank)+o.window, len(w.entry))
	for r := int(rank); r < end; r++ {
		e := o.entries[w.entry[r]]
		bytes += int64(min(e.TSize, walkFileBytes))
		if bytes > o.budget && r > int(rank) {
			break
		}
		if r >= int(w.ahead) {
			out = append(out, e)
			w.ahead = int32(r + 1)
		}
	}
	return out
}
