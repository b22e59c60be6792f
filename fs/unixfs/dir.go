package unixfs

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
)

// maxNameBytes is the longest name a file system shows.
const maxNameBytes = 255

// Entry is a name in a directory.
type Entry struct {
	Name  string  // any bytes but NUL and '/', at most 255; UTF-8 if the writer kept to the format
	CID   cid.Cid // its root
	TSize uint64  // bytes of all blocks below, as the directory states them; not checked
}

// Cursor is a position in a directory's listing, below 1<<63. The zero Cursor is the start. Cursors stay good as long
// as the content, that is forever, and are worth the same to every Reader.
type Cursor uint64

// EntryAt is an entry and the cursor with which a listing goes on behind it.
type EntryAt struct {
	Entry
	Next Cursor
}

// Dir is a directory. It holds no block. It is safe for concurrent use.
type Dir struct {
	r       *Reader
	root    Want
	skipped atomic.Uint64
}

// Lookup finds the entry called name; the error wraps ErrNotFound if there is none. Of a HAMT it fetches the shards on
// the name's path only. Of several equal names in a plain directory the first counts.
func (d *Dir) Lookup(ctx context.Context, name string) (Entry, error) {
	e, err := d.lookup(ctx, name)
	if err != nil {
		return Entry{}, fmt.Errorf("look up %q in %s: %w", name, d.root.CID, err)
	}
	return e, nil
}

func (d *Dir) lookup(ctx context.Context, name string) (Entry, error) {
	if !validName([]byte(name)) {
		return Entry{}, ErrNotFound
	}
	n, err := d.load(ctx)
	if err != nil {
		return Entry{}, err
	}
	if n.kind == pb.Data_HAMTShard {
		return d.lookupShard(ctx, n, name)
	}
	i, ok := n.byName([]byte(name))
	if !ok {
		return Entry{}, ErrNotFound
	}
	return entryOf(n.link(i), 0)
}

// load returns the decoded root.
func (d *Dir) load(ctx context.Context) (*dagNode, error) {
	n, err := d.r.load(ctx, d.root, d.r.get)
	if err != nil {
		return nil, err
	}
	if n.kind != pb.Data_Directory && n.kind != pb.Data_HAMTShard {
		return nil, ErrNotDir
	}
	return n, nil
}

// Entries lists the directory from behind after on, in a fixed order: that of the links in a plain directory, of the
// names' hashes in a HAMT. Names that no file system can show, and the second of equal ones, are left out and counted.
// A HAMT's shards, of all levels, are fetched ahead in parallel while the listing runs: few at first, and at most two
// for each that the listing has come to. Memory is bounded whatever the directory's size. After an error the listing
// ends; it can go on from the last cursor. ctx must outlive the iteration.
func (d *Dir) Entries(ctx context.Context, after Cursor) iter.Seq2[EntryAt, error] {
	return func(yield func(EntryAt, error) bool) {
		n, err := d.load(ctx)
		if err == nil {
			if n.kind == pb.Data_HAMTShard {
				err = d.listShards(ctx, n, after, yield)
			} else {
				err = d.listPlain(ctx, n, after, yield)
			}
		}
		if err != nil && err != errStopped {
			yield(EntryAt{}, fmt.Errorf("list %s: %w", d.root.CID, err))
		}
	}
}

// Skipped counts the entries that this Dir's listings left out.
func (d *Dir) Skipped() uint64 { return d.skipped.Load() }

// listPlain lists a directory of one block; cursors count its links.
func (d *Dir) listPlain(ctx context.Context, n *dagNode, after Cursor, yield func(EntryAt, error) bool) error {
	for i := int(min(after, Cursor(len(n.links)))); i < len(n.links); i++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		l := n.link(i)
		if !validName(l.name) || n.isRepeated(i, l.name) {
			d.skip(l.name)
			continue
		}
		e, err := entryOf(l, 0)
		if err != nil {
			return err
		}
		if !yield(EntryAt{Entry: e, Next: Cursor(i + 1)}, nil) {
			return errStopped
		}
	}
	return nil
}

// isRepeated reports whether a link before i has the same name.
func (n *dagNode) isRepeated(i int, name []byte) bool {
	if n.order == nil {
		return i > 0 && bytes.Equal(n.link(i-1).name, name)
	}
	first, _ := n.byName(name)
	return first != i
}

// skip counts an entry that is not listed, and tells of the first.
func (d *Dir) skip(name []byte) {
	d.r.skipped.Add(1)
	if d.skipped.Add(1) == 1 {
		d.r.log.Warn("directory entry left out: not a usable name",
			slog.String("cid", d.root.CID.String()), slog.String("name", fmt.Sprintf("%.64q", name)))
	}
}

// entryOf makes an entry of a link whose name has a prefix of skip bytes.
func entryOf(l pbLink, skip int) (Entry, error) {
	c, err := castCID(l.cid)
	if err != nil {
		return Entry{}, corrupt(err)
	}
	return Entry{Name: string(l.name[skip:]), CID: c, TSize: l.tsize}, nil
}

// validName reports whether a file system can show name.
func validName(name []byte) bool {
	if len(name) == 0 || len(name) > maxNameBytes || string(name) == "." || string(name) == ".." {
		return false
	}
	return bytes.IndexByte(name, '/') < 0 && bytes.IndexByte(name, 0) < 0
}
