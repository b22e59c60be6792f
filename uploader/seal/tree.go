package seal

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// First bytes of what is hashed in the tree.
const (
	tagLeaf = 0
	tagNode = 1
	tagRoot = 2
)

const domainRoot = "holdfast/seal/map/1"

func leafHash(segment [32]byte) [32]byte {
	var b [33]byte
	b[0] = tagLeaf
	copy(b[1:], segment[:])
	return sha256.Sum256(b[:])
}

func nodeHash(left, right [32]byte) [32]byte {
	var b [65]byte
	b[0] = tagNode
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

func rootHash(top [32]byte, segments int) [32]byte {
	b := append([]byte{tagRoot}, domainRoot...)
	b = binary.BigEndian.AppendUint32(b, uint32(segments))
	return sha256.Sum256(append(b, top[:]...))
}

// split returns how many of n leaves, two or more, are below the left child: the largest power of two
// that is less than n.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func topOf(segments [][32]byte) [32]byte {
	if len(segments) == 1 {
		return leafHash(segments[0])
	}
	k := split(len(segments))
	return nodeHash(topOf(segments[:k]), topOf(segments[k:]))
}

// Root returns the root of the Merkle tree over the segments, and zeros for a map without any.
func (m Map) Root() [32]byte {
	if len(m.Segments) == 0 {
		return [32]byte{}
	}
	return rootHash(topOf(m.Segments), len(m.Segments))
}

// Proof leads from a segment to the root: the hashes beside the way, from the leaf upwards.
type Proof [][32]byte

// Prove returns the proof of segment i, and nil where there is no such segment.
func (m Map) Prove(i int) Proof {
	if i < 0 || i >= len(m.Segments) {
		return nil
	}
	return prove(make(Proof, 0, bits.Len(uint(len(m.Segments)))), m.Segments, i)
}

func prove(p Proof, segments [][32]byte, i int) Proof {
	if len(segments) == 1 {
		return p
	}
	k := split(len(segments))
	if i < k {
		return append(prove(p, segments[:k], i), topOf(segments[k:]))
	}
	return append(prove(p, segments[k:], i-k), topOf(segments[:k]))
}

// Verify returns [ErrProof] unless segment is the i-th of so many below root.
func (p Proof) Verify(root [32]byte, segments, i int, segment []byte) error {
	if segments < 1 || segments > MaxSegments || i < 0 || i >= segments || len(segment) > SegmentBytes {
		return fmt.Errorf("segment %d of %d with %d bytes: %w", i, segments, len(segment), ErrProof)
	}
	top, rest := p.climb(segments, i, sha256.Sum256(segment))
	if rest != 0 || rootHash(top, segments) != root {
		return fmt.Errorf("segment %d of %d: %w", i, segments, ErrProof)
	}
	return nil
}

// climb returns the top of a tree of n leaves from the i-th, and how many hashes of p it did not need;
// less than zero are missing.
func (p Proof) climb(n, i int, segment [32]byte) (top [32]byte, rest int) {
	if n == 1 {
		return leafHash(segment), len(p)
	}
	k := split(n)
	left := i < k
	if left {
		top, rest = p.climb(k, i, segment)
	} else {
		top, rest = p.climb(n-k, i-k, segment)
	}
	if rest <= 0 {
		return top, rest - 1
	}
	beside := p[len(p)-rest]
	if left {
		return nodeHash(top, beside), rest - 1
	}
	return nodeHash(beside, top), rest - 1
}
