package unixfs

import (
	"os"
	"time"

	"github.com/ipfs/go-cid"
)

// Kind is what a node is to its user.
type Kind uint8

const (
	// KindFile is a regular file.
	KindFile Kind = iota + 1
	// KindDir is a directory, plain or HAMT.
	KindDir
	// KindSymlink is a symbolic link.
	KindSymlink
)

// String names the kind as people do.
func (k Kind) String() string {
	switch k {
	case KindFile:
		return "file"
	case KindDir:
		return "directory"
	case KindSymlink:
		return "symbolic link"
	}
	return "unknown"
}

// Node describes the root of a file, a directory or a symbolic link. It is small, holds no block, and is not changed
// after it was returned.
type Node struct {
	CID     cid.Cid
	Dataset cid.Cid     // passed on in every Want made from this node
	Kind    Kind        // what it is
	Bytes   uint64      // a file's length, a link target's length, 0 for directories
	HasMode bool        // whether the DAG states a mode
	Mode    os.FileMode // permission, setuid, setgid and sticky bits; no type bits
	ModTime time.Time   // zero when the DAG states none
	Target  string      // where a symbolic link points
}
