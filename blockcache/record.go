package blockcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"syscall"

	"github.com/ipfs/go-cid"
)

// A record of a pack, all numbers little endian:
//
//	magic    4 bytes
//	cid      2 bytes, its length
//	reserved 2 bytes, zero
//	data     4 bytes, its length
//	crc32c   4 bytes, of data
//	crc32c   4 bytes, of the fields above and the CID
//	CID, data
//
// Nothing else is needed to find a block in a pack whose index was lost.
const (
	headerBytes = 20
	maxCIDBytes = 128
	maxRecord   = headerBytes + maxCIDBytes + MaxBlockBytes
)

var magic = [4]byte{'H', 'F', 'b', 0xc1}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// recordBytes is what a block takes in a pack.
func recordBytes(c cid.Cid, n int) int64 { return int64(headerBytes + len(c.Bytes()) + n) }

// appendHeader appends a record's header and CID to b.
func appendHeader(b []byte, c cid.Cid, n int, crc uint32) []byte {
	start := len(b)
	raw := c.Bytes()
	b = append(b, magic[:]...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(raw)))
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = binary.LittleEndian.AppendUint32(b, crc)
	sum := crc32.Update(checksum(b[start:]), castagnoli, raw)
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, raw...)
}

// record is a decoded header and where its data lies.
type record struct {
	cid cid.Cid
	off int64 // of the data, in the pack
	n   int
	crc uint32
}

// end is the offset after the record.
func (r record) end() int64 { return r.off + int64(r.n) }

// decodeHeader reads a record's header from the beginning of b, which lies at offset at of the
// pack. It takes any bytes at all.
func decodeHeader(b []byte, at int64) (record, bool) {
	if len(b) < headerBytes || !bytes.Equal(b[:4], magic[:]) {
		return record{}, false
	}
	cidLen := int(binary.LittleEndian.Uint16(b[4:]))
	n := binary.LittleEndian.Uint32(b[8:])
	if cidLen == 0 || cidLen > maxCIDBytes || n == 0 || n > MaxBlockBytes || len(b) < headerBytes+cidLen {
		return record{}, false
	}
	raw := b[headerBytes : headerBytes+cidLen]
	sum := crc32.Update(checksum(b[:headerBytes-4]), castagnoli, raw)
	if sum != binary.LittleEndian.Uint32(b[headerBytes-4:]) {
		return record{}, false
	}
	c, err := cid.Cast(raw)
	if err != nil {
		return record{}, false
	}
	return record{
		cid: c, off: at + headerBytes + int64(cidLen), n: int(n),
		crc: binary.LittleEndian.Uint32(b[12:]),
	}, true
}

// scanRecords calls fn for every record of r in [from, size), in order. Bytes that are no record
// are searched for the next one, so damage in the middle hides nothing behind it. It returns the
// end of the last record.
func scanRecords(r io.ReaderAt, from, size int64, fn func(record) error) (int64, error) {
	const window = 256 << 10
	last := from
	buf := make([]byte, window)
	base, have := int64(0), 0 // buf[:have] is the pack from base
	for at := from; at+headerBytes <= size; {
		if at < base || at+headerBytes+maxCIDBytes > base+int64(have) && base+int64(have) < size || have == 0 {
			n, err := readFull(r, buf[:min(int64(window), size-at)], at)
			if err != nil {
				return last, err
			}
			base, have = at, n
			if have < headerBytes {
				break
			}
		}
		b := buf[at-base : have]
		rec, ok := decodeHeader(b, at)
		if ok && rec.end() <= size {
			if err := fn(rec); err != nil {
				return last, err
			}
			at = rec.end()
			last = at
			continue
		}
		at += nextMagic(b)
	}
	return last, nil
}

// nextMagic returns how far to go on from a place that is no record.
func nextMagic(b []byte) int64 {
	i := bytes.Index(b[1:], magic[:])
	if i >= 0 {
		return int64(1 + i)
	}
	return int64(max(1, len(b)-len(magic)+1))
}

// patchy reads what a failing disk still gives: pages that cannot be read are zeros.
type patchy struct {
	r    io.ReaderAt
	gaps int // pages that could not be read
}

const pageBytes = 4096

// ReadAt is that of the file beneath, without its EIO.
func (g *patchy) ReadAt(p []byte, off int64) (int, error) {
	n, err := g.r.ReadAt(p, off)
	if !unreadable(err) {
		return n, err
	}
	for n = 0; n < len(p); {
		page := p[n:min(len(p), n+pageBytes-int((off+int64(n))%pageBytes))]
		m, err := g.r.ReadAt(page, off+int64(n))
		if unreadable(err) {
			clear(page)
			m, err = len(page), nil
			g.gaps++
		}
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// unreadable reports whether the disk has lost the bytes, as opposed to a failure of anything else.
func unreadable(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODATA)
}

// readFull fills p from off as far as the file goes.
func readFull(r io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := r.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}
