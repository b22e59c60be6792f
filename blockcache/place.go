package blockcache

import (
	"encoding/binary"
	"slices"
)

// The kinds of places.
const (
	inPack byte = 'p'
	inBody byte = 'b'
)

// place is where the bytes of a block lie on the disk.
type place struct {
	kind byte
	id   uint64 // of the pack or body
	off  uint64 // of the data, in its file
	n    uint32
	crc  uint32 // crc32c of the data
}

// same reports whether two places are the same bytes of the same file.
func (p place) same(q place) bool {
	return p.kind == q.kind && p.id == q.id && p.off == q.off && p.n == q.n
}

// A block that a file repeats (a gigabyte of zeros) would have thousands of places, all rewritten
// with each addition; so only some are kept. The others are known to their body alone.
const (
	maxPlaces        = 8
	maxPlacesPerBody = 2
)

// addPlace adds q to ps, unless it is there or the bounds are reached.
func addPlace(ps []place, q place) ([]place, bool) {
	inSame := 0
	for i, p := range ps {
		if p.same(q) {
			ps[i] = q
			return ps, false
		}
		if p.kind == q.kind && p.id == q.id {
			inSame++
		}
	}
	if len(ps) >= maxPlaces || inSame >= maxPlacesPerBody {
		return ps, false
	}
	return append(ps, q), true
}

// encodePlaces writes the value of a block's index entry.
func encodePlaces(ps []place) []byte {
	b := make([]byte, 0, len(ps)*24)
	for _, p := range ps {
		b = append(b, p.kind)
		b = binary.LittleEndian.AppendUint64(b, p.id)
		b = binary.AppendUvarint(b, p.off)
		b = binary.AppendUvarint(b, uint64(p.n))
		b = binary.LittleEndian.AppendUint32(b, p.crc)
	}
	return b
}

// decodePlaces is the inverse of encodePlaces; it stops at the first thing it does not understand.
func decodePlaces(b []byte) []place {
	var ps []place
	for len(b) >= 9 && len(ps) < 2*maxPlaces {
		p := place{kind: b[0], id: binary.LittleEndian.Uint64(b[1:])}
		b = b[9:]
		off, k := binary.Uvarint(b)
		if k <= 0 {
			return ps
		}
		n, m := binary.Uvarint(b[k:])
		b = b[max(k, k+m):]
		if m <= 0 || n == 0 || n > MaxBlockBytes || off > maxFileBytes || len(b) < 4 {
			return ps
		}
		p.off, p.n, p.crc = off, uint32(n), binary.LittleEndian.Uint32(b)
		b = b[4:]
		if p.kind == inPack || p.kind == inBody {
			ps = append(ps, p)
		}
	}
	return ps
}

// leaf is a place of a body with the block it belongs to: the entry that a body keeps of itself.
type leaf struct {
	key string // multihash
	off uint64
	n   uint32
	crc uint32
}

func (l leaf) place(id uint64) place {
	return place{kind: inBody, id: id, off: l.off, n: l.n, crc: l.crc}
}

func (l leaf) encode() []byte {
	b := make([]byte, 0, 8+len(l.key))
	b = binary.LittleEndian.AppendUint32(b, l.n)
	b = binary.LittleEndian.AppendUint32(b, l.crc)
	return append(b, l.key...)
}

func decodeLeaf(off uint64, b []byte) (leaf, bool) {
	if len(b) <= 8 {
		return leaf{}, false
	}
	l := leaf{
		off: off, n: binary.LittleEndian.Uint32(b), crc: binary.LittleEndian.Uint32(b[4:]),
		key: string(b[8:]),
	}
	return l, l.n > 0 && l.n <= MaxBlockBytes && off <= maxFileBytes
}

// encodeUints writes a small record of numbers.
func encodeUints(vs ...uint64) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// decodeUints reads n numbers and returns what follows them.
func decodeUints(b []byte, n int) (vs []uint64, rest []byte, ok bool) {
	vs = make([]uint64, 0, n)
	for range n {
		v, k := binary.Uvarint(b)
		if k <= 0 {
			return nil, nil, false
		}
		vs = append(vs, v)
		b = b[k:]
	}
	return vs, slices.Clone(b), true
}
