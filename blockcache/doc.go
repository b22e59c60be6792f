// Package blockcache keeps verified blocks near the reader: a memory tier over a disk tier over an
// [Origin]. Open the disk tier with [OpenStore], put a [Cache] over it with [New], and read with
// [Cache.Get]. Every block returned hashes to its CID.
//
// # Nouns
//
// A [Want] names a block and, if known, its [Place]: the file it is a leaf of, and where. A pack is
// an append-only file of records for small and loose blocks. A body is the file of one UnixFS file
// of 4 MiB or more: its raw leaves at their own offsets, with holes until it is complete. The index,
// in the database that cmd opens, says where each block lies; a block may lie in several places. A
// [Pin] is a set of blocks that eviction and [Store.GC] leave alone. A lent body ([Store.LendBody]) lies
// in a file that is not the store's, which a [Lender] opens: the store has its index alone.
//
// # Promises
//
// What was put before a [Store.Sync] that returned nil is readable after any crash or power cut,
// unless it was evicted or deleted. Put itself syncs nothing. Bytes are checked with crc32c on each
// read, and against the CID too if their file was not verified since the last unclean stop;
// [Store.Run] verifies such files once, in the background. What is damaged is forgotten, counted and
// logged, and the block is not found, so that it is fetched again.
//
// [Store.Body] gives out a file's descriptor only when the file is complete and verified. Bodies are
// removed by unlinking them after their index entries are gone, and never punched: who holds a
// descriptor keeps the bytes.
//
// The store stays within its quota. Bodies are evicted in the order of their last use. Blocks in
// packs are evicted by age with a second chance for those read since (see evict.go); that is LRU
// with a grain of 16 KiB, at the cost of 8 KiB of memory for a pack of 1 GiB. State in memory is per
// pack and per body; what is known of single blocks is in the index.
//
// A lent body takes no room and is never evicted, and its descriptor is never given out. Its file is
// looked at when it is opened: one that is gone or whose length or time is another loses its blocks, one
// that cannot be had now does not. [Store.Reclaim] gives the file back: what is pinned and lies nowhere else
// is copied first, durably, beyond the quota if need be. [Store.TakeOver] does so for a file whose last name goes, by
// giving it a name of the store's.
//
// # Crashes
//
// Files are named by the time they were made, and a name is never used twice, so an entry can only
// point to the bytes it was made for or to none. After an unclean stop the index is read in full:
// entries that point nowhere go, records at the end of packs that have no entry get one, what follows
// the last record is cut off, bodies whose writer never came to Commit are removed, pins and figures
// are made to agree. Lent files are not opened for that. One that has a name of the store's is the
// store's if that is its only one, and else still lent. The database may run without SyncWrites: Sync
// flushes its logs.
//
// # Errors and callers
//
// [ErrNotFound], [ErrFull], [ErrCorrupt], [ErrRecalled] and [ErrClosed] are told apart with errors.Is. All methods
// may be called from any goroutine. A [Cache] is closed before its [Store], and that before the
// database.
package blockcache
