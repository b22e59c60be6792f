package unixfs

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/proto"
)

// FuzzNode decodes noise as a node and compares with boxo's decoders: what we accept they must accept, and read alike.
func FuzzNode(f *testing.F) {
	for _, raw := range seedBlocks() {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, err := decodePB(raw)
		theirs, theirErr := merkledag.DecodeProtobuf(raw)
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("we say %v, boxo says %v", err, theirErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(n.data, theirs.Data()) || len(n.links) != len(theirs.Links()) {
			t.Fatal("data or number of links differ")
		}
		for i, l := range theirs.Links() {
			ours := n.link(i)
			c, err := castCID(ours.cid)
			if err != nil || c != l.Cid || string(ours.name) != l.Name || ours.tsize != l.Size || codecOf(ours.cid) != c.Type() {
				t.Fatalf("link %d is %v %v, boxo has %v", i, ours, err, l)
			}
		}
		d, err := decodeFS(n.data, len(n.links))
		var msg pb.Data
		if theirErr := proto.Unmarshal(n.data, &msg); err == nil && theirErr != nil {
			t.Fatalf("we accept what boxo refuses: %v", theirErr)
		} else if err != nil {
			if theirErr == nil && len(msg.Blocksizes) <= len(n.links) {
				t.Fatalf("boxo accepts what we refuse: %v", err)
			}
			return
		}
		if d.kind != msg.GetType() || !bytes.Equal(d.data, msg.GetData()) || d.size != msg.GetFilesize() ||
			d.mode != msg.GetMode() || d.fanout != msg.GetFanout() || d.hashType != msg.GetHashType() ||
			d.seconds != msg.GetMtime().GetSeconds() || d.nanos != msg.GetMtime().GetNanos() || len(d.blockSizes) != len(msg.Blocksizes) {
			t.Fatalf("got %+v, boxo has %v", d, &msg)
		}
		checkOwned(t, raw)
	})
}

// checkOwned checks that a node's copy says the same and shares nothing with the block.
func checkOwned(t *testing.T, raw []byte) {
	t.Helper()
	raw = bytes.Clone(raw)
	n, err := decodeNode(raw)
	if err != nil {
		return
	}
	c := n.owned()
	data, content := bytes.Clone(n.data), bytes.Clone(n.content)
	clear(raw)
	if !bytes.Equal(c.data, data) || !bytes.Equal(c.content, content) {
		t.Fatal("the copy of a node has other content")
	}
}

// FuzzRead takes noise for the root of a file or directory whose every child is a small leaf or the root itself, reads
// it, lists it, looks up what was listed. Nothing may panic, hang, or return what is not there.
func FuzzRead(f *testing.F) {
	for _, raw := range seedBlocks() {
		f.Add(raw, uint64(0), uint16(100))
	}
	f.Fuzz(func(t *testing.T, raw []byte, off uint64, size uint16) {
		ctx := context.Background()
		r := NewReader(anything{raw}, Config{})
		c, err := cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12}.Sum(raw)
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.Node(ctx, c, c)
		if err != nil {
			return
		}
		if file, err := r.Open(n); err == nil {
			got, err := file.ReadAt(ctx, make([]byte, size), off)
			if err == nil && got != int(size) || err != nil && err != io.EOF && got != 0 {
				t.Fatalf("%d of %d bytes, %v", got, size, err)
			}
			_, _ = file.Leaves(ctx, off, uint64(size), off%2 == 0)
		}
		if d, err := r.Dir(n); err == nil {
			exerciseDir(t, d)
		}
	})
}

func exerciseDir(t *testing.T, d *Dir) {
	t.Helper()
	count, last := 0, Cursor(0)
	for e, err := range d.Entries(context.Background(), 0) {
		if err != nil {
			return
		}
		if e.Next < last || !validName([]byte(e.Name)) {
			t.Fatalf("entry %q at %d after %d", e.Name, e.Next, last)
		}
		last = e.Next
		if found, err := d.Lookup(context.Background(), e.Name); err != nil || found != e.Entry {
			t.Fatalf("listed %v, looked up %v, %v", e, found, err)
		}
		if count++; count == 1000 {
			return
		}
	}
}

// FuzzLinks lists the children of noise.
func FuzzLinks(f *testing.F) {
	for _, raw := range seedBlocks() {
		f.Add(uint64(cid.DagProtobuf), raw)
	}
	f.Add(uint64(cid.DagCBOR), []byte{0x81, 0xd8, 0x2a, 0x45, 0, 1, 0x55, 0, 0})
	f.Add(uint64(cid.DagCBOR), []byte{0xa1, 0x61, 'a', 0xf6})
	f.Fuzz(func(t *testing.T, codec uint64, raw []byte) {
		c, err := cid.V1Builder{Codec: codec, MhType: 0x12}.Sum(raw)
		if err != nil {
			return // no such codec
		}
		b, err := blocks.NewBlockWithCid(raw, c)
		if err != nil {
			t.Fatal(err)
		}
		kids, err := Links(Want{CID: c, Place: Place{File: c, Offset: 5, FileBytes: 1 << 40}}, b)
		if err != nil && kids != nil {
			t.Fatal("children and an error")
		}
		for _, k := range kids {
			if !k.CID.Defined() || k.Place.Offset > 1<<40 {
				t.Fatalf("child %v", k)
			}
		}
	})
}

// anything answers every CID: raw ones with a few bytes, others with the root.
type anything struct{ root []byte }

func (a anything) Get(_ context.Context, w Want) (blocks.Block, error) {
	if w.CID.Type() == cid.Raw {
		return blocks.NewBlockWithCid([]byte("leaf"), w.CID)
	}
	return blocks.NewBlockWithCid(a.root, w.CID)
}

func (a anything) Local(ctx context.Context, w Want) (blocks.Block, error) { return a.Get(ctx, w) }
func (a anything) Prefetch(context.Context, []Want)                        {}

// seedBlocks are blocks of every kind.
func seedBlocks() [][]byte {
	store := newMemBlocks()
	leaf := store.put(cid.Raw, []byte("leaf"))
	fanout, hash, secs, mode := uint64(256), uint64(0x22), int64(1), uint32(0o644)
	name := "name"
	index := bitsOf(nameHash([]byte(name)), 0, 8)
	field := make([]byte, 32)
	field[31-index/8] |= 1 << (index % 8)
	cids := []cid.Cid{
		store.node(fileData(nil, 8, 4, 4), link{c: leaf}, link{c: leaf}),
		store.node(fileData([]byte("data"), 4)),
		store.node(&pb.Data{Type: pb.Data_Directory.Enum(), Mode: &mode, Mtime: &pb.IPFSTimestamp{Seconds: &secs}},
			link{name: "a", c: leaf, tsize: 4}, link{name: "b", c: leaf}),
		store.putUnsorted(&pb.Data{Type: pb.Data_Directory.Enum()}, link{name: "b", c: leaf}, link{name: "a", c: leaf}, link{name: "b", c: leaf}),
		store.node(&pb.Data{Type: pb.Data_Symlink.Enum(), Data: []byte("target")}),
		store.node(&pb.Data{Type: pb.Data_HAMTShard.Enum(), Data: field, HashType: &hash, Fanout: &fanout},
			link{name: string("0123456789ABCDEF"[index>>4]) + string("0123456789ABCDEF"[index&15]) + name, c: leaf}),
		store.node(&pb.Data{}),
	}
	out := [][]byte{nil}
	for _, c := range cids {
		out = append(out, store.m[c].RawData())
	}
	return out
}
