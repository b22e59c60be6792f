// Package dag builds UnixFS DAGs: files, symbolic links and directories in the unixfs-v1-2025 profile, so that equal
// content gets the CID that other implementations give it. Make a [Builder] with [New]; [Builder.Tar] imports a whole
// tree, [Builder.File], [Builder.Symlink] and [Builder.Dir] its parts.
//
// Blocks go to a [Sink] as they are made: reading, hashing on all cores and writing overlap, and no more of a file is
// in memory than the chunks in flight and one inner node a level. A file of 4 MiB or more whose length is known goes to
// a [Body], leaves at their offsets; everything else is put loose.
//
// With Config.Preserve mode and modification time are kept; then every file has a dag-pb root above raw leaves. The
// CID depends on content and, with Preserve, on metadata: never on timing, on the number of workers or on the order in
// which a directory was filled.
//
// The package keeps nothing across a crash: an import that did not return is done again, and gives the same blocks. A
// Builder may be used from any goroutine, a [Dir] from one at a time.
package dag
