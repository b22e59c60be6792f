package dataset

import (
	"encoding/binary"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

const digestBytes = 32

// digest names a block in the database. All blocks here are hashed with sha2-256.
type digest [digestBytes]byte

func digestOf(c cid.Cid) digest { return digest([]byte(c.Hash()[2:])) }

// encoder appends the fields of a record.
type encoder []byte

func (e *encoder) num(v uint64)   { *e = binary.AppendUvarint(*e, v) }
func (e *encoder) signed(v int64) { *e = binary.AppendVarint(*e, v) }
func (e *encoder) raw(b []byte)   { *e = append(*e, b...) }
func (e *encoder) text(s string)  { e.num(uint64(len(s))); *e = append(*e, s...) }
func (e *encoder) version(v Version) {
	e.signed(v.Bytes)
	e.signed(v.ModTime)
	e.signed(v.ChangeTime)
}

// cid appends the codec, 0 for none, and the digest.
func (e *encoder) cid(c cid.Cid) {
	if !c.Defined() {
		e.num(0)
		return
	}
	e.num(c.Prefix().Codec)
	d := digestOf(c)
	e.raw(d[:])
}

// decoder takes the fields of a record. After the first that is not there all are zero, and bad is set.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) fail() {
	d.rest, d.bad = nil, true
}

func (d *decoder) num() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) signed() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) text() string { return string(d.take(d.num())) }

func (d *decoder) fileID() (id FileID) {
	copy(id[:], d.take(uint64(len(id))))
	return id
}

func (d *decoder) version() Version {
	return Version{Bytes: d.signed(), ModTime: d.signed(), ChangeTime: d.signed()}
}

func (d *decoder) cid() cid.Cid {
	codec := d.num()
	if codec == 0 || d.bad {
		return cid.Undef
	}
	b := d.take(digestBytes)
	if d.bad {
		return cid.Undef
	}
	return makeCID(codec, digest(b))
}

// end reports a record that is too short or too long.
func (d *decoder) end(what string) error {
	if d.bad || len(d.rest) > 0 {
		return corrupt("read %s", what)
	}
	return nil
}

func makeCID(codec uint64, d digest) cid.Cid {
	hash := make([]byte, 0, 2+digestBytes)
	hash = append(hash, mh.SHA2_256, digestBytes)
	return cid.NewCidV1(codec, append(hash, d[:]...))
}
