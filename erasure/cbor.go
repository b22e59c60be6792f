package erasure

import (
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Our own reading and writing of dag-cbor. Go-ipld-prime decodes into generic nodes, which takes 2 to 3
// times as long for a page and 2.6 times the memory (BenchmarkDecodePage) before a second pass turns
// nodes into stripes, and it takes maps with keys unsorted or twice. Here are five fixed forms, read
// straight into their types with each count checked against the bytes left, and each value has one
// encoding. Tests and fuzz targets hold the bytes against go-ipld-prime both ways.

// Major types of CBOR.
const (
	cborUint  = 0
	cborBytes = 2
	cborText  = 3
	cborList  = 4
	cborMap   = 5
	cborTag   = 6
)

const cborLink = 42 // the tag of links

func putHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func putUint(b []byte, n int64) []byte { return putHead(b, cborUint, uint64(n)) }
func putList(b []byte, n int) []byte   { return putHead(b, cborList, uint64(n)) }
func putMap(b []byte, n int) []byte    { return putHead(b, cborMap, uint64(n)) }

func putText(b []byte, s string) []byte {
	return append(putHead(b, cborText, uint64(len(s))), s...)
}

func putBytes(b, v []byte) []byte {
	return append(putHead(b, cborBytes, uint64(len(v))), v...)
}

func putLink(b []byte, c cid.Cid) []byte {
	b = putHead(b, cborTag, cborLink)
	b = putHead(b, cborBytes, uint64(c.ByteLen()+1))
	return append(append(b, 0), c.KeyString()...)
}

// The least bytes that a link and a number take, by which counts are checked before memory is taken.
const (
	minLink = 5 + 2 + minDigest
	minUint = 1
)

// decoder reads canonical dag-cbor of a known form. The first error sticks; everything read after it
// is zero, and counts are, so loops end.
type decoder struct {
	all, rest []byte
	err       error
}

func newDecoder(b []byte) *decoder {
	d := &decoder{all: b, rest: b}
	if len(b) > MaxPage {
		d.fail("%d bytes", len(b))
	}
	return d
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		at := len(d.all) - len(d.rest)
		d.err = fmt.Errorf("at byte %d: %s: %w", at, fmt.Sprintf(format, args...), ErrMalformed)
		d.rest = nil
	}
}

// take returns the next n bytes of the block itself, or nil.
func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail("%d bytes wanted, %d there", n, len(d.rest))
	}
	if d.err != nil {
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

// head reads the head of an item of the given type, whose number must be in its shortest form.
func (d *decoder) head(major byte) uint64 {
	b := d.take(1)
	if b == nil {
		return 0
	}
	if b[0]>>5 != major {
		d.fail("type %d, want %d", b[0]>>5, major)
		return 0
	}
	var n, least uint64
	switch info := b[0] & 31; {
	case info < 24:
		return uint64(info)
	case info == 24:
		if v := d.take(1); v != nil {
			n, least = uint64(v[0]), 24
		}
	case info == 25:
		if v := d.take(2); v != nil {
			n, least = uint64(binary.BigEndian.Uint16(v)), 1<<8
		}
	case info == 26:
		if v := d.take(4); v != nil {
			n, least = uint64(binary.BigEndian.Uint32(v)), 1<<16
		}
	case info == 27:
		if v := d.take(8); v != nil {
			n, least = binary.BigEndian.Uint64(v), 1<<32
		}
	default:
		d.fail("indefinite or reserved length")
	}
	if n < least {
		d.fail("number %d is not in its shortest form", n)
		return 0
	}
	return n
}

// uint reads a number up to most.
func (d *decoder) uint(most int64) int64 {
	n := d.head(cborUint)
	if n > uint64(most) {
		d.fail("number %d, at most %d", n, most)
		return 0
	}
	return int64(n)
}

// list reads the head of a list of up to most items, each of them least bytes long or longer.
func (d *decoder) list(most, least int) int {
	n := d.head(cborList)
	if n > uint64(most) || n > uint64(len(d.rest)/least) {
		d.fail("list of %d items, at most %d, in %d bytes", n, most, len(d.rest))
		return 0
	}
	return int(n)
}

// tuple reads the head of a list of just n items.
func (d *decoder) tuple(n int) {
	if got := d.head(cborList); got != uint64(n) {
		d.fail("list of %d items, want %d", got, n)
	}
}

// fields reads the head of a map of just n fields. The keys follow by key, in their one order.
func (d *decoder) fields(n int) {
	if got := d.head(cborMap); got != uint64(n) {
		d.fail("map of %d fields, want %d", got, n)
	}
}

func (d *decoder) key(name string) { d.text(name) }

// text reads the given text.
func (d *decoder) text(want string) {
	n := d.head(cborText)
	if n != uint64(len(want)) {
		d.fail("text of %d bytes, want %q", n, want)
	}
	if got := d.take(n); string(got) != want {
		d.fail("text %q, want %q", got, want)
	}
}

// bytes reads bytes, which are those of the block itself.
func (d *decoder) bytes() []byte { return d.take(d.head(cborBytes)) }

// link reads a link that ok accepts.
func (d *decoder) link(ok func(cid.Cid) bool) cid.Cid {
	if tag := d.head(cborTag); tag != cborLink {
		d.fail("tag %d is no link", tag)
	}
	b := d.bytes()
	if d.err != nil {
		return cid.Undef
	}
	if len(b) == 0 || b[0] != 0 {
		d.fail("link without its prefix")
		return cid.Undef
	}
	c, err := cid.Cast(b[1:])
	if err != nil {
		d.fail("link: %v", err)
		return cid.Undef
	}
	if !ok(c) {
		d.fail("link to %s has no place here", c)
		return cid.Undef
	}
	return c
}

// end returns the first error, or one if anything is left.
func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes behind the end", len(d.rest))
	}
	return d.err
}

const (
	minDigest = 20 // bytes of a digest, as exchanges accept blocks
	maxDigest = 64
	maxInline = 128 // bytes of an identity CID's content
)

// isBlock accepts CIDs of blocks of a dataset: those that have hashes which peers accept.
func isBlock(c cid.Cid) bool {
	if isOurs(c, cid.Raw) || isOurs(c, cid.DagProtobuf) {
		return true // nearly all: no need to take the CID apart
	}
	p := c.Prefix()
	switch p.Codec {
	case cid.Raw, cid.DagProtobuf, cid.DagCBOR, cid.DagJSON:
	default:
		return false
	}
	if p.MhLength < minDigest || p.MhLength > maxDigest {
		return false
	}
	switch {
	case p.MhType == mh.SHA2_256, p.MhType == mh.SHA2_512, p.MhType == mh.DBL_SHA2_256, p.MhType == mh.BLAKE3:
		return true
	}
	return p.MhType >= mh.BLAKE2B_MIN+minDigest-1 && p.MhType <= mh.BLAKE2B_MAX
}

// isRoot accepts blocks and roots that hold their content themselves.
func isRoot(c cid.Cid) bool {
	p := c.Prefix()
	return isBlock(c) || p.MhType == mh.IDENTITY && p.MhLength <= maxInline
}

// isParity and isPart accept what this package makes: raw parity, and parts of manifests.
func isParity(c cid.Cid) bool { return isOurs(c, cid.Raw) }
func isPart(c cid.Cid) bool   { return isOurs(c, cid.DagCBOR) }

// isOurs accepts CIDs of version 1 with sha2-256, by their bytes.
func isOurs(c cid.Cid, codec byte) bool {
	b := c.KeyString()
	return len(b) == 36 && b[0] == 1 && b[1] == codec && b[2] == mh.SHA2_256 && b[3] == 32
}
