package node

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/fs"
)

// flatPaths is what a pathTree says, written down plainly.
type flatPaths map[string]fs.FileID

func (f flatPaths) below(p string) flatPaths {
	out := flatPaths{}
	for q, id := range f {
		if q == p || strings.HasPrefix(q, p+"/") {
			out[q[len(p):]] = id
			delete(f, q)
		}
	}
	return out
}

func (f flatPaths) put(p string, at flatPaths) {
	for rest, id := range at {
		f[p+rest] = id
	}
}

// TestPathTree changes a tree at random, and compares it with a plain list.
func TestPathTree(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	tree, flat := newPathTree(), flatPaths{}
	// Odd levels are directories, even ones files, so that no name is both.
	dir := func() string { return []string{"", "a", "b", "a/c", "a/d", "b/c", "a/c/d"}[r.IntN(7)] }
	file := func() string { return strings.TrimPrefix(fmt.Sprint(dir(), "/f", r.IntN(4)), "/") }
	for step := range 20_000 {
		id := fs.FileID{1, byte(r.IntN(12))}
		switch r.IntN(7) {
		case 0, 1:
			p := file()
			tree.note(id, p)
			flat[p] = id
		case 2:
			p := file()
			tree.remove(p)
			delete(flat, p)
		case 3:
			tree.forget(id)
			maps.DeleteFunc(flat, func(_ string, have fs.FileID) bool { return have == id })
		case 4:
			from, to := file(), file()
			if from != to {
				tree.move(from, to)
				at := flat.below(from)
				delete(flat, to)
				flat.put(to, at)
			}
		case 5:
			from, to := dir(), dir()
			if from != "" && to != "" && !strings.HasPrefix(to+"/", from+"/") && !strings.HasPrefix(from+"/", to+"/") {
				tree.move(from, to)
				at := flat.below(from)
				flat.below(to)
				flat.put(to, at)
			}
		case 6:
			a, b := dir(), dir()
			if r.IntN(2) == 0 {
				a, b = file(), file()
			}
			if a != b && a != "" && b != "" && !strings.HasPrefix(a+"/", b+"/") && !strings.HasPrefix(b+"/", a+"/") {
				tree.swap(a, b)
				atA, atB := flat.below(a), flat.below(b)
				flat.put(a, atB)
				flat.put(b, atA)
			}
		}
		comparePaths(t, tree, flat)
		if t.Failed() {
			t.Fatalf("at step %d", step)
		}
	}
	for id := range maps.Clone(tree.names) {
		tree.forget(id)
	}
	if len(tree.root.dirs) > 0 || len(tree.root.files) > 0 || len(tree.names) > 0 {
		t.Errorf("left: %+v", tree)
	}
}

func comparePaths(t *testing.T, tree *pathTree, flat flatPaths) {
	t.Helper()
	count := make(map[fs.FileID]int)
	for _, id := range flat {
		count[id]++
	}
	if len(count) != len(tree.names) {
		t.Errorf("%d files are known, want %d", len(tree.names), len(count))
	}
	for id, n := range count {
		p, known := tree.path(id)
		if !known || flat[p] != id || len(tree.names[id]) != n {
			t.Errorf("%x is at %q (%v) of %d names, want one of %d: %v", id[:2], p, known, len(tree.names[id]), n, slices.Sorted(maps.Keys(flat)))
		}
	}
}

// BenchmarkPathMove renames one of 100,000 files, and a directory with as many below it.
func BenchmarkPathMove(b *testing.B) {
	tree := newPathTree()
	for i := range 100_000 {
		tree.note(fs.FileID{1, byte(i), byte(i >> 8), byte(i >> 16)}, fmt.Sprintf("all/%d/%d", i%300, i))
	}
	for b.Loop() {
		tree.move("all/7/7", "all/7/x")
		tree.move("all/7/x", "all/7/7")
		tree.move("all", "others")
		tree.move("others", "all")
	}
}
