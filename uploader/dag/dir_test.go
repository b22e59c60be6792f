package dag

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	ipld "github.com/ipfs/go-ipld-format"
)

func rawNode(t testing.TB, i int) ipld.Node {
	t.Helper()
	n, err := merkledag.NewRawNodeWPrefix(fmt.Appendf(nil, "file %d", i), uio.UnixFS_v1_2025.CidBuilder())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// boxoDir builds a directory with boxo under the profile.
func boxoDir(t testing.TB, s *memSink, names []string, m Meta) Link {
	t.Helper()
	ctx := context.Background()
	d, err := uio.NewDirectory(dagService{s: s}, uio.WithCidBuilder(uio.UnixFS_v1_2025.CidBuilder()),
		uio.WithSizeEstimationMode(uio.UnixFS_v1_2025.HAMTSizeEstimation), uio.WithStat(m.Mode, m.ModTime))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if err := d.AddChild(ctx, name, rawNode(t, i)); err != nil {
			t.Fatal(err)
		}
	}
	n, err := d.GetNode()
	if err != nil {
		t.Fatal(err)
	}
	size, err := n.Size()
	if err != nil {
		t.Fatal(err)
	}
	return Link{CID: n.Cid(), Bytes: size}
}

// ourDir builds the same directory, adding names in the order given.
func ourDir(t testing.TB, s *memSink, names []string, order []int, cfg Config, m Meta) Link {
	t.Helper()
	d := newTestBuilder(t, s, cfg).Dir(m)
	for _, i := range order {
		n := rawNode(t, i)
		if err := d.Add(names[i], Link{CID: n.Cid(), Bytes: uint64(len(n.RawData()))}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := d.Close(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	checkSink(t, s)
	return l
}

func manyNames(n, pad int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%06d", strings.Repeat("n", pad), i)
	}
	return names
}

func TestDirEqualsBoxo(t *testing.T) {
	p := uio.UnixFS_v1_2025
	if p.HAMTShardingSize != shardingBytes || p.HAMTShardWidth != shardWidth || p.HAMTSizeEstimation != uio.SizeEstimationBlock {
		t.Fatal("the profile's directory settings have changed")
	}
	tests := map[string][]string{
		"empty":        nil,
		"one":          {"a"},
		"odd names":    {"z", "a b", "ünïcode", "-", "...", strings.Repeat("x", 255), "A", "1", "\t", "日本"},
		"plain":        manyNames(1000, 10),
		"10,000 names": manyNames(10_000, 8),
		"deep":         manyNames(70_000, 1),
	}
	for name, names := range tests {
		t.Run(name, func(t *testing.T) {
			want := boxoDir(t, newMemSink(), names, Meta{})
			for seed := range uint64(2) {
				s := newMemSink()
				got := ourDir(t, s, names, rand.New(rand.NewPCG(seed, 1)).Perm(len(names)), Config{Workers: int(1 + seed*3)}, Meta{})
				if got != want {
					t.Errorf("seed %d: got %v, boxo has %v", seed, got, want)
				}
			}
		})
	}
}

// TestShardingThreshold steps over the 256 KiB by one byte at a time, with and without metadata.
func TestShardingThreshold(t *testing.T) {
	metas := []Meta{{}, {Mode: 0o755, ModTime: time.Unix(1700000000, 5)}, {ModTime: time.Unix(-5, 0)}}
	for _, m := range metas {
		names := manyNames(2700, 33)
		size := len(appendData(nil, dirData(m)))
		for i, name := range names {
			size += linkBytes(36, len(name), uint64(len(rawNode(t, i).RawData())))
		}
		// Lengthen names until the block is just below, at, and above the threshold.
		at := 0
		for size < shardingBytes-1 {
			names[at] += "y"
			size++
			if len(names[at]) == 60 {
				at++
			}
		}
		for range 3 {
			order := rand.New(rand.NewPCG(1, 1)).Perm(len(names))
			want := boxoDir(t, newMemSink(), names, m)
			s := newMemSink()
			got := ourDir(t, s, names, order, Config{Preserve: true}, m)
			if got != want {
				t.Errorf("block of %d bytes: got %v, boxo has %v", size, got, want)
			}
			if hamt := len(s.blocks) > 1; hamt != (size > shardingBytes) {
				t.Errorf("block of %d bytes: hamt %v", size, hamt)
			}
			names[len(names)-1] += "z"
			size++
		}
	}
}

func TestPreserveDirAndSymlink(t *testing.T) {
	m := Meta{Mode: 0o1777 | os.ModeDir | os.ModeSticky, ModTime: time.Unix(1600000000, 7)}
	for _, names := range [][]string{nil, manyNames(10_000, 8)} {
		s := newMemSink()
		l := ourDir(t, s, names, rand.Perm(len(names)), Config{Preserve: true}, m)
		n, err := dagService{s: s}.Get(context.Background(), l.CID)
		if err != nil {
			t.Fatal(err)
		}
		fsn, err := unixfs.FSNodeFromBytes(n.(*merkledag.ProtoNode).Data())
		if err != nil {
			t.Fatal(err)
		}
		if fsn.Mode() != 0o777|os.ModeDir|os.ModeSticky || !fsn.ModTime().Equal(m.ModTime) {
			t.Errorf("boxo reads %v and %v", fsn.Mode(), fsn.ModTime())
		}
	}
	s := newMemSink()
	l, err := newTestBuilder(t, s, Config{Preserve: true}).Symlink(context.Background(), "../over/there", m)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := dagService{s: s}.Get(context.Background(), l.CID)
	fsn, err := unixfs.FSNodeFromBytes(n.(*merkledag.ProtoNode).Data())
	if err != nil || fsn.Type() != unixfs.TSymlink || string(fsn.Data()) != "../over/there" || !fsn.ModTime().Equal(m.ModTime) {
		t.Errorf("boxo reads %v, %v", fsn, err)
	}
}

func TestSymlinkEqualsBoxo(t *testing.T) {
	for _, target := range []string{"a", "/etc/passwd", strings.Repeat("d/", 2000)} {
		data, err := unixfs.SymlinkData(target)
		if err != nil {
			t.Fatal(err)
		}
		want := merkledag.NodeWithData(data)
		if err := want.SetCidBuilder(uio.UnixFS_v1_2025.CidBuilder()); err != nil {
			t.Fatal(err)
		}
		got, err := newTestBuilder(t, newMemSink(), Config{}).Symlink(context.Background(), target, Meta{Mode: 0o777})
		if err != nil || got.CID != want.Cid() || got.Bytes != uint64(len(want.RawData())) {
			t.Errorf("%q: got %v %v, boxo has %s", target, got, err, want.Cid())
		}
	}
}

func TestNames(t *testing.T) {
	b := newTestBuilder(t, newMemSink(), Config{})
	l := Link{CID: rawNode(t, 1).Cid()}
	for _, name := range []string{"", ".", "..", "a/b", "/", "a\x00", strings.Repeat("x", 256), "\xff\xfe"} {
		if err := b.Dir(Meta{}).Add(name, l); !errors.Is(err, ErrName) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	d := b.Dir(Meta{})
	for i, name := range append(manyNames(100, 1), "...", strings.Repeat("x", 255), "\n") {
		if err := d.Add(name, l); err != nil {
			t.Errorf("%d %q: %v", i, name, err)
		}
		if err := d.Add(name, l); !errors.Is(err, ErrName) {
			t.Errorf("%q twice: got %v", name, err)
		}
	}
	for _, target := range []string{"", "a\x00b", strings.Repeat("x", 4096)} {
		if _, err := b.Symlink(context.Background(), target, Meta{}); !errors.Is(err, ErrName) {
			t.Errorf("link to %.10q: got %v", target, err)
		}
	}
}

func TestDirReplace(t *testing.T) {
	names := manyNames(300, 2)
	want := boxoDir(t, newMemSink(), names, Meta{})
	d := newTestBuilder(t, newMemSink(), Config{}).Dir(Meta{})
	for round := range 3 {
		for i, name := range names {
			n := rawNode(t, i)
			l := Link{CID: n.Cid(), Bytes: uint64(len(n.RawData()))}
			if round < 2 {
				l.Bytes = 1 << (10 * round)
			}
			d.set(name, l)
		}
	}
	got, err := d.Close(context.Background())
	if err != nil || got != want {
		t.Errorf("got %v %v, boxo has %v", got, err, want)
	}
}

func TestDirSinkFails(t *testing.T) {
	for _, n := range []int{3, 10_000} {
		s := newMemSink()
		s.fail = errors.New("no room")
		d := newTestBuilder(t, s, Config{}).Dir(Meta{})
		for i, name := range manyNames(n, 8) {
			if err := d.Add(name, Link{CID: rawNode(t, i).Cid()}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.Close(context.Background()); !errors.Is(err, s.fail) {
			t.Errorf("%d names: got %v", n, err)
		}
	}
}
