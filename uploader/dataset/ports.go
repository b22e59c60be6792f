package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

var (
	// ErrGone says that a file or name is not there.
	ErrGone = errors.New("no such staged file")
	// ErrBusy says that a file is being written to, so that it cannot be read as it is.
	ErrBusy = errors.New("staged file is being written")
	// ErrFull says that a Store has no room for what it is to take. Its methods return errors that wrap it.
	ErrFull = errors.New("no room in the block store")
	// ErrCorrupt says that the database holds what this package did not write.
	ErrCorrupt = errors.New("dataset's records are corrupt")
)

// FileID names a staged file for good, over renames, restarts and all its hard links; or a staged directory as long as
// it exists.
type FileID [16]byte

// Version is what stat says of one content of a file. Two contents have two versions.
type Version struct {
	Bytes      int64
	ModTime    int64 // Unix nanoseconds
	ChangeTime int64 // Unix nanoseconds
}

// Kind is what a name in the staging tree stands for.
type Kind byte

// The kinds of names.
const (
	Special Kind = iota // a device, socket or pipe: never in a dataset
	Regular
	Directory
	Symlink
)

// Entry is a name in the staging tree.
type Entry struct {
	Name    string
	Kind    Kind
	ID      FileID      // of regular files and directories; zero: not yet given, the entry is left out
	Mode    os.FileMode // permissions, of directories
	ModTime int64       // Unix nanoseconds, of directories and symbolic links
	Target  string      // of symbolic links
}

// FileStat is a staged file at one moment.
type FileStat struct {
	Version
	Mode os.FileMode // permissions
	Away bool        // its bytes are not in the staging tree: they come from providers when it is read
}

// StagedFile is a file open for reading from its start. One goroutine uses it.
type StagedFile interface {
	io.ReadCloser
	// Stat tells what the file is now.
	Stat() (FileStat, error)
}

// Staging is the tree that files are staged in. Paths are relative to its root, which is "". It is called by one
// goroutine, except Open.
type Staging interface {
	// Open opens a file for a read that notices writers: ErrBusy if it is being written, ErrGone if it is not there
	// any more. Called concurrently.
	Open(ctx context.Context, id FileID) (StagedFile, error)
	// Stat tells what a path is; ErrGone if nothing is there.
	Stat(ctx context.Context, path string) (Entry, error)
	// List tells each name in a directory, in any order, and returns yield's first error; ErrGone if it is not there.
	List(ctx context.Context, path string, yield func(Entry) error) error
}

// Mark is a name under which blocks are kept: until it is released they stay readable, whatever becomes of the file
// they came from. Marks of one dataset differ from each other, not from those of another.
type Mark string

// Store keeps blocks. Its methods are called concurrently; all may be repeated after a crash. After an error that wraps
// ErrFull they are repeated when something was placed or released, or after a second.
type Store interface {
	// Put takes blocks, which are the store's from then on, and keeps them under the mark.
	Put(ctx context.Context, mark Mark, blks []blocks.Block) error
	// Body begins a file of at least dag.BodyBytes, whose leaves will follow and are kept under the mark. The file's
	// bytes may be indexed where they are.
	Body(ctx context.Context, mark Mark, id FileID, fileBytes uint64) (dag.Body, error)
	// Get returns a block's bytes, which are only read. A block that is in a placed group may have to be fetched.
	Get(ctx context.Context, c cid.Cid) ([]byte, error)
	// Keep keeps blocks under the mark too that are kept under another.
	Keep(ctx context.Context, mark Mark, cids []cid.Cid) error
	// Release drops a mark; one that is not there is no error.
	Release(ctx context.Context, mark Mark) error
}

// GroupID names a group. IDs grow and are never used twice.
type GroupID uint64

// Column is a chunk of a group.
type Column struct {
	ID         cid.Cid // of the chunk: the CID of Descriptor
	Descriptor []byte
	Shards     erasure.Chunk
}

// Group is what is uploaded together: each column to another provider.
type Group struct {
	ID      GroupID
	Columns []Column
	Stripes []int // blocks of each stripe, in order
}

// ManifestID names a manifest that was written. IDs grow.
type ManifestID uint64

// Manifest is a manifest's head.
type Manifest struct {
	ID   ManifestID
	CID  cid.Cid
	Root cid.Cid
}

// Sink gets what is to be uploaded and what no longer is. Work calls it, one call at a time. What it is told is on
// the disk, and told again after a restart until Placed or, for what is released, until the call has returned nil: the
// Sink remembers durably before it returns, and takes repetitions. It owns what it gets.
type Sink interface {
	// Group is to be uploaded. Its shards are kept in the Store until it is placed.
	Group(ctx context.Context, g Group) error
	// Restaged says that what the staging tree has of a group is placed anew, as Restage was asked to. All says that
	// nothing of the group is needed then.
	Restaged(ctx context.Context, id GroupID, all bool) error
	// Released says that nothing refers to a group any more.
	Released(ctx context.Context, id GroupID) error
	// Part is a block of a manifest that none before had; Manifest follows.
	Part(ctx context.Context, id ManifestID, p erasure.Part) error
	// Manifest is to be uploaded with those of its parts that are not. It supersedes all before it. It counts as
	// placed when all groups told of before are.
	Manifest(ctx context.Context, m Manifest) error
	// PartsReleased says that no manifest which counts has these parts any more.
	PartsReleased(ctx context.Context, parts []cid.Cid) error
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrCorrupt)...)
}
