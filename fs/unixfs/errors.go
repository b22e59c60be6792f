package unixfs

import "errors"

var (
	// ErrNotFound: the directory has no such name.
	ErrNotFound = errors.New("no such name")
	// ErrCorrupt: the DAG lies about itself or is malformed; asking again gives the same answer.
	ErrCorrupt = errors.New("corrupt content")
	// ErrNotDir: a directory was needed and the node is none.
	ErrNotDir = errors.New("not a directory")
	// ErrIsDir: a file was needed and the node is a directory.
	ErrIsDir = errors.New("is a directory")
	// ErrNotLocal: the block is not here, and the network was not to be used.
	ErrNotLocal = errors.New("not in the local store")
	// ErrUnsupported: a codec, hash function or node type that this package does not read.
	ErrUnsupported = errors.New("unsupported content")
)
