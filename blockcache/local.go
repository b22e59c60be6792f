package blockcache

import (
	"fmt"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	_ "github.com/multiformats/go-multihash/register/all" // blake2, blake3, sha3: blocks of other nodes use them
)

// emptyHashes holds the multihashes of the empty block under every common hash function.
var emptyHashes = sync.OnceValue(func() map[string]struct{} {
	codes := []uint64{
		mh.SHA2_256, mh.SHA2_512, mh.SHA1, mh.SHA3_256, mh.SHA3_512, mh.BLAKE3,
		mh.BLAKE2B_MIN + 31, mh.BLAKE2B_MIN + 63, mh.BLAKE2S_MIN + 31, mh.DBL_SHA2_256,
	}
	m := make(map[string]struct{}, len(codes))
	for _, code := range codes {
		if h, err := mh.Sum(nil, code, -1); err == nil {
			m[string(h)] = struct{}{}
		}
	}
	return m
})

// key is what blocks are filed under: the multihash, so that CIDs of the same bytes share them.
func key(c cid.Cid) string { return string(c.Hash()) }

// checkCID refuses CIDs that nothing can be filed under.
func checkCID(c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("undefined CID: %w", ErrNotFound)
	}
	if len(c.Bytes()) > maxCIDBytes {
		return fmt.Errorf("CID of %d bytes is too long: %w", len(c.Bytes()), ErrNotFound)
	}
	return nil
}

// inline answers for CIDs whose bytes need no store: identity CIDs and the empty block.
func inline(c cid.Cid) (blocks.Block, bool) {
	if !c.Defined() {
		return nil, false
	}
	p := c.Prefix()
	if p.MhType == mh.IDENTITY {
		d, err := mh.Decode(c.Hash())
		if err != nil {
			return nil, false
		}
		return withCID(d.Digest, c), true
	}
	if _, ok := emptyHashes()[string(c.Hash())]; ok {
		return withCID([]byte{}, c), true
	}
	return nil, false
}

// withCID joins bytes already known to be right with their CID.
func withCID(data []byte, c cid.Cid) blocks.Block {
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil { // only in boxo's debug mode, which hashes again
		return nil
	}
	return b
}

// hashes reports whether data hashes to c.
func hashes(c cid.Cid, data []byte) bool {
	got, err := c.Prefix().Sum(data)
	return err == nil && got.Equals(c)
}

// hashesTo reports whether data has the multihash.
func hashesTo(hash string, data []byte) bool {
	d, err := mh.Decode([]byte(hash))
	if err != nil {
		return false
	}
	got, err := mh.Sum(data, d.Code, d.Length)
	return err == nil && string(got) == hash
}
