package unixfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// shape is how a file's DAG is laid out.
type shape struct {
	trickle, raw, v0, stat bool
	chunk, width, size     int
	hash                   uint64
}

func randomShape(r *rand.Rand) shape {
	s := shape{trickle: r.IntN(2) == 0, raw: r.IntN(2) == 0, v0: r.IntN(3) == 0, stat: r.IntN(2) == 0,
		chunk: 1 + r.IntN(2000), width: 2 + r.IntN(12), size: r.IntN(60_000), hash: mh.SHA2_256}
	if s.v0 {
		s.raw = false
	} else {
		s.hash = []uint64{mh.SHA2_256, mh.SHA2_512, mh.BLAKE3, mh.BLAKE2B_MIN + 31}[r.IntN(4)]
	}
	if r.IntN(8) == 0 {
		s.size = r.IntN(2) // none or one byte
	}
	return s
}

// build imports data with boxo.
func (s shape) build(t testing.TB, store *memBlocks, data []byte) ipld.Node {
	t.Helper()
	p := cid.Prefix{Version: 1, Codec: cid.DagProtobuf, MhType: s.hash, MhLength: -1}
	if s.v0 {
		p.Version = 0
	}
	if s.hash == mh.BLAKE3 {
		p.MhLength = 32
	}
	params := helpers.DagBuilderParams{Maxlinks: s.width, RawLeaves: s.raw, CidBuilder: p, Dagserv: boxoView{store}}
	if s.stat {
		params.FileMode, params.FileModTime = 0o640, time.Unix(1_600_000_000, 5)
	}
	db, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(data), int64(s.chunk)))
	if err != nil {
		t.Fatal(err)
	}
	layout := balanced.Layout
	if s.trickle {
		layout = trickle.Layout
	}
	n, err := layout(db)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReadLikeBoxo reads random parts of random files with this package and with boxo's reader.
func TestReadLikeBoxo(t *testing.T) {
	rnd := newRand(t)
	for range 60 {
		s := randomShape(rnd)
		data := randomBytes(rnd, s.size)
		store := newMemBlocks()
		root := s.build(t, store, data)
		cfg := Config{Parallel: 1 + rnd.IntN(40)}
		if rnd.IntN(2) == 0 {
			cfg.NodeCacheBytes = 1 + rnd.Int64N(5000) // too small for most
		}
		f := open(t, NewReader(store, cfg), root.Cid())
		if f.Bytes() != uint64(s.size) {
			t.Fatalf("%+v: %d bytes", s, f.Bytes())
		}
		theirs, err := uio.NewDagReader(context.Background(), root, boxoView{store})
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			off, n := rnd.IntN(s.size+10), rnd.IntN(s.size/(1+rnd.IntN(20))+10)
			if rnd.IntN(4) == 0 {
				off, n = 0, s.size // all
			}
			compareRead(t, s, f, theirs, data, off, n)
		}
	}
}

func compareRead(t *testing.T, s shape, f *File, theirs io.ReadSeeker, data []byte, off, n int) {
	t.Helper()
	ours := make([]byte, n)
	got, err := f.ReadAt(context.Background(), ours, uint64(off))
	if err != nil && (err != io.EOF || off < s.size && off+n <= s.size) {
		t.Fatalf("%+v: read %d at %d: %v", s, n, off, err)
	}
	if err == nil && got != n {
		t.Fatalf("%+v: read %d at %d: %d bytes without an error", s, n, off, got)
	}
	want := make([]byte, n)
	m := 0
	if off < s.size {
		if _, err := theirs.Seek(int64(off), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if m, err = io.ReadFull(theirs, want); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(ours[:got], want[:m]) || off < s.size && !bytes.Equal(ours[:got], data[off:min(off+n, s.size)]) {
		t.Fatalf("%+v: read %d at %d: %d bytes, boxo has %d, or others", s, n, off, got, m)
	}
}

// TestLeavesCover checks that Leaves lists each byte of a range once, and that Links gives every leaf the same place.
func TestLeavesCover(t *testing.T) {
	rnd := newRand(t)
	for range 60 {
		s := randomShape(rnd)
		s.size++
		store := newMemBlocks()
		root := s.build(t, store, randomBytes(rnd, s.size)).Cid()
		f := open(t, NewReader(store, Config{}), root)
		if _, err := f.ReadAt(context.Background(), make([]byte, s.size), 0); err != nil { // so that all nodes are known
			t.Fatal(err)
		}
		places := map[Place]cid.Cid{}
		walkLinks(t, store, Want{CID: root, Dataset: root}, places)
		off := rnd.IntN(s.size)
		n := 1 + rnd.IntN(s.size-off)
		leaves, err := f.Leaves(context.Background(), uint64(off), uint64(n), rnd.IntN(2) == 0)
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		at := uint64(off)
		for i, l := range leaves {
			if l.Inner || l.Offset > at || l.Offset+l.Bytes <= at || i > 0 && l.Offset != at {
				t.Fatalf("%+v: leaf %d at %d+%d where %d is next", s, i, l.Offset, l.Bytes, at)
			}
			at = l.Offset + l.Bytes
			if l.Want.CID != root && places[l.Want.Place] != l.Want.CID {
				t.Fatalf("%+v: leaf %v has another place in Links", s, l)
			}
		}
		if at < uint64(off+n) && len(leaves) < maxLeaves {
			t.Fatalf("%+v: leaves of [%d, %d) end at %d", s, off, off+n, at)
		}
	}
}

// walkLinks follows Links to the leaves.
func walkLinks(t *testing.T, store *memBlocks, w Want, places map[Place]cid.Cid) {
	t.Helper()
	kids, err := Links(w, store.m[w.CID])
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kids {
		if k.Dataset != w.Dataset {
			t.Fatalf("child of %s lost its dataset", w.CID)
		}
		walkLinks(t, store, k, places)
	}
	if len(kids) == 0 && w.Place.File.Defined() {
		places[w.Place] = w.CID
	}
}

// TestInlineData reads a file whose inner nodes carry bytes before those of their children.
func TestInlineData(t *testing.T) {
	store := newMemBlocks()
	leaf := store.put(cid.Raw, []byte("leaf."))
	inner := store.node(fileData([]byte("inner:"), 16, 5, 5), link{c: leaf}, link{c: leaf})
	root := store.node(fileData([]byte("root:"), 26, 16, 0, 5), link{c: inner}, link{c: store.put(cid.Raw, nil)}, link{c: leaf})
	const want = "root:inner:leaf.leaf.leaf."
	r := NewReader(store, Config{})
	for off := range want {
		for n := 1; off+n <= len(want); n++ {
			p := make([]byte, n)
			f := open(t, r, root)
			if got, err := f.ReadAt(context.Background(), p, uint64(off)); err != nil || string(p[:got]) != want[off:off+n] {
				t.Fatalf("%d at %d: %q, %v", n, off, p[:got], err)
			}
		}
	}
}

func TestNodes(t *testing.T) {
	store := newMemBlocks()
	r := NewReader(store, Config{})
	identity, err := mh.Sum([]byte("tiny"), mh.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	secs, nanos, mode, badNanos := int64(-77), uint32(9), uint32(0o102755), uint32(1_000_000_000)
	tests := []struct {
		name string
		c    cid.Cid
		want Node
	}{
		{"raw", store.put(cid.Raw, []byte("abc")), Node{Kind: KindFile, Bytes: 3}},
		{"empty raw", store.put(cid.Raw, nil), Node{Kind: KindFile}},
		{"identity", cid.NewCidV1(cid.Raw, identity), Node{Kind: KindFile, Bytes: 4}},
		{"empty file", store.node(fileData(nil, 0)), Node{Kind: KindFile}},
		{"file without a size", store.node(&pb.Data{Type: pb.Data_Raw.Enum(), Data: []byte("x")}), Node{Kind: KindFile, Bytes: 1}},
		{"directory", store.node(&pb.Data{Type: pb.Data_Directory.Enum()}), Node{Kind: KindDir}},
		{"link", store.node(&pb.Data{Type: pb.Data_Symlink.Enum(), Data: []byte("a/b")}), Node{Kind: KindSymlink, Bytes: 3, Target: "a/b"}},
		{"mode and time", store.node(&pb.Data{Type: pb.Data_File.Enum(), Mode: &mode, Mtime: &pb.IPFSTimestamp{Seconds: &secs, Nanos: &nanos}}),
			Node{Kind: KindFile, HasMode: true, Mode: 0o755 | os.ModeSetgid, ModTime: time.Unix(-77, 9)}},
		{"no such time", store.node(&pb.Data{Type: pb.Data_File.Enum(), Mtime: &pb.IPFSTimestamp{Seconds: &secs, Nanos: &badNanos}}), Node{Kind: KindFile}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := r.Node(context.Background(), tt.c, tt.c)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.CID, tt.want.Dataset = tt.c, tt.c
			if !got.ModTime.Equal(tt.want.ModTime) {
				t.Errorf("time %v, want %v", got.ModTime, tt.want.ModTime)
			}
			tt.want.ModTime = got.ModTime
			if *got != tt.want {
				t.Errorf("got %+v, want %+v", *got, tt.want)
			}
			store.away[tt.c] = true
			if _, err := r.LocalNode(context.Background(), tt.c, tt.c); !errors.Is(err, ErrNotLocal) && tt.name != "identity" {
				t.Errorf("not local: %v", err)
			}
		})
	}
}

// TestReadFetchesOnce reads a file forwards and in one go and counts fetches.
func TestReadFetchesOnce(t *testing.T) {
	s := shape{chunk: 100, width: 8, size: 6400, raw: true, hash: mh.SHA2_256}
	store := newMemBlocks()
	root := s.build(t, store, randomBytes(newRand(t), s.size)).Cid()
	inner := 0
	for c := range store.m {
		if c.Type() == cid.DagProtobuf {
			inner++
		}
	}
	r := NewReader(store, Config{})
	f := open(t, r, root)
	for off := 0; off < s.size; off += 50 {
		if _, err := f.ReadAt(context.Background(), make([]byte, 50), uint64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if want := inner + 2*s.size/s.chunk; store.count() != want { // each leaf is read in two halves
		t.Errorf("%d blocks fetched reading forwards, want %d", store.count(), want)
	}
	store.gate, store.arrived, store.busiest = make(chan struct{}), make(chan struct{}, s.size), 0
	done := make(chan error, 1)
	go func() {
		_, err := f.ReadAt(context.Background(), make([]byte, s.size), 0)
		done <- err
	}()
	for range 32 { // as many as Parallel come before the first is answered
		<-store.arrived
	}
	close(store.gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if store.busiest != 32 {
		t.Errorf("%d fetches at once, want 32", store.busiest)
	}
}

func TestReadCancelled(t *testing.T) {
	s := shape{chunk: 100, width: 8, size: 6400, raw: true, hash: mh.SHA2_256}
	store := newMemBlocks()
	root := s.build(t, store, randomBytes(newRand(t), s.size)).Cid()
	f := open(t, NewReader(store, Config{}), root)
	store.gate, store.arrived = make(chan struct{}), make(chan struct{}, s.size)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := f.ReadAt(ctx, make([]byte, s.size), 0)
		done <- err
	}()
	store.gate <- struct{}{}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if store.busy != 0 {
		t.Errorf("%d fetches left behind", store.busy)
	}
}
