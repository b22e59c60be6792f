package unixfs

import (
	"fmt"
	"math/bits"

	"github.com/twmb/murmur3"
)

const (
	hashMurmur3 = 0x22 // murmur3-x64-64, the one hash function of UnixFS HAMTs
	maxFanout   = 1 << 10
)

// shardShape is how a HAMT shard is divided.
type shardShape struct {
	lg2    uint8      // of the fan-out: bits of the hash that each level consumes
	digits uint8      // hexadecimal digits before each name
	bits   [16]uint64 // which children are there, child i at bits[i/64]>>(i%64)
	before [16]uint16 // children present before bits[i]
}

// setShard checks a shard: its fan-out, its bit field, and that each link carries the prefix of its bit.
func (n *dagNode) setShard(d *fsData) error {
	f := d.fanout
	if f < 2 || f > maxFanout || f&(f-1) != 0 {
		return fmt.Errorf("hamt fan-out %d", f)
	}
	if len(n.raw) > maxShardBytes {
		return fmt.Errorf("hamt shard of %d bytes", len(n.raw))
	}
	if d.hashType != hashMurmur3 {
		return fmt.Errorf("hamt hash function 0x%x", d.hashType)
	}
	s := &n.shard
	s.lg2 = uint8(bits.TrailingZeros64(f))
	s.digits = uint8((bits.Len64(f-1) + 3) / 4)
	if len(d.data) > int(f+7)/8 {
		return fmt.Errorf("hamt bit field of %d bytes for fan-out %d", len(d.data), f)
	}
	for i, b := range d.data { // big endian, leading zeros left out
		at := len(d.data) - 1 - i
		s.bits[at/8] |= uint64(b) << (at % 8 * 8)
	}
	link := 0
	for i, word := range s.bits {
		s.before[i] = uint16(link)
		for ; word != 0; word &= word - 1 {
			index := i*64 + bits.TrailingZeros64(word)
			if index >= int(f) || link == len(n.links) || !s.hasPrefix(n.link(link).name, index) {
				return fmt.Errorf("hamt bit %d and link %d do not agree", index, link)
			}
			link++
		}
	}
	if link != len(n.links) {
		return fmt.Errorf("hamt of %d bits has %d links", link, len(n.links))
	}
	return nil
}

// hasPrefix reports whether name begins with index in upper case hexadecimal.
func (s *shardShape) hasPrefix(name []byte, index int) bool {
	if len(name) < int(s.digits) {
		return false
	}
	for i := int(s.digits) - 1; i >= 0; i-- {
		if name[i] != "0123456789ABCDEF"[index&15] {
			return false
		}
		index >>= 4
	}
	return true
}

// find returns the link of child index, if it is there.
func (s *shardShape) find(index int) (int, bool) {
	word, bit := s.bits[index/64], uint64(1)<<(index%64)
	if word&bit == 0 {
		return 0, false
	}
	return int(s.before[index/64]) + bits.OnesCount64(word&(bit-1)), true
}

// indexOf returns the child index that prefixes link i's name.
func (s *shardShape) indexOf(name []byte) int {
	index := 0
	for _, c := range name[:s.digits] {
		digit := int(c - '0')
		if c >= 'A' {
			digit = int(c-'A') + 10
		}
		index = index<<4 | digit
	}
	return index
}

// nameHash is the HAMT's hash of a name; levels consume it from its highest bit on.
func nameHash(name []byte) uint64 { return murmur3.Sum64(name) }

// bitsOf returns n bits of h behind the first used ones.
func bitsOf(h uint64, used, n uint8) int { return int(h << used >> (64 - n)) }
