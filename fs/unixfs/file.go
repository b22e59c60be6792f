package unixfs

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/ipfs/go-cid"
)

// File reads a file's bytes. It holds no block and no part of the file's index but the place of the leaf read last.
type File struct {
	r    *Reader
	root Want
	size uint64
	raw  bool // the root is the one leaf

	last atomic.Pointer[span] // a leaf, where sequential and repeated reads go on
}

// span is a stretch of a file and the block below which its bytes are. Offsets are from the file's start.
type span struct {
	want     Want
	off, end uint64
	raw      bool   // the block is a raw leaf; otherwise it is dag-pb, leaf or inner
	inner    bool   // the block is an inner node: found out, or sure by its size and place
	lost     bool   // an inner node that is not here
	data     []byte // instead of want: bytes that lie in an inner node
	depth    int    // inner levels above
}

// Bytes returns the file's length.
func (f *File) Bytes() uint64 { return f.size }

// ReadAt fills p with the file's bytes from off on. At the end of the file it returns fewer bytes and io.EOF. With any
// other error it returns 0: content that is missing or lies is never replaced. Blocks are fetched in parallel.
func (f *File) ReadAt(ctx context.Context, p []byte, off uint64) (int, error) {
	if off >= f.size {
		return 0, io.EOF
	}
	var atEnd error
	if rest := f.size - off; uint64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.read(ctx, p, off); err != nil {
		return 0, fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, f.root.CID, err)
	}
	return len(p), atEnd
}

// Lend returns the n bytes at off as they lie in their block, for who only passes them on: the slice must not be
// changed. It returns nil where they do not lie in one block, or go over the file's end; ReadAt copies those.
func (f *File) Lend(ctx context.Context, off, n uint64) ([]byte, error) {
	if n == 0 || off >= f.size || n > f.size-off {
		return nil, nil
	}
	p, err := f.lend(ctx, off, off+n)
	if err != nil {
		return nil, fmt.Errorf("read %d bytes at %d of %s: %w", n, off, f.root.CID, err)
	}
	return p, nil
}

func (f *File) lend(ctx context.Context, off, end uint64) ([]byte, error) {
	s := f.last.Load()
	if s == nil || off < s.off || end > s.end {
		found, err := f.locate(ctx, off)
		if err != nil {
			return nil, err
		}
		s = &found
	}
	if end > s.end {
		return nil, nil
	}
	content := s.data
	if content == nil {
		leaf, err := f.leafBytes(ctx, s)
		if leaf == nil || err != nil { // nil: an inner node
			return nil, err
		}
		content = leaf
		if f.last.Load() != s {
			f.last.Store(s)
		}
	}
	return content[off-s.off : end-s.off : end-s.off], nil
}

// read fills p, which ends inside the file.
func (f *File) read(ctx context.Context, p []byte, off uint64) error {
	end := off + uint64(len(p))
	if s := f.last.Load(); s != nil && s.off <= off && end <= s.end {
		return f.readSpan(ctx, s, p, off)
	}
	s, err := f.locate(ctx, off)
	if err != nil {
		return err
	}
	if end > s.end {
		return f.readAcross(ctx, p, off)
	}
	return f.readSpan(ctx, &s, p, off)
}

// rootSpan covers the whole file.
func (f *File) rootSpan() span {
	s := span{want: f.root, end: f.size, raw: f.raw, inner: !f.raw}
	if !f.raw {
		s.want.Place = Place{File: f.root.CID, FileBytes: f.size, Bytes: f.size}
	}
	return s
}

// childSpan covers child i of n, whose first byte is at base.
func (f *File) childSpan(n *dagNode, i int, base uint64, depth int) (span, error) {
	s := span{off: base + n.childStart(i), end: base + n.ends[i], depth: depth}
	link := n.link(i)
	c, err := castCID(link.cid)
	if err != nil {
		return s, corrupt(err)
	}
	switch c.Type() {
	case cid.Raw:
		s.raw = true
	case cid.DagProtobuf:
	default:
		return s, corruptf("codec 0x%x inside a file", c.Type())
	}
	s.want = Want{CID: c, Dataset: f.root.Dataset}
	if s.end > s.off {
		s.want.Place = Place{File: f.root.CID, Offset: s.off, FileBytes: f.size, Bytes: s.end - s.off}
	}
	return s, nil
}

// cached returns child i of n if it is an inner node that is decoded already. It does not allocate.
func (f *File) cached(n *dagNode, i int) (*dagNode, error) {
	link := n.link(i)
	if codecOf(link.cid) != cid.DagProtobuf {
		return nil, nil
	}
	child := get(f.r.nodes, link.cid)
	if child == nil {
		return nil, nil
	}
	return child, checkSize(child, n.ends[i]-n.childStart(i))
}

// checkSize compares what a node holds with what was declared for it.
func checkSize(n *dagNode, declared uint64) error {
	if !n.isFile() {
		return corruptf("%s node inside a file", n.kind)
	}
	if n.size != declared {
		return corruptf("node of %d bytes where %d are declared", n.size, declared)
	}
	return nil
}

// locate descends to the leaf that holds the byte at off, fetching the inner nodes on its way.
func (f *File) locate(ctx context.Context, off uint64) (span, error) {
	s := f.rootSpan()
	for !s.raw {
		n, err := f.loadInner(ctx, s)
		if err != nil {
			return span{}, err
		}
		base := s.off
		for depth := s.depth; ; depth++ {
			if depth > maxFileDepth {
				return span{}, corruptf("more than %d levels", maxFileDepth)
			}
			if off-base < uint64(len(n.content)) || len(n.links) == 0 {
				inline := span{want: s.want, off: base, end: base + uint64(len(n.content)), data: n.content}
				return inline, nil
			}
			i := n.child(off - base)
			child, err := f.cached(n, i)
			if err != nil {
				return span{}, err
			}
			if child == nil {
				if s, err = f.childSpan(n, i, base, depth+1); err != nil {
					return span{}, err
				}
				break
			}
			n, base = child, base+n.childStart(i)
		}
		if !s.raw && s.end-s.off <= maxNodeBytes {
			return s, nil // likely a leaf: readSpan finds out
		}
	}
	return s, nil
}

// loadInner returns the decoded node of a dag-pb span, checked against what was declared for it.
func (f *File) loadInner(ctx context.Context, s span) (*dagNode, error) {
	if s.depth > maxFileDepth {
		return nil, corruptf("more than %d levels", maxFileDepth)
	}
	n, err := f.r.load(ctx, s.want, f.r.get)
	if err != nil {
		return nil, err
	}
	if err := checkSize(n, s.end-s.off); err != nil {
		return nil, fmt.Errorf("%s: %w", s.want.CID, err)
	}
	return n, nil
}

// readSpan fills p from one span that covers it.
func (f *File) readSpan(ctx context.Context, s *span, p []byte, off uint64) error {
	content := s.data
	if content == nil {
		leaf, err := f.leafBytes(ctx, s)
		if err != nil {
			return err
		}
		if leaf == nil { // an inner node
			return f.readAcross(ctx, p, off)
		}
		content = leaf
		if f.last.Load() != s {
			f.last.Store(s)
		}
	}
	copy(p, content[off-s.off:])
	return nil
}

// leafBytes fetches the block of s and returns the bytes it holds, as many as declared. It returns nil and has kept
// the decoded node if the block is an inner node.
func (f *File) leafBytes(ctx context.Context, s *span) ([]byte, error) {
	if !s.raw {
		n, err := f.loadInner(ctx, *s)
		if err != nil || len(n.links) > 0 {
			return nil, err
		}
		return n.content, nil
	}
	b, err := f.r.get(ctx, s.want)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", s.want.CID, err)
	}
	data := b.RawData()
	if uint64(len(data)) != s.end-s.off {
		return nil, fmt.Errorf("%s: %w", s.want.CID, corruptf("leaf of %d bytes where %d are declared", len(data), s.end-s.off))
	}
	return data, nil
}
