package blockcache

import (
	"errors"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// MaxBlockBytes is the largest block that is kept, in bytes.
const MaxBlockBytes = 2 << 20

// MinBodyBytes is the shortest file, in bytes, that gets a body of its own.
const MinBodyBytes = 4 << 20

// The errors of this package; test with [errors.Is].
var (
	ErrNotFound = errors.New("block not found")
	ErrFull     = errors.New("store is full")
	ErrCorrupt  = errors.New("block is corrupt")
	ErrClosed   = errors.New("store is closed")
	ErrRecalled = errors.New("lent file is wanted back") // by Commit: Reclaim or TakeOver came first
)

// Place says where in a UnixFS file a raw leaf lies. The zero Place means none.
type Place struct {
	File      cid.Cid // the file's root
	Offset    uint64  // bytes from the file's start
	FileBytes uint64  // the file's length
	Bytes     uint64  // what the file declares to lie there, down to the leaf; 0 is unknown
}

// Want names a block and what is known about it.
type Want struct {
	CID     cid.Cid
	Dataset cid.Cid // root under which the block was met; may be undefined
	Place   Place
}

// Entry is a block to keep and where it belongs. The block's bytes must not change while a Put
// runs; they are not kept by the disk tier and are kept as they are by the memory tier.
type Entry struct {
	Block blocks.Block
	Place Place
}
