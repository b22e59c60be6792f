// Package uploader places chunks with storage providers and keeps them there: it is the writer's end of
// all storage links. [Open] one, call [Uploader.Run], and hand it files with [Uploader.AddFile]; whatever
// stops in between, each chunk of them ends with as many independent providers as its file asks for,
// each of whom has signed for it.
//
// # Nouns
//
// A [File] is a name for groups of chunks and a [Policy]. A [Group] is what erasure makes of a run of
// stripes: columns, each a chunk, of which no two may lie with one provider. A link is one chunk at one
// provider; it goes through the states of [LinkState]. What a file or chunk is (created, uploading,
// uploaded, failed) follows from its links and is written down nowhere.
//
// What is in a file, how it was cut into chunks and which manifest names them is the business of whoever
// adds it. A manifest is a file of groups of one column, with [Group.Copies] set.
//
// # The machine
//
// All decisions are those of a machine without IO, clock, lock or channel (machine*.go). Events go in:
// files, candidates, quotes, answers, times. Out comes a ready: first records to persist, then tasks to
// carry out, each answered by one event. The driver (loop.go) commits the records with a sync before it
// starts a task, so nothing is sent that a crash could make undone. All of a link's transitions are in
// machine_link.go.
//
// # Promises
//
//   - No two columns of a group, and no two copies of a chunk, are counted where they lie with one provider. As
//     long as there are enough, they are in different networks too. See Counting.
//   - A link has one ID, one price and one expiry from its first request on. After a crash it goes on from
//     its last state, with the same ID, and data from the first segment that is missing.
//   - Nothing is paid without a verified pledge of exactly what was agreed; a link is paid once, keyed by
//     its ID, in one transaction with the link.
//   - A link that failed after its request was sent is released at its provider before that provider is
//     asked again for the chunk. So a provider never has two pledges of ours for one chunk, but for a
//     renewal.
//   - A provider that lied, signed something else or failed an audit is not used for that chunk again; nor is
//     one that answers others while it has nothing but excuses for audits or vouchers. One that refused or was
//     silent comes back with backoff.
//   - A chunk that its provider does not renew goes to another before the pledge ends. One whose bytes are not
//     here any more is rebuilt from its stripes.
//   - One link's failure fails that link. A file has failed only while nothing is under way for it and no
//     provider is left to ask; a candidate that appears takes it up again.
//   - A file with fewer providers than its groups need waits and says so: how many they need, how many are known
//     that do, and what the matter is with others.
//
// # Counting
//
// Which links a group counts is a matching: as many for each of its chunks as its files ask for, each with
// another provider, and each link signed for long enough. A group is uploaded when it counts all that it
// needs; then the loss of n providers costs its stripes n shards of each copy at most, whatever else these
// providers keep.
//
// Each group counts for itself. A provider may keep two chunks of a group, where it counts with one of them:
// the other is there because another group shares that chunk, or had nobody else for it, and then it has a
// link with somebody else too, which this group counts. Such second links are made only where a group can't
// count the first, and end once all groups of the chunk count as much without them. With as many providers
// as a group has columns there is always a way, unless some don't take all of its chunks; where it takes
// moving a chunk that is in the way of another, that is done as well.
//
// # Bounds
//
// Links at work, requests in parallel per provider, sealed bytes in memory, providers remembered, failed
// links kept and retries are bounded ([Limits]). Each request has a deadline.
//
// # Crashes
//
// Everything that counts is in the database under the prefix: one record a file, group, chunk and link.
// Providers' behaviour and times of audits are not kept: quotes are asked for again.
//
// # Errors and callers
//
// [ErrNotFound], [ErrExists], [ErrFailed], [ErrInvalid] and [ErrClosed] are told apart with errors.Is. All methods of
// an Uploader may be called from many goroutines; they wait for Run's loop. All goroutines are Run's.
package uploader
