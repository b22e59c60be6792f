// Package provider is the other end of a storage link: it keeps sealed chunks for writers, signs for
// them, proves that it has them and serves their blocks. Open one with [Open] and hand every stream of
// the storage protocol to [Provider.Serve]; [Provider.Run] does what time asks for.
//
// # Nouns
//
// A copy is one sealed chunk: a file and a record. A link is one agreement of a writer about a chunk;
// it is named by writer and link ID, so nobody reaches another's. Links of one writer for one chunk
// share a copy where the sealed bytes are the same, as they are after a renewal; those of different
// writers never do, because their keys differ. A tombstone remembers a link that had a pledge and
// ended, so that its ID is never signed for again.
//
// The states of a link:
//
//	agreed     space is reserved until a deadline. Nothing else is here.
//	receiving  key and map are here, and each segment that the bitmap names was on the disk before it.
//	stored     all segments fit the map, all blocks their CIDs; file and index are synced.
//	pledged    the pledge is signed and synced. It is the one answer from now on.
//	ended      released, expired, not paid in time, or never completed.
//
// Every answer may be lost and every request comes again: the state is committed before the answer.
//
// # Promises
//
//   - No pledge is signed before all bytes were verified (map against root, segments against map, blocks
//     against the descriptor's CIDs) and synced. After a stop that was not clean every file is hashed
//     again before it counts.
//   - A link has one pledge, over any crash, as long as its tombstone is kept: 30 days past its expiry,
//     unless there are more tombstones than [Limits] allow.
//   - A block is checked against its CID each time it is handed out.
//   - Space is reserved when a request is agreed to, at what the chunk costs with its descriptor, map
//     and index, and given back by failure, deadline, release and expiry. The sum never passes the quota.
//   - A pledge with a price that is not paid within the grace is dropped, and later requests about it
//     are refused as unpaid. What a writer paid is counted once: a voucher that was accepted and not
//     yet written down when the power went is found by what the [Till] has received.
//   - Price 0 goes through the same states, and is paid from the start.
//
// # Limits
//
// Streams, agreements, reserved bytes, memory for requests, copies of a chunk and tombstones are
// bounded, per writer and in total ([Limits]). A stream that stalls is closed. What passes a limit is
// refused with a reason and leaves nothing behind.
//
// # Crashes
//
// State is in the database, in records that change in one transaction; bytes are in one file a copy,
// under a name that is never used again. All that was answered outlives the process. A power cut may
// take agreements and maps back: then the link is unknown, or wants its map, and begins again. Segments
// that were answered as here, pledges, payments and releases are synced before the answer. While
// segments come, file and bitmap are synced every 2 seconds.
//
// [Open] removes files that no record names. A copy without its file, or with less than its bitmap says,
// is found when it is used next or when Run comes to it: what is signed is marked as damaged and told
// so to whoever asks, what is not is asked for again.
//
// # Errors and callers
//
// [ErrNotFound], [ErrClosed] and [ErrFull] are told apart with errors.Is. All methods may be called
// from any goroutine. No goroutine outlives the call that it works for. Close waits for calls to end.
package provider
