package dag

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	maxTarDepth   = 512      // names in a path
	maxTarEntries = 32 << 20 // default of TarOptions.MaxEntries
)

// TarOptions tunes Tar. The zero value is good.
type TarOptions struct {
	// Skip is told of each entry that a UnixFS tree cannot hold: a special file, a name that is not UTF-8, a path with
	// "..", a hard link to nothing. The error it returns, if any, ends the import. Without Skip such an entry ends it.
	Skip func(path string, reason error) error
	// Content, if set, returns what the entry of a regular file stands for, and its length in bytes. Otherwise that is
	// what the stream holds.
	Content func(ctx context.Context, h *tar.Header, r io.Reader) (io.Reader, int64, error)
	// MaxEntries bounds the number of entries; default 32 million.
	MaxEntries int
}

// Root is a tree that Tar built.
type Root struct {
	Name string // the first name of its entries' paths
	Link Link
}

// Tar imports the tree in an archive/tar stream, of any of the formats that archive/tar reads, and returns a root for
// each name at the top, in the order in which they came. Files of up to a chunk are imported in parallel. Entries may
// come in any order, a later one replaces an earlier of the same path, a directory without an entry of its own has no
// metadata, a hard link is another name for the same content. With an error wrapping ErrArchive the stream is at fault.
func (b *Builder) Tar(ctx context.Context, r io.Reader, opts TarOptions) ([]Root, error) {
	if opts.MaxEntries <= 0 {
		opts.MaxEntries = maxTarEntries
	}
	if opts.Content == nil {
		opts.Content = func(_ context.Context, h *tar.Header, r io.Reader) (io.Reader, int64, error) { return r, h.Size, nil }
	}
	if opts.Skip == nil {
		opts.Skip = func(path string, reason error) error { return fmt.Errorf("%q: %w", path, reason) }
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dirs := *b
	t := &tarImport{dirs: &dirs, opts: opts, files: newSmallFiles(b), sink: &batch{Sink: b.cfg.Sink}}
	dirs.cfg.Sink = t.sink
	t.top = t.newDir()
	err := t.readAll(ctx, tar.NewReader(r))
	if err != nil {
		cancel(err)
	}
	if ferr := t.files.finish(ctx); err == nil {
		err = ferr
	}
	if err != nil {
		return nil, fmt.Errorf("import archive: %w", err)
	}
	roots, err := t.close(ctx)
	if err != nil {
		return nil, fmt.Errorf("import archive: %w", err)
	}
	return roots, nil
}

// tarImport is one call of Tar. Its goroutine reads the stream and owns the tree.
type tarImport struct {
	opts  TarOptions
	files *smallFiles
	dirs  *Builder // of directories, into sink
	sink  *batch
	top   *tarDir
	names []string // at the top, in order; some twice
}

// tarDir is a directory being collected. Entries that are no directories are in dir at once.
type tarDir struct {
	dir  *Dir
	kids map[string]*tarDir
}

func (t *tarImport) newDir() *tarDir { return &tarDir{dir: t.dirs.Dir(Meta{})} }

func (t *tarImport) readAll(ctx context.Context, tr *tar.Reader) error {
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return archiveErr(err)
		case n == t.opts.MaxEntries:
			return fmt.Errorf("%w: more than %d entries", ErrArchive, n)
		}
		reason, err := t.entry(ctx, h, tr)
		if err == nil && reason != nil {
			err = t.opts.Skip(h.Name, reason)
		}
		if err != nil {
			return archiveErr(err)
		}
	}
}

// archiveErr marks the errors that a stream is at fault for.
func archiveErr(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	return err
}

// entry imports one entry. reason says why it cannot be held; err ends the import.
func (t *tarImport) entry(ctx context.Context, h *tar.Header, r io.Reader) (reason, err error) {
	names, reason := splitPath(h.Name)
	if reason != nil {
		return reason, nil
	}
	if len(names) == 0 {
		return nil, nil // "./": the tree's parent, which is no part of it
	}
	meta := Meta{Mode: h.FileInfo().Mode(), HasMode: true, ModTime: h.ModTime}
	switch h.Typeflag {
	case tar.TypeDir:
		return t.makeDir(names, meta), nil
	case tar.TypeReg, tar.TypeGNUSparse:
		return t.place(names, func(d *tarDir, name string) error {
			content, size, err := t.opts.Content(ctx, h, r)
			if err != nil {
				return err
			}
			return t.files.add(ctx, d.dir, name, content, size, meta)
		})
	case tar.TypeSymlink:
		return t.place(names, func(d *tarDir, name string) error {
			return t.files.symlink(ctx, d.dir, name, h.Linkname, meta)
		})
	case tar.TypeLink:
		return t.hardLink(ctx, names, h.Linkname)
	case tar.TypeXGlobalHeader:
		return nil, nil
	}
	return fmt.Errorf("%w: neither file, directory nor link (type %q)", ErrName, h.Typeflag), nil
}

// splitPath takes a foreign path apart.
func splitPath(path string) ([]string, error) {
	if strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%w: absolute path", ErrName)
	}
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if err := CheckName(name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if len(names) > maxTarDepth {
		return nil, fmt.Errorf("%w: path of %d names", ErrName, len(names))
	}
	return names, nil
}

// place finds the directory for an entry that is none itself, and calls put.
func (t *tarImport) place(names []string, put func(d *tarDir, name string) error) (reason, err error) {
	d, name, reason := t.parent(names)
	if reason != nil {
		return reason, nil
	}
	if d.kids[name] != nil {
		return fmt.Errorf("%w: a directory is there already", ErrName), nil
	}
	if err := put(d, name); errors.Is(err, ErrName) {
		return err, nil
	} else if err != nil {
		return nil, err
	}
	if d == t.top {
		t.names = append(t.names, name)
	}
	return nil, nil
}

// parent returns the directory that names lie in, making it where it is missing, and the last name.
func (t *tarImport) parent(names []string) (*tarDir, string, error) {
	d := t.top
	for _, name := range names[:len(names)-1] {
		var err error
		if d, err = t.kid(d, name); err != nil {
			return nil, "", err
		}
	}
	return d, names[len(names)-1], nil
}

// kid returns the directory called name in d, making it if there is nothing of that name.
func (t *tarImport) kid(d *tarDir, name string) (*tarDir, error) {
	if k := d.kids[name]; k != nil {
		return k, nil
	}
	if _, ok := d.dir.get(name); ok || t.files.has(d.dir, name) {
		return nil, fmt.Errorf("%w: %q on its path is not a directory", ErrName, name)
	}
	if d == t.top {
		t.names = append(t.names, name)
	}
	k := t.newDir()
	if d.kids == nil {
		d.kids = make(map[string]*tarDir)
	}
	d.kids[name] = k
	return k, nil
}

// makeDir handles the entry of a directory itself.
func (t *tarImport) makeDir(names []string, m Meta) error {
	d, name, reason := t.parent(names)
	if reason != nil {
		return reason
	}
	k, reason := t.kid(d, name)
	if reason == nil {
		k.dir.meta = t.dirs.meta(m)
	}
	return reason
}

// hardLink gives an entry the content of an earlier one.
func (t *tarImport) hardLink(ctx context.Context, names []string, target string) (reason, err error) {
	from, reason := splitPath(target)
	if reason != nil {
		return reason, nil
	}
	if err := t.files.finish(ctx); err != nil {
		return nil, err
	}
	d := t.top
	for i, name := range from {
		if i < len(from)-1 {
			if d = d.kids[name]; d == nil {
				break
			}
			continue
		}
		if l, ok := d.dir.get(name); ok {
			return t.place(names, func(to *tarDir, as string) error {
				to.dir.set(as, l)
				return nil
			})
		}
	}
	return fmt.Errorf("%w: hard link to %q, which is not in the archive before it", ErrName, target), nil
}

// close builds the directories from the bottom up.
func (t *tarImport) close(ctx context.Context) ([]Root, error) {
	if err := t.top.closeKids(ctx); err != nil {
		return nil, err
	}
	if err := t.sink.flush(ctx); err != nil {
		return nil, err
	}
	var roots []Root
	done := make(map[string]bool)
	for _, name := range t.names {
		if l, ok := t.top.dir.get(name); ok && !done[name] {
			done[name] = true
			roots = append(roots, Root{Name: name, Link: l})
		}
	}
	return roots, nil
}

// closeKids closes the directories below d and enters them.
func (d *tarDir) closeKids(ctx context.Context) error {
	for name, k := range d.kids {
		if err := k.closeKids(ctx); err != nil {
			return err
		}
		l, err := k.dir.Close(ctx)
		if err != nil {
			return err
		}
		d.dir.set(name, l)
	}
	d.kids = nil
	return nil
}
