package dag

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

var (
	// ErrName: a name that a UnixFS directory cannot hold, or holds already.
	ErrName = errors.New("unusable name")
	// ErrSize: a file gave more or fewer bytes than were announced, as one that is written to does.
	ErrSize = errors.New("file changed while it was read")
	// ErrArchive: the tar stream is malformed, or past a limit.
	ErrArchive = errors.New("bad archive")
)

// The unixfs-v1-2025 profile.
const (
	defaultChunkBytes = 1 << 20
	defaultWidth      = 1024
	shardingBytes     = 256 << 10 // a directory block longer than this becomes a HAMT
	shardWidth        = 256
)

// BodyBytes is the length from which on a file goes to a Body.
const BodyBytes = 4 << 20

// Sink takes the blocks that are made. Its methods are called concurrently.
type Sink interface {
	// Put takes loose blocks: small files, inner nodes, directories. The blocks are the sink's from then on.
	Put(ctx context.Context, blks []blocks.Block) error
	// Body begins a file of fileBytes, at least BodyBytes, whose raw leaves will follow.
	Body(ctx context.Context, fileBytes uint64) (Body, error)
}

// Body takes one file's raw leaves. Exactly one of Commit and Abort is called, after every Put has returned.
type Body interface {
	// Put takes leaves that lie one behind the other from offset on. It is called concurrently and in any order, and
	// must not keep a block's bytes after it returned: the buffer is used again.
	Put(ctx context.Context, offset uint64, blks []blocks.Block) error
	// Commit ends the body of the file whose root is file. The file's inner nodes were put to the Sink before.
	Commit(ctx context.Context, file cid.Cid) error
	// Abort drops what was put.
	Abort()
}

// Config says where blocks go and how they are made.
type Config struct {
	Sink     Sink          // required
	Preserve bool          // keep mode and modification time, which changes CIDs
	Workers  int           // chunks hashed at once by all calls together; default one a core
	Visit    func(cid.Cid) // if set, told of every block made, before it is put; called concurrently

	// For tests; the zero values are the profile's.
	chunkBytes int
	width      int
}

// Meta is the metadata of a file, directory or symbolic link. It is used with Config.Preserve only.
type Meta struct {
	Mode    os.FileMode // permission, setuid, setgid and sticky bits count; 0 is unset unless HasMode
	HasMode bool        // Mode is set, even if it is 0
	ModTime time.Time   // zero is unset
}

// Link names what was built.
type Link struct {
	CID       cid.Cid
	Bytes     uint64 // of all blocks of the DAG, as directories state it
	FileBytes uint64 // of a file's content or a symbolic link's target; 0 for directories
}

// Builder makes DAGs. It is safe for concurrent use.
type Builder struct {
	cfg     Config
	workers chan struct{} // a token for each chunk being hashed
	buffers chan []byte   // chunk buffers to use again
}

// New checks cfg and returns a Builder. It starts nothing.
func New(cfg Config) (*Builder, error) {
	if cfg.Sink == nil {
		return nil, errors.New("dag: no sink")
	}
	if cfg.Workers < 0 {
		return nil, fmt.Errorf("dag: %d workers", cfg.Workers)
	}
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.Visit == nil {
		cfg.Visit = func(cid.Cid) {}
	}
	if cfg.chunkBytes == 0 {
		cfg.chunkBytes = defaultChunkBytes
	}
	if cfg.width == 0 {
		cfg.width = defaultWidth
	}
	return &Builder{
		cfg:     cfg,
		workers: make(chan struct{}, cfg.Workers),
		buffers: make(chan []byte, 2*cfg.Workers+2),
	}, nil
}

// enter waits for a worker's token.
func (b *Builder) enter(ctx context.Context) error {
	select {
	case b.workers <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *Builder) leave() { <-b.workers }

// buffer returns a chunk buffer.
func (b *Builder) buffer() []byte {
	select {
	case buf := <-b.buffers:
		return buf
	default:
		return make([]byte, b.cfg.chunkBytes)
	}
}

// release gives a buffer back; it must not be used any more.
func (b *Builder) release(buf []byte) {
	if cap(buf) < b.cfg.chunkBytes {
		return
	}
	select {
	case b.buffers <- buf[:cap(buf)]:
	default:
	}
}

// putOne hands a block to the sink.
func (b *Builder) putOne(ctx context.Context, blk blocks.Block) error {
	b.cfg.Visit(blk.Cid())
	return b.cfg.Sink.Put(ctx, []blocks.Block{blk})
}
