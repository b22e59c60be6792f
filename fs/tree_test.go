package fs

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
)

// newTestTree makes a tree whose methods are called without a kernel.
func newTestTree(t *testing.T, name string, change func(*Config)) (*tree, *fake) {
	t.Helper()
	f := newFake()
	cfg := Config{Blocks: f, Root: trees[name](builder{f}), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	tr := newTree(cfg, 1000, 1001, false)
	if err := tr.begin(t.Context(), "test", false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tr.shutdown()
		tr.handles.closeAll()
		tr.work.Wait()
	})
	return tr, f
}

func (t *tree) lookup(tb testing.TB, parent uint64, name string) (fuse.EntryOut, fuse.Status) {
	tb.Helper()
	var out fuse.EntryOut
	status := t.Lookup(nil, &fuse.InHeader{NodeId: parent}, name, &out)
	return out, status
}

// list reads a directory through pages of size bytes.
func (t *tree) list(tb testing.TB, id uint64, size int, plus bool) (names []string, entries []fuse.EntryOut) {
	tb.Helper()
	var open fuse.OpenOut
	if st := t.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}}, &open); st != fuse.OK {
		tb.Fatal(st)
	}
	defer t.ReleaseDir(&fuse.ReleaseIn{Fh: open.Fh})
	off := uint64(0)
	for {
		page := fuse.NewDirEntryList(make([]byte, size), off)
		in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: id}, Fh: open.Fh, Offset: off, Size: uint32(size)}
		if st := t.readDir(nil, in, page, plus); st != fuse.OK {
			tb.Fatal(st)
		}
		if len(page.Bytes()) == 0 {
			return names, entries
		}
		off = page.Offset
		var list []fuse.DirEntry
		var err error
		if plus {
			var outs []fuse.EntryOut
			list, outs, err = fuse.ParseDirLookupEntries(page.Bytes())
			entries = append(entries, outs...)
		} else {
			list, err = fuse.ParseDirEntries(page.Bytes())
		}
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range list {
			names = append(names, e.Name)
		}
	}
}

func TestTreeLookup(t *testing.T) {
	tr, _ := newTestTree(t, "mixed", nil)
	small, st := tr.lookup(t, fuse.FUSE_ROOT_ID, "small")
	if st != fuse.OK || small.Size != 6 || small.Mode != syscall.S_IFREG|0o444 || small.Uid != 1000 || small.Gid != 1001 || small.Nlink != 1 {
		t.Errorf("small: %v %+v", st, small)
	}
	if small.EntryTimeout() != forever || small.AttrTimeout() != forever || small.Ino != small.NodeId {
		t.Errorf("small: timeouts %v, %v, node %d, inode %d", small.EntryTimeout(), small.AttrTimeout(), small.NodeId, small.Ino)
	}
	none, st := tr.lookup(t, fuse.FUSE_ROOT_ID, "none")
	if st != fuse.OK || none.NodeId != 0 || none.EntryTimeout() != forever {
		t.Errorf("a name that is not there: %v %+v", st, none)
	}
	again, _ := tr.lookup(t, fuse.FUSE_ROOT_ID, "small")
	if again.NodeId != small.NodeId {
		t.Error("a path has two nodes")
	}
	sub, _ := tr.lookup(t, fuse.FUSE_ROOT_ID, "sub")
	same, _ := tr.lookup(t, fuse.FUSE_ROOT_ID, "same")
	if sub.NodeId == same.NodeId {
		t.Error("equal directories at two paths are one node")
	}
	for n, want := range map[int]syscall.Errno{longestName: 0, longestName + 1: syscall.ENAMETOOLONG} {
		if _, st := tr.lookup(t, fuse.FUSE_ROOT_ID, strings.Repeat("x", n)); st != fuse.Status(want) {
			t.Errorf("a name of %d bytes: %v", n, st)
		}
	}
	if _, st := tr.lookup(t, 12345, "x"); st != fuse.Status(syscall.ESTALE) {
		t.Errorf("a node that nobody knows: %v", st)
	}
}

func TestTreeForgets(t *testing.T) {
	tr, _ := newTestTree(t, "many", nil)
	for _, plus := range []bool{false, true} {
		names, entries := tr.list(t, fuse.FUSE_ROOT_ID, 4096, plus)
		if len(names) != 2002 {
			t.Fatalf("listed %d names", len(names))
		}
		for _, e := range entries {
			if e.NodeId != 0 {
				tr.Forget(e.NodeId, 1)
			}
		}
	}
	out, _ := tr.lookup(t, fuse.FUSE_ROOT_ID, "f00001")
	tr.lookup(t, fuse.FUSE_ROOT_ID, "f00001")
	if n := tr.table.size(); n != 2 {
		t.Errorf("%d nodes are known", n)
	}
	tr.Forget(out.NodeId, 1)
	if tr.table.get(out.NodeId) == nil {
		t.Error("a node with a reference is forgotten")
	}
	tr.Forget(out.NodeId, 1)
	tr.Forget(out.NodeId, 1)
	tr.Forget(fuse.FUSE_ROOT_ID, 1)
	if n := tr.table.size(); n != 1 {
		t.Errorf("%d nodes are known at the end", n)
	}
}

// TestPlusIsBounded lists a directory of more entries than get attributes.
func TestPlusIsBounded(t *testing.T) {
	tr, _ := newTestTree(t, "wide", nil)
	names, entries := tr.list(t, fuse.FUSE_ROOT_ID, 1<<17, true)
	with := 0
	for _, e := range entries {
		if e.NodeId != 0 {
			with++
		}
	}
	if len(names) != plusEntries+502 || with != plusEntries {
		t.Errorf("%d names, %d with attributes", len(names), with)
	}
	if n := tr.table.size(); n != plusEntries+1 {
		t.Errorf("%d nodes are known", n)
	}
}

// TestInodeCollision has two names hash to the same number, as far as the table can tell.
func TestInodeCollision(t *testing.T) {
	root := &node{id: fuse.FUSE_ROOT_ID, ino: 7}
	tb := newTable(root)
	taken := inodeOf(root.ino, "second")
	tb.nodes[taken] = &node{id: taken, ino: taken, parent: root, name: "first", lookups: 1}
	n := tb.add(&node{parent: root, name: "second"})
	if n.id == taken || tb.child(root, "second", false) != n || tb.add(&node{parent: root, name: "second"}) != n {
		t.Errorf("the second of two colliding names got %d", n.id)
	}
	for _, bad := range []uint64{0, fuse.FUSE_ROOT_ID, ^uint64(0)} {
		if got := usableInode(bad); got <= fuse.FUSE_ROOT_ID || got == ^uint64(0) {
			t.Errorf("%d became %d", bad, got)
		}
	}
}

// TestBadNamesAreToldOnce lists a directory with unusable names again and again.
func TestBadNamesAreToldOnce(t *testing.T) {
	var log bytes.Buffer
	tr, _ := newTestTree(t, "bad names", func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 20 {
		if names, _ := tr.list(t, fuse.FUSE_ROOT_ID, 4096, true); strings.Join(names, " ") != ". .. fine" {
			t.Errorf("listed %q", names)
		}
	}
	if n := strings.Count(log.String(), "left out"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
}

func TestTreeRead(t *testing.T) {
	tr, _ := newTestTree(t, "mixed", nil)
	big, _ := tr.lookup(t, fuse.FUSE_ROOT_ID, "big")
	var open fuse.OpenOut
	header := fuse.InHeader{NodeId: big.NodeId}
	if st := tr.Open(nil, &fuse.OpenIn{InHeader: header, Flags: syscall.O_WRONLY}, &open); st != fuse.EROFS {
		t.Errorf("open for writing: %v", st)
	}
	if st := tr.Open(nil, &fuse.OpenIn{InHeader: header}, &open); st != fuse.OK || open.OpenFlags&fuse.FOPEN_KEEP_CACHE == 0 {
		t.Fatalf("open: %v, flags %x", st, open.OpenFlags)
	}
	want := random(bigBytes, 1)
	for _, c := range []struct {
		off, n, want int
		copied       bool // as the bytes lie in two blocks
	}{
		{0, 4096, 4096, false}, {leafBytes - 1, 2, 2, true}, {leafBytes - 4096, 4096, 4096, false}, {leafBytes, leafBytes, leafBytes, false},
		{bigBytes - 10, 4096, 10, false}, {bigBytes, 10, 0, false}, {bigBytes + 1, 10, 0, false}, {leafBytes / 2, leafBytes, leafBytes, true},
	} {
		buf := make([]byte, c.n)
		result, st := tr.Read(nil, &fuse.ReadIn{InHeader: header, Fh: open.Fh, Offset: uint64(c.off)}, buf)
		if st != fuse.OK {
			t.Fatalf("read %d at %d: %v", c.n, c.off, st)
		}
		got, _ := result.Bytes(nil)
		if len(got) != c.want || !bytes.Equal(got, want[min(c.off, bigBytes):min(c.off, bigBytes)+c.want]) {
			t.Errorf("read %d at %d gave %d bytes", c.n, c.off, len(got))
		}
		if copied := len(got) > 0 && &got[0] == &buf[0]; copied != c.copied {
			t.Errorf("read %d at %d: copied %v", c.n, c.off, copied)
		}
	}
	tr.Release(nil, &fuse.ReleaseIn{Fh: open.Fh})
	if _, st := tr.Read(nil, &fuse.ReadIn{InHeader: header, Fh: open.Fh}, nil); st != fuse.EBADF {
		t.Errorf("read after the release: %v", st)
	}
	if st := tr.Flush(nil, &fuse.FlushIn{}); st != fuse.ENOSYS {
		t.Errorf("flush: %v", st)
	}
}

func TestBeginNeedsTheRoot(t *testing.T) {
	f := newFake()
	root := trees["mixed"](builder{f})
	f.lose(root)
	cfg, err := Config{Blocks: f, Root: root, Timeout: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	err = newTree(cfg, 0, 0, false).begin(t.Context(), "/mnt", false)
	if errno, _ := toErrno(err); errno != syscall.EIO {
		t.Errorf("a root nobody has: %v", err)
	}
	cfg.Lazy = true
	lazy := newTree(cfg, 0, 0, false)
	if err := lazy.begin(t.Context(), "/mnt", false); err != nil {
		t.Errorf("a lazy mount: %v", err)
	}
	f.find()
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			lazy.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}}, &fuse.AttrOut{})
			lazy.GetXAttr(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, xattrCID, make([]byte, 256))
			lazy.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}}, &fuse.OpenOut{})
			lazy.lookup(t, fuse.FUSE_ROOT_ID, "small")
		})
	}
	asking.Wait()
	eventually(t, "the root is back", func() bool {
		out, st := lazy.lookup(t, fuse.FUSE_ROOT_ID, "small")
		return st == fuse.OK && out.Size == 6
	})
	cfg.Lazy, cfg.Root = false, cid.NewCidV1(0x71, root.Hash())
	if err := newTree(cfg, 0, 0, false).begin(t.Context(), "/mnt", false); err == nil {
		t.Error("a codec that is not UnixFS was mounted")
	}
}

func TestConfig(t *testing.T) {
	for what, cfg := range map[string]Config{
		"no blocks": {}, "negative timeout": {Blocks: newFake(), Timeout: -1}, "odd mode": {Blocks: newFake(), FileMode: os.ModeDir},
	} {
		if _, err := cfg.withDefaults(); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

func TestDescribe(t *testing.T) {
	n := &node{kind: unixfs.KindFile}
	n.describe(&unixfs.Node{Kind: unixfs.KindFile, HasMode: true, Mode: os.ModeSetuid | os.ModeSticky | 0o751, Bytes: 4097, ModTime: someTime}, 0o444)
	var a fuse.Attr
	n.attr(&a, 1, 2)
	if a.Mode != syscall.S_IFREG|syscall.S_ISUID|syscall.S_ISVTX|0o751 || a.Blocks != 16 || a.Mtime != uint64(someTime.Unix()) || a.Mtimensec != 500 {
		t.Errorf("%+v", a)
	}
	n.describe(&unixfs.Node{Kind: unixfs.KindFile, HasMode: true}, 0o444)
	if n.perm != 0 {
		t.Errorf("a stored mode of 0 became %o", n.perm)
	}
	n.describe(&unixfs.Node{Kind: unixfs.KindFile}, 0o555)
	if n.perm != 0o555 {
		t.Errorf("a file without a mode got %o", n.perm)
	}
}
