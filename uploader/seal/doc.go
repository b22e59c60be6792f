// Package seal is what both ends of a storage link share: how a chunk is sealed for one provider, how
// the provider proves that it has it, what it signs, and the messages between the two. A writer calls
// [Key.Seal] and checks what comes back with [Pledge.Check] and [Proof.Verify]; a provider calls
// [Key.XORAt] and [Pledge.Sign].
//
// # Sealing
//
// A chunk is sealed with AES-256-CTR, counter from zero, under a key that [KeyFor] derives from the
// writer's secret, the provider and the chunk, so that no two providers keep equal bytes and any range
// can be unsealed alone. Sealed bytes are cut into segments of 64 KiB; the last may be short. A [Map]
// lists their sha2-256; its [Map.Root] is a Merkle tree's over them, shaped as in RFC 6962. Leaves,
// inner nodes and the root are hashed under different first bytes, and the root covers the number of
// segments, so nothing that was hashed as one can be shown as another. A [Proof] leads from a segment
// to the root.
//
// Sealing hides nothing from the provider, which is given the key to serve blocks. Never seal two
// different chunks under one key: the key is the chunk's by its ID, and the ID is that of its content.
//
// # Messages
//
// Over /holdfast/storage/1.0.0 a stream carries one request and one answer: [WriteMessage] sends
// either; [Reader.ReadRequest] and [Reader.ReadAnswer] read them. After [Data] segments follow, in
// any order, by [WriteSegment], and [EndSegments]; [SendData] does all of that on the writer's side.
// All requests may be repeated. What can't be granted is answered with a [Refusal].
//
// # Limits
//
// Each kind of message has a limit of its own, checked by its length and first byte before memory is
// taken; memory then grows with what has come. Every field is bounded, lists are counted before they
// are made, and no input makes a function of this package panic. Prices are at most [MaxPrice].
//
// # Errors and callers
//
// [ErrMalformed], [ErrSignature], [ErrProof] and [ErrMap] are told apart with errors.Is, a *[Refusal]
// with errors.As. Functions are pure and may be called from many goroutines; a [Reader] belongs to one.
// There is no clock, and no goroutine but the reading ones of Ask and SendData, which end before these return.
package seal
