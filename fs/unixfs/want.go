package unixfs

import (
	"context"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// Place says where in a UnixFS file a block lies. The zero Place means none.
type Place struct {
	File      cid.Cid // the file's root
	Offset    uint64  // bytes from the file's start
	FileBytes uint64  // the file's length
	Bytes     uint64  // what the file declares to lie there, down to the leaf; 0 is unknown
}

// Want names a block and what is known about it.
type Want struct {
	CID     cid.Cid
	Dataset cid.Cid // the root under which the block was met; may be undefined
	Place   Place   // inner nodes of a file carry the place of their first byte
}

// Blocks is where a Reader gets blocks from. Methods are called concurrently. Blocks returned must hash to their CID
// and must never change; the Reader does not change them either, and keeps none of their bytes.
type Blocks interface {
	// Get returns the block, from wherever it may be.
	Get(ctx context.Context, w Want) (blocks.Block, error)
	// Local returns the block without using the network; its error wraps ErrNotLocal when the block is not here.
	Local(ctx context.Context, w Want) (blocks.Block, error)
	// Prefetch says that the blocks will be wanted soon. It is a hint and returns at once.
	Prefetch(ctx context.Context, ws []Want)
}
