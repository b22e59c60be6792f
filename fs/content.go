package fs

import (
	"context"
	"fmt"

	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
)

// directory is what a directory node lists and looks up in: a UnixFS directory, or the root of a mount that is none.
type directory interface {
	lookup(ctx context.Context, name string) (unixfs.Entry, error)
	list(ctx context.Context, after unixfs.Cursor, yield func(unixfs.EntryAt) bool) error
}

// unixfsDir is a directory of the DAG.
type unixfsDir struct{ *unixfs.Dir }

func (d unixfsDir) lookup(ctx context.Context, name string) (unixfs.Entry, error) {
	return d.Lookup(ctx, name)
}

func (d unixfsDir) list(ctx context.Context, after unixfs.Cursor, yield func(unixfs.EntryAt) bool) error {
	for e, err := range d.Entries(ctx, after) {
		if err != nil {
			return err
		}
		if !yield(e) {
			return nil
		}
	}
	return nil
}

// single is the root of a mount whose CID is a file or a symbolic link: it holds that one, named by its CID.
type single struct{ entry unixfs.Entry }

func (d single) lookup(_ context.Context, name string) (unixfs.Entry, error) {
	if name != d.entry.Name {
		return unixfs.Entry{}, ErrNotFound
	}
	return d.entry, nil
}

func (d single) list(_ context.Context, after unixfs.Cursor, yield func(unixfs.EntryAt) bool) error {
	if after == 0 {
		yield(unixfs.EntryAt{Entry: d.entry, Next: 1})
	}
	return nil
}

// namespace is the root of a mount without a CID: every CID is a name in it. Nobody can list them all, so the listing
// is empty.
type namespace struct {
	standsFor func(context.Context, cid.Cid) (cid.Cid, error) // may be nil
}

func (ns namespace) lookup(ctx context.Context, name string) (unixfs.Entry, error) {
	c, err := cid.Decode(name)
	if err != nil {
		return unixfs.Entry{}, fmt.Errorf("look up %q: %w: not a CID", name, ErrNotFound)
	}
	if ns.standsFor != nil {
		if c, err = ns.standsFor(ctx, c); err != nil {
			return unixfs.Entry{}, fmt.Errorf("look up %q: %w", name, err)
		}
	}
	return unixfs.Entry{Name: name, CID: c}, nil
}

func (namespace) list(context.Context, unixfs.Cursor, func(unixfs.EntryAt) bool) error { return nil }
