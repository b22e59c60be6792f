package node

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// smallFile is the length up to which a file is read at once.
const smallFile = 1 << 20

// maxDepth bounds the directories in a path: content can't link to itself, but it can be deep to no purpose.
const maxDepth = 1024

// Export opens a tree.
func (n *Node) Export(ctx context.Context, r api.Read) (api.Export, error) {
	node, err := n.resolve(ctx, r)
	if err != nil {
		return nil, answer(err)
	}
	x := &export{n: n, read: r, top: node}
	x.entry = entryOf(path.Base(r.Ref.String()), node)
	if node.Kind == unixfs.KindDir {
		x.entry.Bytes = n.treeBytes(ctx, node)
	}
	return x, nil
}

// treeBytes is what a directory says about the size of what is below it.
func (n *Node) treeBytes(ctx context.Context, dir *unixfs.Node) (bytes uint64) {
	blk, err := n.blocks.Local(ctx, unixfs.Want{CID: dir.CID, Dataset: dir.Dataset})
	if err != nil {
		return 0
	}
	size, err := linkBytes(blk)
	if err != nil {
		return 0
	}
	return size
}

type export struct {
	n     *Node
	read  api.Read
	top   *unixfs.Node
	entry api.Entry
	buf   []byte
}

func (x *export) Entry() api.Entry { return x.entry }

// WriteTar writes the tree and, when all of it has been here, announces the root: others can have it from this node.
func (x *export) WriteTar(ctx context.Context, w io.Writer) error {
	t := tar.NewWriter(w)
	if err := x.write(ctx, t, ".", x.top, 0); err != nil {
		return answer(err)
	}
	if err := t.Close(); err != nil {
		return err
	}
	x.n.announceRoot(ctx, x.top.CID)
	return nil
}

// write writes node and what is below it.
func (x *export) write(ctx context.Context, t *tar.Writer, name string, node *unixfs.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: %w: more than %d directories deep", node.CID, unixfs.ErrCorrupt, maxDepth)
	}
	h := header(name, node)
	switch node.Kind {
	case unixfs.KindDir:
		h.Typeflag = tar.TypeDir
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		return x.children(ctx, t, name, node, depth)
	case unixfs.KindSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, node.Target
		return t.WriteHeader(h)
	}
	h.Typeflag, h.Size = tar.TypeReg, int64(node.Bytes)
	return x.file(ctx, t, h, node)
}

func (x *export) children(ctx context.Context, t *tar.Writer, name string, dir *unixfs.Node, depth int) error {
	quiet := x.n.timeout(x.read)
	for e, err := range x.n.entries(ctx, dir, quiet, true) {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		limited, cancel := context.WithTimeout(ctx, quiet)
		child, err := x.n.reader.EntryNode(limited, e, dir.Dataset)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", path.Join(name, e.Name), err)
		}
		if err := x.write(ctx, t, name+"/"+e.Name, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (x *export) file(ctx context.Context, t *tar.Writer, h *tar.Header, node *unixfs.Node) error {
	if h.Size < 0 {
		return fmt.Errorf("%s: %w: a file of %d bytes", h.Name, unixfs.ErrCorrupt, node.Bytes)
	}
	f, err := x.n.reader.Open(node)
	if err != nil {
		return err
	}
	open := &openFile{n: x.n, node: node, file: f, quiet: x.n.timeout(x.read), name: h.Name}
	if node.Bytes <= smallFile {
		return x.small(ctx, t, h, open)
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	in, err := open.Reader(ctx, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err = io.CopyBuffer(struct{ io.Writer }{t}, struct{ io.Reader }{in}, x.buffer()); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// small writes a file in one piece.
func (x *export) small(ctx context.Context, t *tar.Writer, h *tar.Header, f *openFile) error {
	buf := x.buffer()[:f.node.Bytes]
	limited, cancel := context.WithTimeout(ctx, f.quiet)
	defer cancel()
	if len(buf) > 0 {
		if _, err := f.file.ReadAt(limited, buf, 0); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := t.Write(buf)
	return err
}

func (x *export) buffer() []byte {
	if x.buf == nil {
		x.buf = make([]byte, smallFile)
	}
	return x.buf
}

// header is the tar header of what node describes. What was not preserved is marked, so that it is not made up.
func header(name string, node *unixfs.Node) *tar.Header {
	h := &tar.Header{Name: name, Format: tar.FormatPAX, Mode: 0o644}
	var preserved strings.Builder
	if node.Kind == unixfs.KindDir {
		h.Mode = 0o755
	}
	if node.HasMode {
		h.Mode = int64(tarMode(node.Mode))
		preserved.WriteByte('m')
	}
	if !node.ModTime.IsZero() {
		h.ModTime = node.ModTime
		preserved.WriteByte('t')
	}
	if preserved.Len() > 0 {
		h.PAXRecords = map[string]string{api.PaxPreserved: preserved.String()}
	}
	return h
}

// tarMode is mode as tar and UnixFS have it.
func tarMode(mode os.FileMode) uint32 {
	m := uint32(mode.Perm())
	if mode&os.ModeSetuid != 0 {
		m |= 0o4000
	}
	if mode&os.ModeSetgid != 0 {
		m |= 0o2000
	}
	if mode&os.ModeSticky != 0 {
		m |= 0o1000
	}
	return m
}

func isRaw(c cid.Cid) bool { return c.Type() == cid.Raw }

// isIdentity says whether a CID holds its block in itself.
func isIdentity(c cid.Cid) bool { return c.Prefix().MhType == multihash.IDENTITY }
