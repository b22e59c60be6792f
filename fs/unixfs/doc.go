// Package unixfs reads UnixFS: a path to a node, a file offset to blocks, a directory to its entries.
// Make a [Reader] with [NewReader] and begin with [Reader.Node] or [Reader.Resolve].
//
// Its nouns: a [Want] names a block and the [Place] it has in a file; a [Node] is the decoded root of a file,
// directory or symbolic link; a [File] reads bytes at offsets; a [Dir] looks up names and lists entries. [Links] lists
// the children of any block, [Verify] checks bytes against a CID.
//
// Every layout is read: balanced and trickle files, data inside inner nodes, dag-pb and raw leaves, any chunk size,
// CIDv0 and CIDv1, plain and HAMT directories, mode and modification time.
//
// Nothing of a DAG is trusted but the hashes, which whoever delivers blocks has checked. Declared sizes are compared
// with what is found before a byte is returned, depth and width are bounded, and a DAG that lies gives [ErrCorrupt]
// for the reads that touch the lie; other reads of it go on. A file's index is never held whole: inner nodes are
// fetched as reads need them and kept, decoded, in one cache of bounded bytes per Reader.
//
// The package keeps no state on disk and starts no goroutine that outlives the call that started it. All methods may
// be called from any goroutine.
package unixfs
