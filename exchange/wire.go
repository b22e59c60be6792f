package exchange

import (
	"errors"
	"fmt"
	"slices"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Bounds on what a message may hold. A message beyond them is malformed.
const (
	maxFrameBytes   = 4 << 20 // one message on the wire, as every Bitswap peer has it
	maxBlockBytes   = 2 << 20 // one block's data
	maxCIDBytes     = 168     // four varints and the longest digest
	maxWireEntries  = 1 << 16 // want list entries in one message
	maxPresences    = 1 << 16 // presences in one message
	maxWireBlocks   = 1 << 13 // blocks in one message; others send some thousands of the smallest at most
	maxVouchers     = 16      // in one message
	maxVoucherBytes = 512

	maxManifestRoots   = 64 // whose manifests are asked for or told in one message
	maxManifestsOfRoot = 8

	minDigestBytes = 20 // a shorter digest proves nothing
	maxDigestBytes = 128
	sha256Bytes    = 32
)

// errMalformed marks what no honest peer sends: the message is dropped, and so is the peer.
var errMalformed = errors.New("malformed message")

// malformed wraps errMalformed with what is wrong.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errMalformed}, args...)...)
}

// message is a Bitswap message in this room's words. Incoming and outgoing messages share it.
type message struct {
	entries   []Entry
	full      bool // entries replace all that were sent before
	presences []Presence
	blocks    []blocks.Block
	pending   int32 // bytes the sender has queued for the receiver

	account  *Account // nil where nothing is said about it
	vouchers [][]byte

	roots     []cid.Cid // whose manifests are asked for
	manifests []known
}

// known is what a peer knows of the manifests of a dataset.
type known struct {
	root      cid.Cid
	manifests []cid.Cid
}

// Account is what a peer asks for blocks, and how we stand with it.
type Account struct {
	PricePerMiB Amount
	CreditBytes uint64 // served before they are paid
	Owed        Amount // by us, as the peer has it
	Suspended   bool   // it serves nothing until something of it is paid
}

// empty reports whether there is nothing to send.
func (m *message) empty() bool {
	return len(m.entries) == 0 && len(m.presences) == 0 && len(m.blocks) == 0 && !m.full && m.account == nil && len(m.vouchers) == 0 &&
		len(m.roots) == 0 && len(m.manifests) == 0
}

// plain returns what a peer of another make can be told of the message: nothing about money and manifests.
func (m *message) plain() *message {
	out := *m
	out.account, out.vouchers, out.roots, out.manifests = nil, nil, nil, nil
	out.entries, out.presences = slices.Clone(m.entries), slices.Clone(m.presences)
	for i := range out.entries {
		out.entries[i].PricePerMiB = 0
	}
	for i := range out.presences {
		out.presences[i].Price, out.presences[i].Bytes = 0, 0
	}
	return &out
}

// without12 returns what a peer of version 1.1 can be told of the message.
func (m *message) without12() *message {
	out := &message{full: m.full, blocks: m.blocks, pending: m.pending}
	for _, e := range m.entries {
		if e.Kind != WantHave {
			e.SendDontHave = false
			out.entries = append(out.entries, e)
		}
	}
	return out
}

// blockBytes sums the lengths of the blocks' data.
func (m *message) blockBytes() int {
	n := 0
	for _, b := range m.blocks {
		n += len(b.RawData())
	}
	return n
}

// hashAllowed reports whether a digest of this kind and length is strong enough to accept a block
// by, and known here. Identity is not: such a block is its own CID and never travels.
func hashAllowed(code uint64, digestBytes int) bool {
	if digestBytes < minDigestBytes || digestBytes > maxDigestBytes {
		return false
	}
	switch {
	case code == mh.SHA2_256, code == mh.SHA2_512, code == mh.DBL_SHA2_256, code == mh.BLAKE3:
		return true
	case code >= mh.BLAKE2B_MIN+minDigestBytes-1 && code <= mh.BLAKE2B_MAX:
		return true
	}
	return false
}

// servable reports whether a CID names something that travels at all: neither undefined nor
// identity, whose data is in the CID.
func servable(c cid.Cid) bool {
	return c.Defined() && c.Prefix().MhType != mh.IDENTITY
}
