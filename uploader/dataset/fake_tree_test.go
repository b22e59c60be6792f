package dataset

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/uploader/dag"
)

// node is an inode of a fakeTree.
type node struct {
	id      FileID
	kind    Kind
	mode    os.FileMode
	mtime   int64
	ctime   int64
	data    []byte
	size    int64 // if data is made up: of a large file
	target  string
	entries map[string]*node
	busy    bool
	away    bool // its bytes are with providers alone
	untold  bool // written under a temporary name, and not renamed or linked since
}

// fakeTree is a staging tree in memory that tells a Dataset of its changes.
type fakeTree struct {
	t    testing.TB
	mu   sync.Mutex
	root *node
	ids  map[FileID]*node
	tick int64
	read func(*node) // called when a file was read to its end, unlocked
	tell func(Change)

	paths   map[FileID]string     // by which files are opened, as those were told
	known   func(FileID) []string // others that the dataset knows
	opening func(id FileID)       // nil, or called when a file's path was looked up and it is not open yet, unlocked
}

func newFakeTree(t testing.TB) *fakeTree {
	f := &fakeTree{t: t, ids: map[FileID]*node{}, paths: map[FileID]string{}, tick: 1e18, tell: func(Change) {}}
	f.root = f.make(Directory)
	return f
}

func (f *fakeTree) make(k Kind) *node {
	f.tick++
	n := &node{kind: k, mode: 0o644, mtime: f.tick, ctime: f.tick}
	copy(n.id[:], fmt.Sprintf("%016d", f.tick%1e15))
	if k == Directory {
		n.mode = os.ModeDir | 0o755
		n.entries = map[string]*node{}
	}
	f.ids[n.id] = n
	return n
}

func (f *fakeTree) find(p string) *node {
	n := f.root
	for _, name := range split(p) {
		if n == nil || n.kind != Directory {
			return nil
		}
		n = n.entries[name]
	}
	return n
}

// in returns the directory that p is in, with its time touched, and the last name.
func (f *fakeTree) in(p string) (*node, string) {
	dir, name := path.Split(p)
	n := f.find(strings.TrimSuffix(dir, "/"))
	if n == nil || n.kind != Directory {
		f.t.Fatalf("no directory for %q", p)
	}
	f.tick++
	n.mtime, n.ctime = f.tick, f.tick
	return n, name
}

func (n *node) entry(name string) Entry {
	return Entry{Name: name, Kind: n.kind, ID: n.id, Mode: n.mode, ModTime: n.mtime, Target: n.target}
}

func (n *node) stat() FileStat {
	size := n.size
	if n.size == 0 {
		size = int64(len(n.data))
	}
	return FileStat{Version{size, n.mtime, n.ctime}, n.mode, n.away}
}

func (f *fakeTree) Stat(_ context.Context, p string) (Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.find(p); n != nil {
		return n.entry(path.Base(p)), nil
	}
	return Entry{}, ErrGone
}

func (f *fakeTree) List(_ context.Context, p string, yield func(Entry) error) error {
	f.mu.Lock()
	n := f.find(p)
	if n == nil || n.kind != Directory {
		f.mu.Unlock()
		return ErrGone
	}
	var all []Entry
	for name, e := range n.entries {
		all = append(all, e.entry(name))
	}
	f.mu.Unlock()
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	for _, e := range all {
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}

type fakeFile struct {
	f *fakeTree
	n *node
	r io.Reader
}

// Open finds a file by its path, as an owner does that has no way from an ID to an inode.
func (f *fakeTree) Open(_ context.Context, id FileID) (StagedFile, error) {
	f.mu.Lock()
	paths := []string{f.paths[id]}
	f.mu.Unlock()
	if f.known != nil {
		paths = append(paths, f.known(id)...)
	}
	if f.opening != nil {
		f.opening(id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var n *node
	for _, p := range paths {
		if n = f.find(p); n != nil && n.id == id {
			break
		}
		n = nil
	}
	switch {
	case n == nil:
		return nil, ErrGone
	case n.busy:
		return nil, ErrBusy
	case n.size > 0:
		return &fakeFile{f, n, io.LimitReader(&madeUp{}, n.size)}, nil
	}
	return &fakeFile{f, n, bytes.NewReader(n.data)}, nil
}

func (f *fakeFile) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == io.EOF && f.f.read != nil {
		f.f.read(f.n)
	}
	return n, err
}

func (f *fakeFile) Close() error { return nil }

func (f *fakeFile) Stat() (FileStat, error) {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	return f.n.stat(), nil
}

// madeUp is an endless file of which no two chunks are alike.
type madeUp struct{ at uint64 }

func (m *madeUp) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 512 {
		m.at++
		copy(p[i:], fmt.Sprintf("%x", m.at))
	}
	return len(p), nil
}

// The operations, each of which tells what it did.

func (f *fakeTree) write(p string, data []byte) {
	f.mu.Lock()
	dir, name := f.find(path.Dir("/" + p)[1:]), path.Base(p)
	n := dir.entries[name]
	if n == nil || n.kind != Regular {
		dir, _ = f.in(p)
		n = f.make(Regular)
		n.untold = strings.HasSuffix(p, "~")
		dir.entries[name] = n
	}
	f.tick++
	n.data, n.mtime, n.ctime = data, f.tick, f.tick
	v := n.stat().Version
	f.mu.Unlock()
	f.closed(p, n, v)
}

// note remembers where a file lies.
func (f *fakeTree) note(p string, n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths[n.id] = p
}

// move has the files at or below a path be found at another.
func (f *fakeTree) move(from, to string, swap bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, p := range f.paths {
		switch {
		case inside(p, from):
			f.paths[id] = to + p[len(from):]
		case swap && inside(p, to):
			f.paths[id] = from + p[len(to):]
		}
	}
}

// closed tells that a version is complete, unless the file waits for its rename.
func (f *fakeTree) closed(p string, n *node, v Version) {
	if n.untold {
		f.tell(Change{Kind: Named, Path: p})
		return
	}
	f.note(p, n)
	f.tell(Change{Kind: Closed, Path: p, File: n.id, Version: v})
}

func (f *fakeTree) add(p string, n *node) {
	f.mu.Lock()
	dir, name := f.in(p)
	dir.entries[name] = n
	c := Change{Kind: Named, Path: p}
	if n.kind == Regular {
		f.tick++
		n.ctime = f.tick
		c.File, c.Version = n.id, n.stat().Version
	}
	f.mu.Unlock()
	f.named(c, p, n)
}

func (f *fakeTree) mkdir(p string) { f.add(p, f.lockedMake(Directory)) }

func (f *fakeTree) lockedMake(k Kind) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.make(k)
}

func (f *fakeTree) symlink(p, target string) {
	n := f.lockedMake(Symlink)
	n.target = target
	f.add(p, n)
}

func (f *fakeTree) remove(p string) {
	f.mu.Lock()
	dir, name := f.in(p)
	n := dir.entries[name]
	delete(dir.entries, name)
	f.mu.Unlock()
	f.collect()
	if n.kind == Directory {
		var all []string
		walk(n, p, func(sub string, _ *node) { all = append(all, sub) })
		slices.Reverse(all)
		for _, sub := range all {
			f.tell(Change{Kind: Named, Path: sub})
		}
	}
	f.tell(Change{Kind: Named, Path: p})
}

func walk(n *node, p string, visit func(string, *node)) {
	for name, e := range n.entries {
		visit(path.Join(p, name), e)
		walk(e, path.Join(p, name), visit)
	}
}

// collect forgets the inodes without names.
func (f *fakeTree) collect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := map[FileID]*node{f.root.id: f.root}
	walk(f.root, "", func(_ string, n *node) { ids[n.id] = n })
	f.ids = ids
}

func (f *fakeTree) rename(from, to string, swap bool) {
	f.mu.Lock()
	a, an := f.in(from)
	b, bn := f.in(to)
	n := a.entries[an]
	c := Change{Kind: Renamed, Path: from, To: to}
	if swap {
		c.Kind = Swapped
		a.entries[an] = b.entries[bn]
	} else {
		delete(a.entries, an)
	}
	b.entries[bn] = n
	if n.kind == Regular {
		f.tick++
		n.ctime = f.tick
		c.File, c.Version = n.id, n.stat().Version
	}
	other := a.entries[an]
	f.mu.Unlock()
	f.move(from, to, swap)
	f.collect()
	f.named(c, to, n)
	if swap && other.untold {
		f.complete(from, other)
	}
}

// complete tells of a file that waited, and of its names.
func (f *fakeTree) complete(p string, n *node) {
	n.untold = false
	f.closed(p, n, n.stat().Version)
	var others []string
	walk(f.root, "", func(other string, o *node) {
		if o == n && other != p {
			others = append(others, other)
		}
	})
	slices.Sort(others)
	for _, other := range others {
		f.tell(Change{Kind: Named, Path: other})
	}
}

// named tells a change of a name. The content of a file that waited for it is told of with it.
func (f *fakeTree) named(c Change, p string, n *node) {
	if !n.untold {
		f.tell(c)
		return
	}
	c.File, c.Version = FileID{}, Version{}
	f.tell(c)
	f.complete(p, n)
}

func (f *fakeTree) chmod(p string, mode os.FileMode) {
	f.mu.Lock()
	n := f.find(p)
	f.tick++
	n.mode, n.ctime = n.mode&os.ModeType|mode, f.tick
	c := Change{Kind: Named, Path: p}
	if n.kind == Regular {
		c.File, c.Version = n.id, n.stat().Version
	}
	f.mu.Unlock()
	f.tell(c)
}

// rebuild is the root that dag.Builder gives the tree from nothing.
func (f *fakeTree) rebuild() cid.Cid {
	f.t.Helper()
	b, err := dag.New(dag.Config{Sink: &nullSink{}, Preserve: true})
	must(f.t, err)
	link, err := f.rebuildDir(b, f.root)
	must(f.t, err)
	return link.CID
}

func (f *fakeTree) rebuildDir(b *dag.Builder, n *node) (dag.Link, error) {
	ctx := context.Background()
	dir := b.Dir(dag.Meta{Mode: n.mode, HasMode: true, ModTime: time.Unix(0, n.mtime)})
	for name, e := range n.entries {
		if e.untold {
			continue
		}
		m := dag.Meta{Mode: e.mode, HasMode: true, ModTime: time.Unix(0, e.mtime)}
		var link dag.Link
		var err error
		switch e.kind {
		case Directory:
			link, err = f.rebuildDir(b, e)
		case Symlink:
			link, err = b.Symlink(ctx, e.target, m)
		case Regular:
			link, err = b.File(ctx, bytes.NewReader(e.data), int64(len(e.data)), m)
		default:
			continue
		}
		if err == nil {
			err = dir.Add(name, link)
		}
		if err != nil {
			return link, err
		}
	}
	return dir.Close(ctx)
}

type nullSink struct{}

func (*nullSink) Put(context.Context, []blocks.Block) error { return nil }

func (*nullSink) Body(context.Context, uint64) (dag.Body, error) { return nullBody{}, nil }

type nullBody struct{}

func (nullBody) Put(context.Context, uint64, []blocks.Block) error { return nil }
func (nullBody) Commit(context.Context, cid.Cid) error             { return nil }
func (nullBody) Abort()                                            {}
