package erasure

import "github.com/ipfs/go-cid"

// Seen remembers which blocks of a dataset are protected already. Exact memory of a billion blocks
// belongs into a database, so a caller that has one wraps it; [NewRecent] is the answer without.
type Seen interface {
	// Add remembers the block and reports whether it was remembered before. It should go by the hash
	// alone, c.Hash(): CIDs that differ in version or codec name the same bytes. Reporting false for a block
	// that was given before costs its parity and its place a second time, and nothing else.
	Add(c cid.Cid) (again bool, err error)
}

// Recent is a Seen that remembers the latest blocks exactly and forgets older ones. Copies of a file
// and repeated runs (a disk image's zeros) lie close together in most datasets.
type Recent struct {
	size     int
	now, old map[hashKey]struct{} // a block is moved to now when it is met again
}

// hashKey is the first half of a sha2-256, or as much of another digest: by accident no two are alike.
type hashKey [16]byte

// recentBlocks is the default of NewRecent: 8 GiB of 8 KiB blocks, at about 40 bytes each.
const recentBlocks = 1 << 20

// NewRecent returns a Recent of at least the latest n blocks and at most twice as many; 0 means a
// million, which takes up to 80 MiB.
func NewRecent(n int) *Recent {
	if n <= 0 {
		n = recentBlocks
	}
	return &Recent{size: n, now: make(map[hashKey]struct{})}
}

// Add implements [Seen]; it never fails.
func (r *Recent) Add(c cid.Cid) (bool, error) {
	var key hashKey
	hash := c.Hash()
	copy(key[:], hash[max(0, len(hash)-len(key)):])
	if _, ok := r.now[key]; ok {
		return true, nil
	}
	_, again := r.old[key]
	if len(r.now) >= r.size {
		r.now, r.old = make(map[hashKey]struct{}), r.now
	}
	r.now[key] = struct{}{}
	return again, nil
}
