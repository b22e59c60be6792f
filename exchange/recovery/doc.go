// Package recovery rebuilds lost blocks from the stripes that a manifest puts them in. Make one with [New] and give
// [Recovery.Rescue] to the exchange, which calls it beside its own fetch for a block that nobody seems to have, or
// that has not come in time. Whichever is first, the fetch or the rescue, gives the block to all who wait for it.
//
// A dataset is protected by one or more manifests (package erasure). Which ones is known to a [Register]: from
// whoever named a manifest, from an import on this node, or from peers, who are asked when a block is lost.
//
// # Promises
//
//   - A stripe is rebuilt once at a time, however many readers wait for its blocks. Blocks of it that were lost and that
//     nobody waits for are put into the store, as their readers come next; the others are kept by who asked for them.
//   - As many shards are fetched as the stripe has blocks. Those in the local store come first, then blocks of the
//     dataset, then parity. Another one is asked for when one can't be found, or all are slow.
//   - A manifest is trusted for nothing. Shards are checked against their CIDs by whoever fetched them, and what
//     was rebuilt against the CID that was asked for, before anybody sees it. One that lies is not used again.
//   - Manifests that lie, or that name shards which never come, delay a rescue and no more: the next one is tried beside
//     them. What peers tell of is remembered beyond this run only when it has helped.
//   - A stripe of which too few shards are known holds no memory and keeps no other one waiting. It fails when that does
//     not change for a while, to be tried again by who asks next.
//   - What stripes take in memory is bounded in bytes, whatever a manifest says. One stripe larger than that is
//     rebuilt alone, and refused beyond a second bound.
//   - Nothing here lasts: a rescue ends when nobody waits for it any more.
package recovery
