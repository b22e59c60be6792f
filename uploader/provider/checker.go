package provider

import (
	"crypto/sha256"
	"hash"

	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// checker compares a chunk's blocks with their CIDs while its segments come, in order and from the first. One to which
// they come otherwise knows nothing: the file is read once more then. A nil one is such a checker.
type checker struct {
	key   seal.Key
	chunk erasure.Chunk
	next  int // segment
	shard int // that the next byte is of
	hash  hash.Hash
	left  int // bytes of the shard
	lost  bool
	plain [seal.SegmentBytes]byte
}

// newChecker returns a checker of a copy of which nothing is here yet, nil where blocks are hashed by other functions
// than sha2-256.
func newChecker(f file, r *pb.Copy) *checker {
	chunk, err := readChunk(f, r)
	if err != nil {
		return nil // as verify will find
	}
	for _, s := range chunk {
		if h := s.CID.Hash(); len(h) != 2+sha256.Size || h[0] != mh.SHA2_256 || h[1] != sha256.Size {
			return nil
		}
	}
	return &checker{key: keyOf(r), chunk: chunk, hash: sha256.New(), left: chunk[0].Bytes}
}

// take takes a segment that fits the map.
func (c *checker) take(i int, segment []byte) {
	if c == nil || c.lost {
		return
	}
	if i != c.next {
		c.lost = true
		return
	}
	c.next++
	b := c.plain[:len(segment)]
	c.key.XORAt(b, segment, int64(i)*seal.SegmentBytes)
	for len(b) > 0 && !c.lost && c.shard < len(c.chunk) {
		n := min(len(b), c.left)
		c.hash.Write(b[:n])
		b = b[n:]
		if c.left -= n; c.left == 0 {
			c.end()
		}
	}
}

// end compares a block that is here whole, and turns to the next.
func (c *checker) end() {
	if string(c.hash.Sum(nil)) != string(c.chunk[c.shard].CID.Hash()[2:]) {
		c.lost = true
		return
	}
	c.hash.Reset()
	if c.shard++; c.shard < len(c.chunk) {
		c.left = c.chunk[c.shard].Bytes
	}
}

// checked returns the chunk if all its blocks are what their CIDs say, or nil.
func (c *checker) checked() erasure.Chunk {
	if c == nil || c.lost || c.shard < len(c.chunk) {
		return nil
	}
	return c.chunk
}
