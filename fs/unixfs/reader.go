package unixfs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/unixfs/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Config tunes a Reader. The zero value is good.
type Config struct {
	NodeCacheBytes int64        // bound of the decoded inner nodes kept, in bytes; default 16 MiB
	Parallel       int          // blocks fetched at once by one read, twice as many by one listing; default 32
	Logger         *slog.Logger // told of directory entries left out; default none
}

// Stats are a Reader's figures since it was made.
type Stats struct {
	NodeCacheBytes uint64 // held by decoded inner nodes now
	NodeHits       uint64 // inner nodes found decoded
	NodeMisses     uint64 // inner nodes that were fetched, or were leaves
	SkippedNames   uint64 // directory entries left out of listings
}

// Reader reads UnixFS DAGs from a Blocks. It is safe for concurrent use.
type Reader struct {
	blocks   Blocks
	nodes    *nodeCache
	parallel int
	paces    paces
	log      *slog.Logger
	skipped  atomic.Uint64
}

// NewReader returns a Reader over b.
func NewReader(b Blocks, cfg Config) *Reader {
	if cfg.NodeCacheBytes <= 0 {
		cfg.NodeCacheBytes = 16 << 20
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 32
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reader{blocks: b, nodes: newNodeCache(cfg.NodeCacheBytes), parallel: cfg.Parallel, log: cfg.Logger}
}

// Stats returns the figures of now.
func (r *Reader) Stats() Stats {
	used, hits, misses := r.nodes.stats()
	return Stats{NodeCacheBytes: uint64(used), NodeHits: hits, NodeMisses: misses, SkippedNames: r.skipped.Load()}
}

// Node fetches and decodes the root c. Errors are those of Blocks.Get, ErrCorrupt and ErrUnsupported.
func (r *Reader) Node(ctx context.Context, c, dataset cid.Cid) (*Node, error) {
	return r.rootNode(ctx, Want{CID: c, Dataset: dataset}, r.get)
}

// LocalNode is Node without the network: the error wraps ErrNotLocal if the root block is not here.
func (r *Reader) LocalNode(ctx context.Context, c, dataset cid.Cid) (*Node, error) {
	return r.rootNode(ctx, Want{CID: c, Dataset: dataset}, r.local)
}

// EntryNode is Node for a directory entry. A raw file whose entry states a size needs no block: the statement is
// checked when the file is read, which then fails with ErrCorrupt if it was false.
func (r *Reader) EntryNode(ctx context.Context, e Entry, dataset cid.Cid) (*Node, error) {
	if n := statedFile(e, dataset); n != nil {
		return n, nil
	}
	return r.Node(ctx, e.CID, dataset)
}

// LocalEntryNode is EntryNode without the network: the error wraps ErrNotLocal if a block is needed and not here.
func (r *Reader) LocalEntryNode(ctx context.Context, e Entry, dataset cid.Cid) (*Node, error) {
	if n := statedFile(e, dataset); n != nil {
		return n, nil
	}
	return r.LocalNode(ctx, e.CID, dataset)
}

// statedFile returns the file an entry describes by itself, or nil.
func statedFile(e Entry, dataset cid.Cid) *Node {
	if e.TSize == 0 || e.TSize > maxNodeBytes || e.CID.Type() != cid.Raw {
		return nil
	}
	return &Node{CID: e.CID, Dataset: dataset, Kind: KindFile, Bytes: e.TSize}
}

// Resolve walks path, names separated by slashes, from the directory root. An empty path is root itself. Symbolic
// links are not followed. Errors wrap ErrNotFound for a missing name and ErrNotDir for a path through a file.
func (r *Reader) Resolve(ctx context.Context, root cid.Cid, path string) (*Node, error) {
	n, err := r.Node(ctx, root, root)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", root, err)
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if n, err = r.step(ctx, n, name, root); err != nil {
			return nil, fmt.Errorf("resolve %q at %q: %w", path, name, err)
		}
	}
	return n, nil
}

func (r *Reader) step(ctx context.Context, n *Node, name string, root cid.Cid) (*Node, error) {
	d, err := r.Dir(n)
	if err != nil {
		return nil, err
	}
	e, err := d.Lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	return r.EntryNode(ctx, e, root)
}

// Open returns the file that n describes. It fetches nothing; errors wrap ErrIsDir or ErrUnsupported.
func (r *Reader) Open(n *Node) (*File, error) {
	switch n.Kind {
	case KindFile:
		return &File{r: r, root: Want{CID: n.CID, Dataset: n.Dataset}, size: n.Bytes, raw: n.CID.Type() == cid.Raw}, nil
	case KindDir:
		return nil, fmt.Errorf("open %s: %w", n.CID, ErrIsDir)
	}
	return nil, fmt.Errorf("open %s: %w: a %s has no bytes", n.CID, ErrUnsupported, n.Kind)
}

// Dir returns the directory that n describes. It fetches nothing; the error wraps ErrNotDir.
func (r *Reader) Dir(n *Node) (*Dir, error) {
	if n.Kind != KindDir {
		return nil, fmt.Errorf("list %s: %w", n.CID, ErrNotDir)
	}
	return &Dir{r: r, root: Want{CID: n.CID, Dataset: n.Dataset}}, nil
}

// getter is Reader.get or Reader.local.
type getter func(context.Context, Want) (blocks.Block, error)

// get fetches a block; identity CIDs are answered from themselves.
func (r *Reader) get(ctx context.Context, w Want) (blocks.Block, error) {
	if b := identityBlock(w.CID); b != nil {
		return b, nil
	}
	return r.blocks.Get(ctx, w)
}

func (r *Reader) local(ctx context.Context, w Want) (blocks.Block, error) {
	if b := identityBlock(w.CID); b != nil {
		return b, nil
	}
	return r.blocks.Local(ctx, w)
}

// identityBlock returns the block a CID carries in itself, or nil.
func identityBlock(c cid.Cid) blocks.Block {
	key := c.KeyString()
	if len(key) < 4 || key[0] != 1 || (key[1] < 0x80 && key[2] != mh.IDENTITY) {
		return nil // version 0, or a hash function of one byte other than identity
	}
	d, err := mh.Decode(c.Hash())
	if err != nil || d.Code != mh.IDENTITY {
		return nil
	}
	b, err := blocks.NewBlockWithCid(d.Digest, c)
	if err != nil {
		return nil
	}
	return b
}

// rootNode describes the block of w to a user.
func (r *Reader) rootNode(ctx context.Context, w Want, fetch getter) (*Node, error) {
	switch w.CID.Type() {
	case cid.Raw:
		b, err := fetch(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", w.CID, err)
		}
		return &Node{CID: w.CID, Dataset: w.Dataset, Kind: KindFile, Bytes: uint64(len(b.RawData()))}, nil
	case cid.DagProtobuf:
	default:
		return nil, fmt.Errorf("%s: %w: codec 0x%x is not UnixFS", w.CID, ErrUnsupported, w.CID.Type())
	}
	d, err := r.load(ctx, w, fetch)
	if err != nil {
		return nil, err
	}
	n := &Node{CID: w.CID, Dataset: w.Dataset, HasMode: d.hasMode, ModTime: d.modTime}
	if d.hasMode {
		n.Mode = files.UnixPermsToModePerms(d.mode & 0xfff)
	}
	switch d.kind {
	case pb.Data_Directory, pb.Data_HAMTShard:
		n.Kind = KindDir
	case pb.Data_Symlink:
		n.Kind, n.Target, n.Bytes = KindSymlink, string(d.content), uint64(len(d.content))
	default:
		n.Kind, n.Bytes = KindFile, d.size
	}
	return n, nil
}

// load returns the decoded dag-pb node of w: from the cache, or fetched. Nodes with links, and directories,
// are kept; leaves refer to their block and are not.
func (r *Reader) load(ctx context.Context, w Want, fetch getter) (*dagNode, error) {
	if n := get(r.nodes, w.CID.KeyString()); n != nil {
		return n, nil
	}
	b, err := fetch(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", w.CID, err)
	}
	n, err := decodeNode(b.RawData())
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", w.CID, err)
	}
	if len(n.links) == 0 {
		return n, nil
	}
	if len(n.raw) > maxNodeBytes {
		return nil, fmt.Errorf("decode %s: %w", w.CID, corruptf("inner node of %d bytes", len(n.raw)))
	}
	n = n.owned()
	r.nodes.put(w.CID.KeyString(), n)
	return n, nil
}
