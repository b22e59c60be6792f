package blockcache

import (
	"maps"
	"slices"
	"sync"
)

// rootSet is the roots of all pins, kept beside the database: an iterator over their facts would pass over
// every version that a fact had since the tables were last compacted, and each Pin writes one.
//
// A root is in the set before the index can have members of it, and leaves when it has none any more.
// It may be used by several goroutines.
type rootSet struct {
	mu    sync.RWMutex
	names map[string]struct{}
}

// add reports whether the root is new.
func (r *rootSet) add(root string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.names[root]; ok {
		return false
	}
	if r.names == nil {
		r.names = make(map[string]struct{})
	}
	r.names[root] = struct{}{}
	return true
}

func (r *rootSet) remove(root string) {
	r.mu.Lock()
	delete(r.names, root)
	r.mu.Unlock()
}

func (r *rootSet) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.names)
}

// upTo returns the roots if they are at most n.
func (r *rootSet) upTo(n int) (roots []string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.names) > n {
		return nil, false
	}
	return slices.Collect(maps.Keys(r.names)), true
}
