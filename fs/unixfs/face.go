package unixfs

// signatures first; bodies follow
import (
	"context"
	"iter"
	"log/slog"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// Config tunes a Reader. The zero value is good.
type Config struct {
	NodeCacheBytes int64        // bound of the decoded inner nodes kept, in bytes; default 16 MiB
	Parallel       int          // blocks fetched at once by one read or listing; default 32
	Logger         *slog.Logger // where skipped directory entries are told; default none
}

// Stats are a Reader's figures since it was made.
type Stats struct {
	NodeCacheBytes uint64
	NodeHits       uint64
	NodeMisses     uint64
	SkippedNames   uint64
}

// Reader reads UnixFS DAGs.
type Reader struct{}

// NewReader returns a Reader over b.
func NewReader(b Blocks, cfg Config) *Reader { panic("soon") }

// Node fetches and decodes a root.
func (r *Reader) Node(ctx context.Context, c, dataset cid.Cid) (*Node, error) { panic("soon") }

// LocalNode is Node without the network.
func (r *Reader) LocalNode(ctx context.Context, c, dataset cid.Cid) (*Node, error) { panic("soon") }

// EntryNode is Node for a directory entry: a raw file with a stated size needs no block at all.
// What the entry states is checked when the file is read (ErrCorrupt).
func (r *Reader) EntryNode(ctx context.Context, e Entry, dataset cid.Cid) (*Node, error) {
	panic("soon")
}

// LocalEntryNode is EntryNode without the network.
func (r *Reader) LocalEntryNode(ctx context.Context, e Entry, dataset cid.Cid) (*Node, error) {
	panic("soon")
}

// Resolve walks path (slash separated, symbolic links are not followed) from root.
func (r *Reader) Resolve(ctx context.Context, root cid.Cid, path string) (*Node, error) {
	panic("soon")
}

// Open returns the file n describes.
func (r *Reader) Open(n *Node) (*File, error) { panic("soon") }

// Dir returns the directory n describes.
func (r *Reader) Dir(n *Node) (*Dir, error) { panic("soon") }

// Stats returns the figures of now.
func (r *Reader) Stats() Stats { panic("soon") }

// File reads a file's bytes.
type File struct{}

// Bytes returns the file's length.
func (f *File) Bytes() uint64 { panic("soon") }

// ReadAt fills p from off. It returns io.EOF at the end of the file, and then fewer bytes than len(p).
func (f *File) ReadAt(ctx context.Context, p []byte, off uint64) (int, error) { panic("soon") }

// Leaf is a block that holds bytes of a file.
type Leaf struct {
	Want   Want
	Offset uint64 // of its first byte in the file
	Bytes  uint64 // of the file that it covers
	Inner  bool   // an inner node that is not here: its leaves are listed once it is
}

// Leaves lists what covers [off, off+n).
func (f *File) Leaves(ctx context.Context, off, n uint64, localOnly bool) ([]Leaf, error) {
	panic("soon")
}

// Entry is a name in a directory.
type Entry struct {
	Name  string
	CID   cid.Cid
	TSize uint64 // bytes of the whole DAG below, as the directory states them: not to be trusted
}

// Cursor is a position in a directory listing, below 1<<63; the zero Cursor is the start.
type Cursor uint64

// EntryAt is an entry and the cursor after which the listing goes on behind it.
type EntryAt struct {
	Entry
	Next Cursor
}

// Dir is a directory.
type Dir struct{}

// Lookup finds name.
func (d *Dir) Lookup(ctx context.Context, name string) (Entry, error) { panic("soon") }

// Entries lists the directory from after on.
func (d *Dir) Entries(ctx context.Context, after Cursor) iter.Seq2[EntryAt, error] { panic("soon") }

// Skipped counts the entries that listings of this Dir left out because no file system can show their names.
func (d *Dir) Skipped() uint64 { panic("soon") }

// Links lists the children of a block.
func Links(w Want, b blocks.Block) ([]Want, error) { panic("soon") }

// Verify checks data against c.
func Verify(c cid.Cid, data []byte) error { panic("soon") }
