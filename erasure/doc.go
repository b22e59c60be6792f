// Package erasure protects a dataset against lost blocks: Reed-Solomon parity over its blocks, and a
// manifest that says which blocks belong together. Make a codec with [New] and call [Codec.Protect]
// on what a [Planner] puts together; open a manifest with [OpenManifest] and ask it for the stripe of a
// lost block with [Manifest.Find], then call [Codec.Reconstruct].
//
// # Nouns
//
// A [Stripe] is up to k blocks of the dataset (its data shards) and m parity shards computed from
// them, over GF(2^8), with k+m at most 256. Blocks shorter than the longest are coded as if zeros
// followed them; a stripe of fewer than k blocks is coded as if it had empty ones (a shortened code),
// and needs only as many shards as it has blocks. A parity shard is a raw block with a CID of its own
// and is as long as the longest block. A [Group] is a run of stripes; its j-th [Chunk] is the list of the
// j-th shards of its stripes, at most 8 MiB, and is what one provider is asked to keep. The ID of a
// chunk is the CID of that list. The manifest of a dataset lists all groups. A [Planner] decides which
// blocks share a stripe, a [Grouper] which stripes share a group, and a [ManifestWriter] writes it down.
//
// # Promises
//
// Any as many shards of a stripe as it has blocks give back all others, bit for bit. The bytes that this
// package computes are those of klauspost/reedsolomon's default matrix, so other programs can decode.
//
// All of a plan and of a manifest follows from the blocks, their order and k, m: the same input gives
// the same bytes everywhere. Every block is in one stripe, whatever the times it occurs, as far as
// [Seen] remembers; no stripe and no group holds a block twice in any case. Parity bytes are at most
// m/k × 1.0625 of the bytes protected, plus one stripe's parity (see planner.go).
//
// Memory is bounded whatever the dataset's size: a Planner holds at most [MaxPending](k) descriptions, a
// ManifestWriter one page, one index run (32 MiB) and one directory a level, a Manifest a handful of
// pages.
//
// With k = 1 parity is a copy. A copy of a raw block has that block's CID, so the columns of such a
// group may be one chunk, to be placed as often as it occurs.
//
// # What is not trusted
//
// Manifests come from strangers. Decoders take one encoding only (canonical dag-cbor, no unknown
// fields), check counts and sizes before they allocate, and never panic. A manifest that lies makes
// Find fail or the recovery built on it: callers check shards against their CIDs before decoding, and
// what was decoded against the CID that was asked for. Reed-Solomon cannot tell a bad shard.
//
// # Errors and callers
//
// [ErrTooFew], [ErrShape], [ErrMalformed] and [ErrNotFound] are told apart with errors.Is. Codecs and
// Manifests may be used from many goroutines; Planner, Grouper and ManifestWriter from one at a time.
// There is no IO, clock or lasting goroutine here: nothing survives a crash and nothing needs to.
package erasure
