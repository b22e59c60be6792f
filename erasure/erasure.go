package erasure

import (
	"crypto/sha256"
	"errors"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Limits that both writers and decoders keep. All but MaxShards are in bytes.
const (
	MaxShards = 256     // k+m of a code
	MaxBlock  = 2 << 20 // a block, the limit of Bitswap
	MaxChunk  = 8 << 20 // the shards of a chunk together
	MaxPage   = 1 << 20 // a block that is part of a manifest, chunk descriptors included
)

var (
	// ErrTooFew says that fewer shards are there than the stripe has blocks.
	ErrTooFew = errors.New("too few shards")
	// ErrShape says that counts or lengths do not fit the code or the limits.
	ErrShape = errors.New("shards do not fit the code")
	// ErrMalformed says that bytes are no valid part of a manifest.
	ErrMalformed = errors.New("malformed manifest")
	// ErrNotFound says that the manifest names no stripe of a block.
	ErrNotFound = errors.New("block is in no stripe")
)

// Shard names one member of a stripe.
type Shard struct {
	CID   cid.Cid
	Bytes int // its true length, without padding
}

// Stripe is a set of blocks and the parity over them. The j-th shard of Data belongs to column j of
// its group, the j-th of Parity to the j-th column after the data columns.
type Stripe struct {
	Data   []Shard // 1 to k blocks of the dataset
	Parity []Shard // m shards, each as long as the longest of Data
}

// Width returns the length in bytes of the stripe's longest block, which is that of its parity.
func (s Stripe) Width() int { return widest(s.Data) }

// Shards returns data and parity as one list, in the order in which [Codec.Reconstruct] takes them.
func (s Stripe) Shards() []Shard {
	return append(append(make([]Shard, 0, len(s.Data)+len(s.Parity)), s.Data...), s.Parity...)
}

// Lengths returns the true lengths of [Stripe.Shards].
func (s Stripe) Lengths() []int {
	lengths := make([]int, 0, len(s.Data)+len(s.Parity))
	for _, d := range s.Data {
		lengths = append(lengths, d.Bytes)
	}
	for _, p := range s.Parity {
		lengths = append(lengths, p.Bytes)
	}
	return lengths
}

// CheckCode says whether k data and m parity shards make a code; if not, with ErrShape. m may be 0.
func CheckCode(k, m int) error {
	if k < 1 || m < 0 || k > MaxShards || m > MaxShards || k+m > MaxShards {
		return shapef("code of %d data and %d parity shards", k, m)
	}
	return nil
}

func widest(shards []Shard) int {
	width := 0
	for _, s := range shards {
		width = max(width, s.Bytes)
	}
	return width
}

// sumCID returns the CIDv1 with sha2-256 of b.
func sumCID(codec uint64, b []byte) cid.Cid {
	sum := sha256.Sum256(b)
	hash := make([]byte, 0, 34)
	hash = append(hash, mh.SHA2_256, sha256.Size)
	return cid.NewCidV1(codec, append(hash, sum[:]...))
}
