package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
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
	untold  bool // closed under a temporary name only
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
}

func newFakeTree(t testing.TB) *fakeTree {
	f := &fakeTree{t: t, ids: map[FileID]*node{}, tick: 1e18, tell: func(Change) {}}
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
	return FileStat{Version{size, n.mtime, n.ctime}, n.mode}
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

func (f *fakeTree) Open(_ context.Context, id FileID) (StagedFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.ids[id]
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
		dir.entries[name] = n
	}
	f.tick++
	n.data, n.mtime, n.ctime = data, f.tick, f.tick
	v := n.stat().Version
	f.mu.Unlock()
	f.closed(p, n, v)
}

// closed tells that a version is complete, unless the name says otherwise.
func (f *fakeTree) closed(p string, n *node, v Version) {
	if strings.HasSuffix(p, "~") {
		f.mu.Lock()
		walk(f.root, "", func(other string, o *node) {
			if o == n && !strings.HasSuffix(other, "~") {
				p = other // one of its names
			}
		})
		f.mu.Unlock()
	}
	if !strings.HasSuffix(p, "~") {
		n.untold = false
		f.tell(Change{Kind: Closed, Path: p, File: n.id, Version: v})
		return
	}
	n.untold = true
	f.tell(Change{Kind: Named, Path: p})
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
	f.told(c, p, n)
}

func (f *fakeTree) mkdir(p string) { f.add(p, f.make(Directory)) }

func (f *fakeTree) symlink(p, target string) {
	n := f.make(Symlink)
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
	f.mu.Unlock()
	f.collect()
	f.told(c, to, n)
}

// told tells a change of a file, whose content is told of with it if it was not.
func (f *fakeTree) told(c Change, p string, n *node) {
	if !n.untold {
		f.tell(c)
		return
	}
	c.File, c.Version = FileID{}, Version{}
	f.tell(c)
	f.closed(p, n, n.stat().Version)
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
	f.told(c, p, n)
}

// rebuild is the root that dag.Builder gives the tree from nothing.
func (f *fakeTree) rebuild(temporary func(string) bool) cid.Cid {
	f.t.Helper()
	b, err := dag.New(dag.Config{Sink: &nullSink{}, Preserve: true})
	must(f.t, err)
	link, err := f.rebuildDir(b, f.root, temporary)
	must(f.t, err)
	return link.CID
}

func (f *fakeTree) rebuildDir(b *dag.Builder, n *node, temporary func(string) bool) (dag.Link, error) {
	ctx := context.Background()
	dir := b.Dir(dag.Meta{Mode: n.mode, HasMode: true, ModTime: time.Unix(0, n.mtime)})
	for name, e := range n.entries {
		if temporary != nil && temporary(name) {
			continue
		}
		m := dag.Meta{Mode: e.mode, HasMode: true, ModTime: time.Unix(0, e.mtime)}
		var link dag.Link
		var err error
		switch e.kind {
		case Directory:
			link, err = f.rebuildDir(b, e, temporary)
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

// fakeStore keeps blocks by marks, and drops those that no mark keeps. What is placed can be fetched.
type fakeStore struct {
	mu      sync.Mutex
	blocks  map[cid.Cid][]byte
	marks   map[Mark]map[cid.Cid]bool
	kept    map[cid.Cid]int
	network map[cid.Cid][]byte // with providers
	puts    int
	bytes   int64
	discard bool // for large files: leaves are not kept
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		blocks: map[cid.Cid][]byte{}, marks: map[Mark]map[cid.Cid]bool{}, kept: map[cid.Cid]int{},
		network: map[cid.Cid][]byte{},
	}
}

func (s *fakeStore) keepLocked(m Mark, c cid.Cid) {
	if s.marks[m] == nil {
		s.marks[m] = map[cid.Cid]bool{}
	}
	if !s.marks[m][c] {
		s.marks[m][c] = true
		s.kept[c]++
	}
}

func (s *fakeStore) Put(_ context.Context, m Mark, blks []blocks.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blks {
		s.puts++
		s.bytes += int64(len(b.RawData()))
		s.blocks[b.Cid()] = b.RawData()
		s.keepLocked(m, b.Cid())
	}
	return nil
}

type fakeBody struct {
	s *fakeStore
	m Mark
}

func (s *fakeStore) Body(_ context.Context, m Mark, _ FileID, _ uint64) (dag.Body, error) {
	return &fakeBody{s, m}, nil
}

func (b *fakeBody) Put(ctx context.Context, _ uint64, blks []blocks.Block) error {
	for _, blk := range blks {
		kept, _ := blocks.NewBlockWithCid(bytes.Clone(blk.RawData()), blk.Cid())
		if err := b.s.Put(ctx, b.m, []blocks.Block{kept}); err != nil {
			return err
		}
	}
	return nil
}

func (b *fakeBody) Commit(context.Context, cid.Cid) error { return nil }
func (b *fakeBody) Abort()                                {}

func (s *fakeStore) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.blocks[c]; ok {
		return b, nil
	}
	if b, ok := s.network[c]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("block %s: not kept and not placed", c)
}

func (s *fakeStore) Keep(_ context.Context, m Mark, cids []cid.Cid) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range cids {
		if s.blocks[c] == nil {
			b, ok := s.network[c]
			if !ok {
				return fmt.Errorf("keep %s: it is not here", c)
			}
			s.blocks[c] = b
		}
		s.keepLocked(m, c)
	}
	return nil
}

func (s *fakeStore) Release(_ context.Context, m Mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.marks[m] {
		if s.kept[c]--; s.kept[c] == 0 {
			delete(s.kept, c)
			delete(s.blocks, c)
		}
	}
	delete(s.marks, m)
	return nil
}

// fakeSink is an uploader with durable memory.
type fakeSink struct {
	t        testing.TB
	store    *fakeStore
	mu       sync.Mutex
	groups   map[GroupID]Group
	placed   map[GroupID]bool
	parts    map[cid.Cid]bool
	manifest Manifest
	final    Manifest // placed last
	told     int
}

func newFakeSink(t testing.TB, s *fakeStore) *fakeSink {
	return &fakeSink{t: t, store: s, groups: map[GroupID]Group{}, placed: map[GroupID]bool{}, parts: map[cid.Cid]bool{}}
}

func (s *fakeSink) Group(_ context.Context, g Group) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told++
	if old, ok := s.groups[g.ID]; ok && fmt.Sprint(old) != fmt.Sprint(g) {
		return errors.New("a group has changed")
	}
	for _, c := range g.Columns {
		id, descriptor, err := c.Shards.Encode()
		if err != nil || id != c.ID || !bytes.Equal(descriptor, c.Descriptor) {
			return fmt.Errorf("column of group %d: %v", g.ID, err)
		}
	}
	s.groups[g.ID] = g
	return nil
}

func (s *fakeSink) Released(_ context.Context, id GroupID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.groups, id)
	delete(s.placed, id)
	return nil
}

func (s *fakeSink) Part(_ context.Context, _ ManifestID, p erasure.Part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[p.CID] = true
	return nil
}

func (s *fakeSink) Manifest(_ context.Context, m Manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.ID < s.manifest.ID {
		return errors.New("an older manifest")
	}
	s.manifest = m
	return nil
}

func (s *fakeSink) PartsReleased(_ context.Context, parts []cid.Cid) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range parts {
		delete(s.parts, c)
	}
	return nil
}

// stored is the bytes of all groups.
func (s *fakeSink) stored() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		for _, c := range g.Columns {
			n += c.Shards.Bytes()
		}
	}
	return n
}

// upload reads the shards of groups that are not placed, as an uploader does.
func (s *fakeSink) upload() (ids []GroupID) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, g := range s.groups {
		if s.placed[id] {
			continue
		}
		for _, c := range g.Columns {
			for _, shard := range c.Shards {
				b, err := s.store.Get(context.Background(), shard.CID)
				must(s.t, err)
				if len(b) != shard.Bytes {
					s.t.Fatalf("shard %s has %d bytes, not %d", shard.CID, len(b), shard.Bytes)
				}
			}
		}
		s.placed[id] = true
		ids = append(ids, id)
	}
	slices.Sort(ids)
	network := map[cid.Cid][]byte{}
	for id, g := range s.groups {
		for _, c := range g.Columns {
			for _, shard := range c.Shards {
				if !s.placed[id] {
					continue
				}
				b, err := s.store.Get(context.Background(), shard.CID)
				must(s.t, err)
				network[shard.CID] = b
			}
		}
	}
	s.store.mu.Lock()
	s.store.network = network
	s.store.mu.Unlock()
	return ids
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DATASET_SEED"); s != "" {
		_, err := fmt.Sscan(s, &seed)
		must(t, err)
	}
	t.Logf("DATASET_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func openDB(t testing.TB, dir string) *badger.DB {
	t.Helper()
	opts := badger.DefaultOptions(dir).WithLoggingLevel(badger.ERROR).WithMemTableSize(8 << 20).WithNumMemtables(2).
		WithBlockCacheSize(8 << 20).WithIndexCacheSize(8 << 20).WithValueLogFileSize(16 << 20).WithMetricsEnabled(false)
	if dir == "" {
		opts = opts.WithInMemory(true)
	}
	db, err := badger.Open(opts)
	must(t, err)
	return db
}

// box is a dataset with all it stands on.
type box struct {
	t     testing.TB
	cfg   Config
	tree  *fakeTree
	store *fakeStore
	sink  *fakeSink
	d     *Dataset
	now   time.Time
}

func newBox(t testing.TB, db *badger.DB) *box {
	b := &box{t: t, tree: newFakeTree(t), store: newFakeStore(), now: time.Unix(1e9, 0)}
	b.sink = newFakeSink(t, b.store)
	b.cfg = Config{
		DB: db, Prefix: []byte("set/"), Store: b.store, Staging: b.tree, Sink: b.sink, Data: 4, Parity: 2,
		Temporary: func(name string) bool { return strings.HasSuffix(name, "~") },
		Flush:     func(context.Context) error { return nil },
	}
	b.open()
	b.tree.tell = func(c Change) { must(t, b.d.Told(context.Background(), c)) }
	return b
}

func (b *box) open() {
	b.t.Helper()
	d, err := Open(context.Background(), b.cfg)
	must(b.t, err)
	b.d = d
}

// settle works until nothing is due.
func (b *box) settle() {
	b.t.Helper()
	for range 20 {
		next, err := b.d.Work(context.Background(), b.now)
		must(b.t, err)
		if next.IsZero() {
			return
		}
		b.now = next
	}
	b.t.Fatal("there is always more work")
}

// sync settles, uploads all, and tells so, until it is synced.
func (b *box) sync() State {
	b.t.Helper()
	ctx := context.Background()
	for range 20 {
		b.settle()
		for _, id := range b.sink.upload() {
			must(b.t, b.d.Placed(ctx, id))
		}
		s, err := b.d.State(ctx)
		must(b.t, err)
		if s.Synced {
			return s
		}
		b.settle()
		s, err = b.d.State(ctx)
		must(b.t, err)
		if s.Latest.ID != 0 && s.Unplaced == 0 {
			b.sink.final = s.Latest
			must(b.t, b.d.ManifestPlaced(ctx, s.Latest.ID))
		}
	}
	b.t.Fatal("it is never synced")
	return State{}
}
