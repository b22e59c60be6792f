package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// timeout is within what a block must come for r.
func (n *Node) timeout(r api.Read) time.Duration {
	if r.Timeout > 0 {
		return r.Timeout
	}
	return n.cfg.Settings.Timeout
}

// resolve finds what r names.
func (n *Node) resolve(ctx context.Context, r api.Read) (*unixfs.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout(r))
	defer cancel()
	root, err := n.mayRead(ctx, r.CID, r.Spending)
	if err != nil {
		return nil, err
	}
	return n.reader.Resolve(ctx, root, r.Path)
}

// Stat describes what r names.
func (n *Node) Stat(ctx context.Context, r api.Read) (api.Entry, error) {
	node, err := n.resolve(ctx, r)
	if err != nil {
		return api.Entry{}, answer(err)
	}
	return entryOf(path.Base(r.Ref.String()), node), nil
}

func entryOf(name string, node *unixfs.Node) api.Entry {
	e := api.Entry{Name: name, CID: node.CID.String(), Bytes: node.Bytes, Target: node.Target}
	switch node.Kind {
	case unixfs.KindFile:
		e.Kind = api.KindFile
	case unixfs.KindDir:
		e.Kind = api.KindDir
	case unixfs.KindSymlink:
		e.Kind = api.KindSymlink
	}
	if node.HasMode {
		e.Mode = fmt.Sprintf("%04o", tarMode(node.Mode))
	}
	if !node.ModTime.IsZero() {
		e.ModTime = &node.ModTime
	}
	return e
}

// List yields a directory's entries, or what else r names. Where detail can't be had in time for an entry the
// listing goes on with what is local.
func (n *Node) List(ctx context.Context, r api.Read, detail bool) iter.Seq2[api.Entry, error] {
	return func(yield func(api.Entry, error) bool) {
		node, err := n.resolve(ctx, r)
		if err != nil {
			yield(api.Entry{}, answer(err))
			return
		}
		if node.Kind != unixfs.KindDir {
			yield(entryOf(path.Base(r.Ref.String()), node), nil)
			return
		}
		describe := n.reader.EntryNode
		for e, err := range n.entries(ctx, node, n.timeout(r), detail) {
			if err != nil {
				yield(api.Entry{}, answer(err))
				return
			}
			out := api.Entry{Name: e.Name, CID: e.CID.String(), Bytes: e.TSize}
			if detail {
				limited, cancel := context.WithTimeout(ctx, n.timeout(r))
				child, err := describe(limited, e, node.Dataset)
				cancel()
				if err == nil {
					out = entryOf(e.Name, child)
				} else if errors.Is(err, fs.ErrUnavailable) {
					describe = n.reader.LocalEntryNode
				}
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

// Bounds of what is fetched ahead of a walk through a directory.
const (
	walkEntries = 256
	walkBytes   = 16 << 20
)

// entries yields a directory's entries; ahead asks for their first blocks before they are needed. A directory that
// stands still for longer than quiet fails.
func (n *Node) entries(ctx context.Context, dir *unixfs.Node, quiet time.Duration, ahead bool) iter.Seq2[unixfs.Entry, error] {
	return func(yield func(unixfs.Entry, error) bool) {
		d, err := n.reader.Dir(dir)
		if err != nil {
			yield(unixfs.Entry{}, err)
			return
		}
		var batch []unixfs.Entry
		flush := func() bool {
			if ahead {
				n.blocks.Prefetch(ctx, firstBlocks(batch, dir))
			}
			for _, e := range batch {
				if !yield(e, nil) {
					return false
				}
			}
			batch = batch[:0]
			return true
		}
		var cursor unixfs.Cursor
		for done := false; !done; {
			done, err = n.batch(ctx, d, &cursor, quiet, &batch)
			if err != nil {
				yield(unixfs.Entry{}, err)
				return
			}
			if !flush() {
				return
			}
		}
	}
}

// batch takes the next entries of a directory.
func (n *Node) batch(ctx context.Context, d *unixfs.Dir, cursor *unixfs.Cursor, quiet time.Duration, batch *[]unixfs.Entry) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	var bytes uint64
	for e, err := range d.Entries(ctx, *cursor) {
		if err != nil {
			return false, err
		}
		*batch = append(*batch, e.Entry)
		*cursor = e.Next
		bytes += e.TSize
		if len(*batch) >= walkEntries || bytes >= walkBytes {
			return false, nil
		}
	}
	return true, nil
}

// firstBlocks are the blocks that a walk will want of entries. A raw block is a file's only one: then its length is known.
func firstBlocks(batch []unixfs.Entry, dir *unixfs.Node) []unixfs.Want {
	wants := make([]unixfs.Want, len(batch))
	for i, e := range batch {
		wants[i] = unixfs.Want{CID: e.CID, Dataset: dir.Dataset}
		if isRaw(e.CID) && e.TSize > 0 {
			wants[i].Place = unixfs.Place{File: e.CID, FileBytes: e.TSize, Bytes: e.TSize}
		}
	}
	return wants
}

// Open opens a file.
func (n *Node) Open(ctx context.Context, r api.Read) (api.File, error) {
	node, err := n.resolve(ctx, r)
	if err != nil {
		return nil, answer(err)
	}
	if node.Kind == unixfs.KindSymlink {
		return nil, &api.Error{Code: api.CodeUnsupported, Message: fmt.Sprintf("it is a symbolic link to %q", node.Target),
			Advice: "name what it leads to; holdfast get copies the link"}
	}
	f, err := n.reader.Open(node)
	if err != nil {
		return nil, answer(err)
	}
	return &openFile{n: n, node: node, file: f, quiet: n.timeout(r), name: path.Base(r.Ref.String())}, nil
}

// openFile is a file that commands read.
type openFile struct {
	n     *Node
	node  *unixfs.Node
	file  *unixfs.File
	quiet time.Duration // within which a block must come
	name  string
}

func (f *openFile) Entry() api.Entry { return entryOf(f.name, f.node) }

// Reader reads from off on, block by block, as each read from the store is checked: a body's own descriptor would
// hand on what the disk has damaged since.
func (f *openFile) Reader(ctx context.Context, off uint64) (io.ReadCloser, error) {
	return newAheadReader(ctx, f, off), nil
}
