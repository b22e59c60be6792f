package dataset

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

// check compares a synced state with the tree, the manifest with the root, and all records with each other.
func (b *box) check(s State) {
	b.t.Helper()
	if want := b.tree.rebuild(); s.Root != want {
		b.compare(b.tree.root, rootDir, "")
		b.t.Fatalf("root is %s, built from nothing %s", s.Root, want)
	}
	if s.Placed.Root != s.Root {
		b.t.Fatalf("manifest of %s, root is %s", s.Placed.Root, s.Root)
	}
	if got := b.sink.manifest; got != s.Latest {
		b.t.Fatalf("the sink knows manifest %v, latest is %v", got, s.Latest)
	}
	b.checkManifest(s)
	b.checkRecords()
}

// checkManifest walks the DAG and looks for each of its blocks in the manifest.
func (b *box) checkManifest(s State) {
	b.t.Helper()
	ctx := context.Background()
	protected := map[cid.Cid]bool{}
	m, err := erasure.OpenManifest(ctx, s.Placed.CID, b.store.Get)
	must(b.t, err)
	for g, err := range m.Groups(ctx) {
		must(b.t, err)
		for _, id := range g.Chunks {
			if !b.sink.has(id) {
				b.t.Fatalf("the manifest names chunk %s, which the sink has not", id)
			}
		}
		for _, st := range g.Stripes {
			for _, d := range st.Data {
				protected[d.CID] = true
			}
		}
	}
	parts := 0
	for p, err := range m.Parts(ctx) {
		must(b.t, err)
		parts++
		if !b.sink.parts[p] {
			b.t.Fatalf("the sink has not part %s", p)
		}
	}
	if parts != len(b.sink.parts) {
		b.t.Fatalf("the sink keeps %d parts of %d", len(b.sink.parts), parts)
	}
	reachable := b.reach(s.Root)
	for c := range reachable {
		if !protected[c] {
			b.t.Fatalf("block %s is in no stripe", c)
		}
	}
	if st := b.d.Stats(); int(st.LiveBlocks) != len(reachable) || st.QueuedBlocks != 0 {
		b.t.Fatalf("%d blocks are live and %d queued of %d that the root reaches", st.LiveBlocks, st.QueuedBlocks, len(reachable))
	}
}

func (s *fakeSink) has(chunk cid.Cid) bool {
	for _, g := range s.groups {
		if slices.ContainsFunc(g.Columns, func(c Column) bool { return c.ID == chunk }) {
			return true
		}
	}
	return false
}

// reach returns all blocks below a root.
func (b *box) reach(root cid.Cid) map[cid.Cid]bool {
	seen := map[cid.Cid]bool{}
	var visit func(c cid.Cid)
	visit = func(c cid.Cid) {
		if seen[c] {
			return
		}
		seen[c] = true
		raw, err := b.store.Get(context.Background(), c)
		must(b.t, err)
		for _, l := range links(b.t, c, raw) {
			visit(l)
		}
	}
	visit(root)
	return seen
}

// checkRecords compares the counters with what they count.
func (b *box) checkRecords() {
	b.t.Helper()
	d := b.d
	was := d.totals
	heads := map[GroupID]groupHead{}
	must(b.t, d.scan(d.key(keyGroup), func(rest, v []byte) error {
		h, err := decodeHead(v)
		heads[GroupID(number(rest, 0))] = groupHead{liveBlocks: h.liveBlocks, liveBytes: h.liveBytes}
		return err
	}))
	counted := map[GroupID]groupHead{}
	for id := range heads {
		counted[id] = groupHead{}
	}
	must(b.t, d.scan(d.key(keyBlock), func(rest, v []byte) error {
		r, err := decodeBlock(v)
		if r.refs > 0 && r.group != 0 {
			h := counted[r.group]
			h.liveBlocks++
			h.liveBytes += r.bytes
			counted[r.group] = h
		}
		return err
	}))
	for id, h := range heads {
		if counted[id] != h {
			b.t.Fatalf("group %d: %d blocks live, %d counted", id, h.liveBlocks, counted[id].liveBlocks)
		}
	}
	must(b.t, d.count())
	if d.totals != was {
		b.t.Fatalf("totals %+v, counted %+v", was, d.totals)
	}
	b.checkTodo()
	for id := range b.sink.groups {
		if _, ok := heads[id]; !ok {
			b.t.Fatalf("the sink has group %d, which is not there", id)
		}
	}
	for _, kind := range []byte{keyDoomed, keyOwner, keyMark, keyWriting, keyGive, keyNameless, keyRelink, keyQueue} {
		if rest, err := d.first(d.key(kind)); err != nil || rest != nil {
			b.t.Fatalf("left behind: %c %x", kind, rest)
		}
	}
}

func TestOfAFewFiles(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.check(b.sync())
	b.tree.write("a", []byte("one"))
	b.tree.mkdir("d")
	b.tree.write("d/b", []byte("two"))
	b.tree.write("d/b~", []byte("not yet"))
	b.tree.symlink("l", "d/b")
	first := b.sync()
	b.check(first)
	b.tree.rename("d/b~", "d/c", false)
	b.tree.chmod("a", 0o600)
	b.tree.chmod("d", 0o700)
	second := b.sync()
	b.check(second)
	if first.Root == second.Root {
		t.Error("the root did not change")
	}
	b.tree.remove("d")
	b.check(b.sync())
}

// TestNamesThatLookTemporary has all that is never left out under such names: directories, symbolic links, and files that
// were told of before they were called so.
func TestNamesThatLookTemporary(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.tree.mkdir("old~")
	b.tree.write("old~/file", []byte("in a directory"))
	b.tree.write("old~/waits~", []byte("left out"))
	b.tree.symlink("link~", "file")
	b.tree.write("renamed", []byte("before it is imported"))
	b.tree.rename("renamed", "renamed~", false)
	b.tree.write("file", []byte("has two names"))
	b.tree.add("file~", b.tree.find("file"))
	b.check(b.sync())
	b.tree.rename("file", "other~", false)
	b.tree.rename("old~", "older~", false)
	b.tree.write("renamed~", []byte("another version"))
	b.tree.add("older~/linked~", b.tree.find("older~/waits~"))
	b.check(b.sync())
	for _, p := range []string{"older~/file", "older~/waits~", "older~/linked~", "link~", "renamed~", "file~", "other~"} {
		must(t, b.d.view(func(x *tx) error {
			if _, found, err := x.resolve(p); !found || err != nil {
				t.Errorf("%s is left out: %v", p, err)
			}
			return nil
		}))
	}
}

// edit changes the tree at random.
func edit(r *rand.Rand, f *fakeTree) {
	var dirs, files, all []string
	dirs = append(dirs, "")
	walk(f.root, "", func(p string, n *node) {
		all = append(all, p)
		switch n.kind {
		case Directory:
			dirs = append(dirs, p)
		case Regular:
			files = append(files, p)
		}
	})
	slices.Sort(dirs)
	slices.Sort(files)
	slices.Sort(all)
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	name := func() string {
		p := path.Join(pick(dirs), fmt.Sprintf("n%d", r.IntN(40)))
		if r.IntN(10) == 0 {
			p += "~"
		}
		return p
	}
	free := func() string {
		for {
			if p := name(); f.find(p) == nil {
				return p
			}
		}
	}
	switch k := r.IntN(14); {
	case k < 4 || len(files) == 0:
		p := name()
		if n := f.find(p); n == nil || n.kind == Regular {
			f.write(p, content(r))
		}
	case k == 4:
		f.mkdir(free())
	case k == 5:
		f.symlink(free(), fmt.Sprint(r.IntN(100)))
	case k == 6:
		f.remove(pick(all))
	case k == 7:
		f.chmod(pick(all), os.FileMode(r.IntN(0o1000)))
	case k == 8:
		f.add(free(), f.find(pick(files))) // a hard link
	case k == 9:
		from, to := pick(all), pick(all)
		if !inside(to, from) && !inside(from, to) {
			f.rename(from, to, true)
		}
	case k == 10:
		from, to := pick(files), name()
		if n := f.find(to); n == nil || n.kind == Regular && n != f.find(from) {
			f.rename(from, to, false)
		}
	default:
		from, to := pick(all), free()
		if !inside(to, from) {
			f.rename(from, to, false)
		}
	}
}

// inside says whether p is dir or below it.
func inside(p, dir string) bool { return p == dir || len(p) > len(dir) && p[:len(dir)+1] == dir+"/" }

func content(r *rand.Rand) []byte {
	size := 0
	switch r.IntN(10) {
	case 0: // empty
	case 1:
		size = r.IntN(3 << 20)
	default:
		size = r.IntN(5000)
	}
	data := make([]byte, size)
	for i := 0; i < len(data); i += 64 {
		data[i] = byte(r.Uint32()) % 8 // equal content comes up
	}
	return data
}

// editWhileOpening changes the tree as often as is set, while files are being opened.
func (b *box) editWhileOpening(r *rand.Rand) (left *atomic.Int32) {
	left = new(atomic.Int32)
	var turn sync.Mutex
	own := rand.New(rand.NewPCG(r.Uint64(), 1))
	b.tree.opening = func(FileID) {
		turn.Lock()
		defer turn.Unlock()
		if left.Add(-1) >= 0 {
			edit(own, b.tree)
		}
	}
	return left
}

func TestRandomEditsAgainstAFullBuild(t *testing.T) {
	r := seeded(t)
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	left := b.editWhileOpening(r)
	for range editedTrees {
		left.Store(r.Int32N(4))
		for range r.IntN(30) {
			edit(r, b.tree)
			switch r.IntN(8) {
			case 0:
				_, err := b.d.Work(context.Background(), b.now)
				must(t, err)
			case 1:
				_, err := b.d.Directory(context.Background(), "")
				must(t, err)
			}
		}
		b.check(b.sync())
	}
}

// compare logs how the records of a directory differ from the tree.
func (b *box) compare(n *node, id uint64, p string) {
	b.t.Helper()
	must(b.t, b.d.view(func(x *tx) error {
		for name, e := range n.entries {
			r, found, err := x.entry(spotIn(id, name))
			must(b.t, err)
			if !found && !e.untold {
				b.t.Logf("%s/%s is missing", p, name)
			}
			if !found {
				continue
			}
			switch {
			case r.kind != e.kind:
				b.t.Logf("%s/%s is of kind %d, recorded %d", p, name, e.kind, r.kind)
			case e.kind == Symlink:
				if link, err := b.d.symlink(context.Background(), e.entry(name)); err != nil || link != r.link {
					b.t.Logf("%s/%s is %s, recorded %s", p, name, link.CID, r.link.CID)
				}
			case e.kind == Directory:
				rec, _, err := x.dir(r.dir)
				must(b.t, err)
				if rec.mode != e.mode || rec.modTime != e.mtime || rec.ident != e.id || rec.link.CID != r.link.CID {
					b.t.Logf("%s/%s is %+v, recorded %+v", p, name, e.entry(name), rec)
				}
				b.compare(e, r.dir, p+"/"+name)
			case e.kind == Regular && r.file != e.id:
				b.t.Logf("%s/%s is another file", p, name)
			case e.kind == Regular:
				built, err := dag.New(dag.Config{Sink: &nullSink{}, Preserve: true})
				must(b.t, err)
				link, err := built.File(context.Background(), bytes.NewReader(e.data), int64(len(e.data)), meta(e.mode, e.mtime))
				if err != nil || link.CID != r.link.CID || link.Bytes != r.link.Bytes {
					b.t.Logf("%s/%s is %+v, shown as %+v", p, name, link, r.link)
				}
				f, known, err := x.file(e.id)
				must(b.t, err)
				if st := e.stat(); !known || f.mode != st.Mode || f.modTime != st.ModTime || f.version != st.Version || f.link.CID != r.link.CID {
					b.t.Logf("%s/%s is %+v, recorded %+v, shown %s", p, name, st, f, r.link.CID)
				}
			}
		}
		return x.scan(b.d.key(keyEntry, id), func(rest, _ []byte) error {
			if name := string(rest[8:]); n.entries[name] == nil || n.entries[name].untold {
				b.t.Logf("%s/%s is recorded only", p, name)
			}
			return nil
		})
	}))
}

func TestWorkWhileTheTreeChanges(t *testing.T) {
	r := seeded(t)
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		now := b.now
		for ctx.Err() == nil {
			now = now.Add(defaultQuiet)
			if _, err := b.d.Work(context.Background(), now); err != nil {
				done <- err
				return
			}
			if _, err := b.d.State(context.Background()); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 600 {
		edit(r, b.tree)
	}
	stop()
	must(t, <-done)
	b.now = b.now.Add(1000000 * defaultQuiet)
	b.check(b.sync())
}
