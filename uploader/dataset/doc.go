// Package dataset keeps the dataset of an upload directory as it is now: which blocks its files and directories are
// made of, in which stripes and groups those are protected, and the manifest that says so. Open it with [Open], tell it
// with [Dataset.Told] what happened to the tree, and call [Dataset.Work] from one loop: that does what is due.
//
// # Nouns
//
// A file is known by a [FileID] that outlives renames; what was imported of it is a version. A mark is a name under
// which the [Store] keeps blocks. A block is live while a file's version, a directory or a symbolic link that is in the
// tree has it. A group is a run of stripes whose columns are chunks; the [Sink] gets it to upload, and [Dataset.Placed]
// tells that this is done. A synced state is a root, the groups that hold all its blocks, and the manifest of both.
//
// # What is in the tree
//
// Files under names that are temporary (Config.Temporary) are left out until they are told of as Closed, under that name
// or another; from then on their names do not matter. A file appears in the version that was imported last; a name whose file has no such
// version yet is left out. Special files, and names that UnixFS cannot hold, are left out. Modes and times are kept.
// The root has the CID that dag.Builder gives the same tree.
//
// # Costs
//
// What happened is written to a journal and returns at once; the journal is worked off later against the staging tree
// as it is then. An import holds the chunks in flight; lists of blocks are in pieces in the database. A directory of at
// most 256 KiB is one block and built anew; of a larger one (a HAMT) only the shards on the way to a changed name are
// built again, from an index of names by their hash. A directory that moves is one changed name. A change of mode or
// time alone makes a new root node above the same leaves.
//
// # How much waits
//
// At most Config.MostPending bytes wait to be placed: groups that are not, and blocks that have no group, with the parity
// that they will get. While more does, no file's import is begun and no group is made; one file and one group may go
// beyond it, so that something always goes on. Imports and groups take turns, and what is in groups is kept for them
// alone: the Store holds little more than what waits. A settled state, and its manifest, come when all that was closed
// is in groups.
//
// A Store that is full (ErrFull) ends importing, or making groups, not the rest of a pass: what is there is given to
// the Sink, placed and released, and makes room. Then, or after a second, it is tried again. [Dataset.Full] and
// File.Err tell of it. Files that did not fit are tried after all others.
//
// Looking for work costs what there is of it: what was done left keys that were deleted, over which the database would
// read, so it is remembered where the others begin.
//
// # Stripes
//
// Blocks are counted: every list of a file's blocks, and every directory's block, refers to its blocks once, written
// in the same transaction as the counts. (A mark and sweep would read all directories for every change.) Blocks that
// become live and are in no group wait in a queue; when a group is full, or nothing happened for Config.Quiet, they are
// planned, coded and grouped together. Groups are kept as they are while at least half of their bytes is live. The live
// blocks of the others wait again, and so do those of eight small groups of like size, so that many small changes do
// not leave many small groups. A group is released when it has no live block, the groups that took its blocks are placed
// and neither the manifest placed last nor the one on its way names it; one that is not placed itself as soon as it has
// no live block.
//
// # Crashes
//
// All state is in the database, and every transaction leaves it whole: what takes several is begun with a note that
// has it finished at the next start. What the Sink is told is on the disk before (Config.Flush) and is told again after
// a start until it is placed. What a power cut takes from the journal comes back with [Dataset.Scan] and the closes
// that the tree's owner tells again. Blocks are never hashed again for versions that are recorded.
//
// [Dataset.Work], [Dataset.Scan] exclude each other; all other methods may be called at any time from anywhere.
// There is no clock here and no goroutine that outlives its call.
package dataset
