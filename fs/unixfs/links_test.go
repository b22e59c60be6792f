package unixfs

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"
)

func TestLinksPlaces(t *testing.T) {
	store := newMemBlocks()
	leaf := store.put(cid.Raw, []byte("leaf."))
	inner := store.node(fileData([]byte("in"), 12, 5, 5), link{c: leaf}, link{c: leaf})
	root := store.node(fileData(nil, 17, 12, 5), link{c: inner}, link{c: leaf})
	liar := store.node(fileData(nil, 18, 12, 5), link{c: inner}, link{c: leaf})
	dir := store.node(&pb.Data{Type: pb.Data_Directory.Enum()}, link{name: "a", c: root}, link{name: "b", c: leaf})
	ds := dir
	at := func(c cid.Cid, off, declared uint64) Want {
		return Want{CID: c, Dataset: ds, Place: Place{File: root, Offset: off, FileBytes: 17, Bytes: declared}}
	}
	none := func(c cid.Cid) Want { return Want{CID: c, Dataset: ds} }
	tests := []struct {
		name string
		w    Want
		want []Want
	}{
		{"directory", none(dir), []Want{none(root), none(leaf)}},
		{"root", none(root), []Want{at(inner, 0, 12), at(leaf, 12, 5)}},
		{"inner", at(inner, 0, 12), []Want{at(leaf, 2, 5), at(leaf, 7, 5)}},
		{"inner past the end", at(inner, 6, 0), []Want{none(leaf), none(leaf)}},
		{"inner far past the end", at(inner, 1<<63, 0), []Want{none(leaf), none(leaf)}},
		{"inner longer than declared", at(inner, 0, 11), []Want{none(leaf), none(leaf)}},
		{"inner shorter than declared", at(inner, 0, 13), []Want{none(leaf), none(leaf)}},
		{"liar", none(liar), []Want{none(inner), none(leaf)}},
		{"raw", none(leaf), nil},
		{"empty", none(store.node(fileData(nil, 0))), nil},
		{"no unixfs", none(store.node(&pb.Data{}, link{c: leaf})), []Want{none(leaf)}},
	}
	for _, tt := range tests {
		got, err := Links(tt.w, store.m[tt.w.CID])
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
	bad := store.put(cid.DagProtobuf, []byte("\x12\x03bad"))
	if _, err := Links(none(bad), store.m[bad]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("malformed: %v", err)
	}
}

func TestLinksCBOR(t *testing.T) {
	store := newMemBlocks()
	one, two := store.put(cid.Raw, []byte("1")), store.put(cid.DagCBOR, []byte{0xf6})
	n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "a", qp.List(-1, func(la datamodel.ListAssembler) {
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: one}))
			qp.ListEntry(la, qp.Int(7))
		}))
		qp.MapEntry(ma, "b", qp.Link(cidlink.Link{Cid: two}))
	})
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if err := dagcbor.Encode(n, &raw); err != nil {
		t.Fatal(err)
	}
	c := store.put(cid.DagCBOR, raw.Bytes())
	got, err := Links(Want{CID: c, Dataset: c}, store.m[c])
	if err != nil || !slices.Equal(got, []Want{{CID: one, Dataset: c}, {CID: two, Dataset: c}}) {
		t.Errorf("got %v, %v", got, err)
	}
	for name, raw := range map[string][]byte{
		"nothing":       {},
		"cut off":       raw.Bytes()[:raw.Len()-1],
		"deep":          bytes.Repeat([]byte{0x81}, 2<<20),
		"2^60 elements": {0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0},
		"2^60 bytes":    {0x5b, 0x10, 0, 0, 0, 0, 0, 0, 0},
	} {
		c := store.put(cid.DagCBOR, raw)
		if _, err := Links(Want{CID: c}, store.m[c]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, codec := range []uint64{cid.DagJSON, cid.Raw, cid.GitRaw} {
		c := store.put(codec, []byte(`{"/":"x"}`))
		if got, err := Links(Want{CID: c}, store.m[c]); err != nil || got != nil {
			t.Errorf("codec 0x%x: %v, %v", codec, got, err)
		}
	}
}

func TestVerify(t *testing.T) {
	data := []byte("some bytes")
	sum := func(code uint64, length int) cid.Cid {
		h, err := mh.Sum(data, code, length)
		if err != nil {
			t.Fatal(err)
		}
		return cid.NewCidV1(cid.Raw, h)
	}
	v0 := cid.NewCidV0(sum(mh.SHA2_256, -1).Hash())
	murmur, err := mh.Encode(make([]byte, 32), mh.MURMUR3X64_64)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]cid.Cid{
		"sha2-256": sum(mh.SHA2_256, -1), "v0": v0, "sha2-256 cut": sum(mh.SHA2_256, 20), "sha2-512": sum(mh.SHA2_512, -1),
		"blake3": sum(mh.BLAKE3, 32), "blake2b": sum(mh.BLAKE2B_MIN+31, -1), "sha1": sum(mh.SHA1, -1),
		"sha3": sum(mh.SHA3_256, -1), "identity": sum(mh.IDENTITY, -1), "dag-json": cid.NewCidV1(cid.DagJSON, sum(mh.SHA2_256, -1).Hash()),
	}
	for name, c := range good {
		if err := Verify(c, data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, other := range [][]byte{nil, data[1:], append(bytes.Clone(data), 0)} {
			if err := Verify(c, other); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s of other bytes: %v", name, err)
			}
		}
	}
	for name, c := range map[string]cid.Cid{
		"none": cid.Undef, "md5": sum(mh.MD5, -1), "short": sum(mh.SHA2_256, 19), "murmur": cid.NewCidV1(cid.Raw, murmur),
	} {
		if err := Verify(c, data); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
