package erasure

import (
	"fmt"

	"github.com/ipfs/go-cid"
)

// Chunk describes what one provider is asked to keep: the shards of one column, in order. All of them
// together have at most [MaxChunk] bytes.
type Chunk []Shard

const (
	chunkSchema = "holdfast/chunk/1"
	minEntry    = 1 + minLink + minUint // a shard in a descriptor
)

// Bytes returns the sum of the shards' lengths.
func (c Chunk) Bytes() int64 {
	var n int64
	for _, s := range c {
		n += int64(s.Bytes)
	}
	return n
}

// Encode returns the chunk's descriptor, canonical dag-cbor, and its CID, which is the chunk's ID. It
// fails with ErrShape if the chunk is empty or passes a limit.
func (c Chunk) Encode() (id cid.Cid, descriptor []byte, err error) {
	if len(c) == 0 || c.Bytes() > MaxChunk {
		return cid.Undef, nil, shapef("describe chunk of %d shards and %d bytes", len(c), c.Bytes())
	}
	b := putMap(make([]byte, 0, 64+len(c)*48), 2)
	b = putText(b, "schema")
	b = putText(b, chunkSchema)
	b = putText(b, "shards")
	b = putList(b, len(c))
	for _, s := range c {
		if s.Bytes < 0 || s.Bytes > MaxBlock || !isBlock(s.CID) {
			return cid.Undef, nil, shapef("describe chunk with shard %s of %d bytes", s.CID, s.Bytes)
		}
		b = putList(b, 2)
		b = putLink(b, s.CID)
		b = putUint(b, int64(s.Bytes))
	}
	if len(b) > MaxPage {
		return cid.Undef, nil, shapef("describe chunk of %d shards", len(c))
	}
	return sumCID(cid.DagCBOR, b), b, nil
}

// DecodeChunk reads a descriptor that hashes to the chunk's ID, which the caller has checked. What it
// returns encodes to the same bytes. It fails with ErrMalformed.
func DecodeChunk(b []byte) (Chunk, error) {
	d := newDecoder(b)
	d.fields(2)
	d.key("schema")
	d.text(chunkSchema)
	d.key("shards")
	c := make(Chunk, d.list(MaxPage/minEntry, minEntry))
	for i := range c {
		d.tuple(2)
		c[i].CID = d.link(isBlock)
		c[i].Bytes = int(d.uint(MaxBlock))
		if d.err != nil {
			break
		}
	}
	if len(c) == 0 || c.Bytes() > MaxChunk {
		d.fail("chunk of %d shards and %d bytes", len(c), c.Bytes())
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("decode chunk: %w", err)
	}
	return c, nil
}
