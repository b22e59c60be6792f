package unixfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
)

// TestHostileFiles reads files that lie. Whatever can be read must be right, the rest must be ErrCorrupt.
func TestHostileFiles(t *testing.T) {
	store := newMemBlocks()
	raw := func(s string) cid.Cid { return store.put(cid.Raw, []byte(s)) }
	pbLeaf := func(s string, declared uint64) cid.Cid { return store.node(fileData([]byte(s), declared)) }
	dir := store.node(&pb.Data{Type: pb.Data_Directory.Enum()})
	good := store.node(fileData(nil, 6, 3, 3), link{c: raw("abc")}, link{c: raw("def")})
	tests := []struct {
		name string
		root cid.Cid
		node bool   // Node fails already
		good [2]int // what can still be read, of "abcdefghi…"
	}{
		{"file size too large", store.node(fileData(nil, 7, 3, 3), link{c: raw("abc")}, link{c: raw("def")}), true, [2]int{}},
		{"file size too small", store.node(fileData(nil, 5, 3, 3), link{c: raw("abc")}, link{c: raw("def")}), true, [2]int{}},
		{"fewer block sizes", store.node(fileData(nil, 3, 3), link{c: raw("abc")}, link{c: raw("def")}), true, [2]int{}},
		{"more block sizes", store.node(fileData(nil, 6, 3, 3), link{c: raw("abc")}), true, [2]int{}},
		{"block sizes without links", store.node(fileData(nil, 6, 3, 3)), true, [2]int{}},
		{"sizes past int64", store.node(fileData(nil, 2, math.MaxUint64, 3), link{c: raw("abc")}, link{c: raw("def")}), true, [2]int{}},
		{"sizes past int64 by one", store.node(fileData(nil, 1<<63, math.MaxInt64, 1), link{c: raw("abc")}, link{c: raw("d")}), true, [2]int{}},
		{"leaf shorter", store.node(fileData(nil, 7, 3, 4), link{c: raw("abc")}, link{c: raw("def")}), false, [2]int{0, 3}},
		{"leaf longer", store.node(fileData(nil, 5, 3, 2), link{c: raw("abc")}, link{c: raw("def")}), false, [2]int{0, 3}},
		{"first leaf longer", store.node(fileData(nil, 6, 2, 4), link{c: raw("abc")}, link{c: raw("cdef")}), false, [2]int{2, 6}},
		{"dag-pb leaf shorter", store.node(fileData(nil, 7, 3, 4), link{c: raw("abc")}, link{c: pbLeaf("def", 3)}), false, [2]int{0, 3}},
		{"dag-pb leaf lies itself", store.node(fileData(nil, 7, 3, 4), link{c: raw("abc")}, link{c: pbLeaf("def", 4)}), false, [2]int{0, 3}},
		{"inner node longer", store.node(fileData(nil, 5, 5), link{c: good}), false, [2]int{}},
		{"inner node shorter", store.node(fileData(nil, 9, 9), link{c: good}), false, [2]int{}},
		{"hole of nothing", store.node(fileData(nil, 5, 3, 2), link{c: raw("abc")}, link{c: raw("")}), false, [2]int{0, 3}},
		{"directory inside", store.node(fileData(nil, 6, 3, 3), link{c: raw("abc")}, link{c: dir}), false, [2]int{0, 3}},
		{"codec inside", store.node(fileData(nil, 6, 3, 3), link{c: raw("abc")}, link{c: store.put(cid.DagCBOR, []byte{0xf6})}), false, [2]int{0, 3}},
		{"noise inside", store.node(fileData(nil, 6, 3, 3), link{c: raw("abc")}, link{c: store.put(cid.DagProtobuf, []byte("noise"))}), false, [2]int{0, 3}},
	}
	const content = "abcdefghi"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(store, Config{})
			n, err := r.Node(context.Background(), tt.root, tt.root)
			if tt.node {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("node: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for off := range int(n.Bytes) {
				for size := 1; off+size <= int(n.Bytes); size++ {
					f, _ := r.Open(n)
					p := make([]byte, size)
					got, err := f.ReadAt(context.Background(), p, uint64(off))
					if inside := off >= tt.good[0] && off+size <= tt.good[1]; inside != (err == nil) {
						t.Errorf("%d at %d: %v", size, off, err)
					} else if inside && string(p[:got]) != content[off:off+size] {
						t.Errorf("%d at %d: %q", size, off, p[:got])
					} else if !inside && (got != 0 || !errors.Is(err, ErrCorrupt)) {
						t.Errorf("%d at %d: %d bytes, %v", size, off, got, err)
					}
				}
			}
		})
	}
}

// TestDepthBomb reads chains of inner nodes: 64 levels are read, more are not.
func TestDepthBomb(t *testing.T) {
	for _, depth := range []int{60, 64, 66, 1000} {
		store := newMemBlocks()
		c := store.put(cid.Raw, []byte("xy"))
		for range depth {
			c = store.node(fileData(nil, 2, 2), link{c: c})
		}
		for _, pre := range []bool{false, true} {
			r := NewReader(store, Config{})
			f := open(t, r, c)
			if pre {
				_, _ = f.Leaves(context.Background(), 0, 2, false)
			}
			_, err := f.ReadAt(context.Background(), make([]byte, 2), 0)
			if deep := depth > maxFileDepth; deep != errors.Is(err, ErrCorrupt) || !deep && err != nil {
				t.Errorf("%d levels: %v", depth, err)
			}
			if store.count() > 500 {
				t.Errorf("%d levels: %d fetches", depth, store.count())
			}
		}
	}
}

// TestHugeTree reads from a file of 2^60 bytes that is one leaf over and over.
func TestHugeTree(t *testing.T) {
	store := newMemBlocks()
	c, size := store.put(cid.Raw, []byte("0123456789abcdef")), uint64(16)
	for range 14 {
		links, sizes := make([]link, 16), make([]uint64, 16)
		for i := range links {
			links[i], sizes[i] = link{c: c}, size
		}
		size *= 16
		c = store.node(fileData(nil, size, sizes...), links...)
	}
	f := open(t, NewReader(store, Config{}), c)
	if f.Bytes() != 1<<60 {
		t.Fatalf("%d bytes", f.Bytes())
	}
	for _, off := range []uint64{0, 1 << 59, 1<<60 - 100, 123456789012345} {
		p := make([]byte, 100)
		if _, err := f.ReadAt(context.Background(), p, off); err != nil {
			t.Fatal(err)
		}
		for i, b := range p {
			if b != "0123456789abcdef"[(off+uint64(i))%16] {
				t.Fatalf("wrong byte at %d", off+uint64(i))
			}
		}
	}
	leaves, err := f.Leaves(context.Background(), 0, 1<<60, false)
	if err != nil || len(leaves) != maxLeaves {
		t.Errorf("%d leaves, %v", len(leaves), err)
	}
	if store.count() > 1000 {
		t.Errorf("%d fetches", store.count())
	}
}

// TestFatNodes reads through a chain of inner nodes that are each as large as a block can be, with so many leaves
// behind that a reader must come back to every one of them.
func TestFatNodes(t *testing.T) {
	store := newMemBlocks()
	empty := store.put(cid.Raw, nil)
	leaf := store.put(cid.Raw, []byte("x"))
	const behind = 40
	c, size := leaf, uint64(1)
	for range 18 {
		links, sizes := make([]link, 40_000), make([]uint64, 40_000)
		for i := range links {
			links[i] = link{c: empty}
			if i > 0 && i <= behind {
				links[i].c, sizes[i] = leaf, 1
			}
		}
		links[0].c, sizes[0] = c, size
		size += behind
		c = store.node(fileData(nil, size, sizes...), links...)
	}
	r := NewReader(store, Config{})
	f := open(t, r, c)
	if _, err := f.ReadAt(context.Background(), make([]byte, 1), 0); err != nil {
		t.Errorf("one leaf: %v", err)
	}
	if _, err := f.ReadAt(context.Background(), make([]byte, size), 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("all leaves, with 40 MB of nodes above: %v", err)
	}
	if used := r.Stats().NodeCacheBytes; used > 16<<20 {
		t.Errorf("%d bytes of nodes kept", used)
	}
	big := store.node(fileData(nil, 1, 1), link{name: strings.Repeat("n", maxNodeBytes), c: empty})
	if _, err := r.Node(context.Background(), big, big); !errors.Is(err, ErrCorrupt) {
		t.Errorf("inner node of more than 2 MiB: %v", err)
	}
}

func TestHostileNodes(t *testing.T) {
	store := newMemBlocks()
	leaf := store.put(cid.Raw, []byte("x"))
	shard := func(fanout, hash uint64, bits []byte, links ...link) cid.Cid {
		return store.node(&pb.Data{Type: pb.Data_HAMTShard.Enum(), Data: bits, HashType: &hash, Fanout: &fanout}, links...)
	}
	bare := func(raw string) cid.Cid { return store.put(cid.DagProtobuf, []byte(raw)) }
	tests := []struct {
		name string
		c    cid.Cid
		want error
	}{
		{"no data", bare(""), ErrCorrupt},
		{"noise", bare("not protobuf"), ErrCorrupt},
		{"data that is no unixfs", bare("\x0a\x05hello"), ErrCorrupt},
		{"no type", store.node(&pb.Data{Data: []byte("x")}), ErrCorrupt},
		{"metadata", store.node(&pb.Data{Type: pb.Data_Metadata.Enum()}), ErrUnsupported},
		{"codec", store.put(cid.DagCBOR, []byte{0xf6}), ErrUnsupported},
		{"long link", store.node(&pb.Data{Type: pb.Data_Symlink.Enum(), Data: bytes.Repeat([]byte("x"), 4096)}), ErrCorrupt},
		{"link with zero byte", store.node(&pb.Data{Type: pb.Data_Symlink.Enum(), Data: []byte("a\x00b")}), ErrCorrupt},
		{"fan-out 0", shard(0, 0x22, nil), ErrCorrupt},
		{"fan-out 1", shard(1, 0x22, nil), ErrCorrupt},
		{"fan-out 100", shard(100, 0x22, nil), ErrCorrupt},
		{"fan-out 2048", shard(2048, 0x22, nil), ErrCorrupt},
		{"fan-out 2^63", shard(1<<63, 0x22, nil), ErrCorrupt},
		{"hash function", shard(256, 0x12, nil), ErrCorrupt},
		{"bit without link", shard(256, 0x22, []byte{1}), ErrCorrupt},
		{"link without bit", shard(256, 0x22, nil, link{name: "00a", c: leaf}), ErrCorrupt},
		{"link at another bit", shard(256, 0x22, []byte{2}, link{name: "00a", c: leaf}), ErrCorrupt},
		{"lower case prefix", shard(256, 0x22, []byte{4, 0}, link{name: "0aa", c: leaf}), ErrCorrupt},
		{"short prefix", shard(256, 0x22, []byte{1}, link{name: "0", c: leaf}), ErrCorrupt},
		{"long bit field", shard(8, 0x22, []byte{1, 0}, link{name: "0", c: leaf}), ErrCorrupt},
		{"bit past fan-out", shard(4, 0x22, []byte{16}, link{name: "4a", c: leaf}), ErrCorrupt},
	}
	r := NewReader(store, Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n, err := r.Node(context.Background(), tt.c, tt.c); !errors.Is(err, tt.want) {
				t.Errorf("got %v, %v, want %v", n, err, tt.want)
			}
		})
	}
}

// TestHostileShards lists and looks up in HAMTs that are deeper than they can be, or circular in effect.
func TestHostileShards(t *testing.T) {
	store := newMemBlocks()
	leaf := store.put(cid.Raw, []byte("x"))
	for _, tt := range []struct {
		fanout uint64
		levels int
	}{{2, 100}, {2, maxShardDepth + 1}, {8, 100}, {256, 100}, {1024, 100}} {
		fanout := tt.fanout
		// Every index leads to the same child, so that every hash goes to the bottom.
		digits := len(fmt.Sprintf("%X", fanout-1))
		hash, c := uint64(0x22), leaf
		for level := range tt.levels {
			field, links := bytes.Repeat([]byte{0xff}, max(int(fanout)/8, 1)), make([]link, fanout)
			if fanout == 2 {
				field[0] = 3
			}
			for i := range links {
				links[i] = link{name: fmt.Sprintf("%0*X", digits, i), c: c}
				if level == 0 {
					links[i].name += "name"
				}
			}
			c = store.node(&pb.Data{Type: pb.Data_HAMTShard.Enum(), Data: field, HashType: &hash, Fanout: &fanout}, links...)
		}
		r := NewReader(store, Config{})
		n, err := r.Node(context.Background(), c, c)
		if err != nil {
			t.Fatal(err)
		}
		d, _ := r.Dir(n)
		if _, err := d.Lookup(context.Background(), "name"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("fan-out %d: lookup: %v", fanout, err)
		}
		for _, err = range d.Entries(context.Background(), 0) {
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("fan-out %d: list: %v", fanout, err)
		}
		if store.count() > 500 {
			t.Errorf("fan-out %d: %d fetches", fanout, store.count())
		}
	}
}

// TestMisplacedNames: a name in a HAMT that is not where its hash says cannot be looked up, so it is not listed.
func TestMisplacedNames(t *testing.T) {
	store := newMemBlocks()
	leaf := store.put(cid.Raw, []byte("x"))
	fanout, hash := uint64(256), uint64(0x22)
	field, links := bytes.Repeat([]byte{0xff}, 32), make([]link, 256)
	for i := range links {
		links[i] = link{name: fmt.Sprintf("%02Xsame", i), c: leaf}
	}
	c := store.node(&pb.Data{Type: pb.Data_HAMTShard.Enum(), Data: field, HashType: &hash, Fanout: &fanout}, links...)
	r := NewReader(store, Config{})
	n, err := r.Node(context.Background(), c, c)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := r.Dir(n)
	count := 0
	for e, err := range d.Entries(context.Background(), 0) {
		if err != nil || e.Name != "same" {
			t.Fatal(e, err)
		}
		count++
	}
	if count != 1 || d.Skipped() != 255 || r.Stats().SkippedNames != 255 {
		t.Errorf("%d listed, %d and %d skipped", count, d.Skipped(), r.Stats().SkippedNames)
	}
}
