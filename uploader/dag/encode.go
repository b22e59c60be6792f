package dag

import (
	"crypto/sha256"
	"os"
	"time"

	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/unixfs/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

// cidOf hashes data into a version 1 sha2-256 CID.
func cidOf(codec byte, data []byte) cid.Cid {
	var b [36]byte
	sum := sha256.Sum256(data)
	b[0], b[1], b[2], b[3] = 1, codec, mh.SHA2_256, sha256.Size
	copy(b[4:], sum[:])
	_, c, err := cid.CidFromBytes(b[:])
	if err != nil {
		panic(err) // the bytes are of one fixed form
	}
	return c
}

// newBlock hashes data, which the block keeps.
func newBlock(codec byte, data []byte) blocks.Block {
	blk, err := blocks.NewBlockWithCid(data, cidOf(codec, data))
	if err != nil {
		panic(err) // only with boxo's debug flag, which hashes again
	}
	return blk
}

// appendLink appends a PBLink to a PBNode. name, the empty one too, and tsize are always written, as all
// implementations of the profile do.
func appendLink(b []byte, c []byte, prefix, name string, tsize uint64) []byte {
	nameBytes := len(prefix) + len(name)
	size := 1 + protowire.SizeBytes(len(c)) + 1 + protowire.SizeBytes(nameBytes) + 1 + protowire.SizeVarint(tsize)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, c)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(nameBytes))
	b = append(append(b, prefix...), name...)
	b = protowire.AppendTag(b, 3, protowire.VarintType)
	return protowire.AppendVarint(b, tsize)
}

// linkBytes is the length of what appendLink appends.
func linkBytes(cidBytes, nameBytes int, tsize uint64) int {
	size := 1 + protowire.SizeBytes(cidBytes) + 1 + protowire.SizeBytes(nameBytes) + 1 + protowire.SizeVarint(tsize)
	return 1 + protowire.SizeBytes(size)
}

// appendData appends the Data field that ends a PBNode.
func appendData(b, data []byte) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	return protowire.AppendBytes(b, data)
}

// appendKind begins a UnixFS Data message.
func appendKind(b []byte, kind pb.Data_DataType) []byte {
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(kind))
}

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// appendMeta ends a UnixFS Data message.
func appendMeta(b []byte, m Meta) []byte {
	const bits = os.ModePerm | os.ModeSetuid | os.ModeSetgid | os.ModeSticky
	if m.HasMode || m.Mode&bits != 0 {
		b = appendNumber(b, 7, uint64(files.ModePermsToUnixPerms(m.Mode&bits)))
	}
	if m.ModTime.IsZero() {
		return b
	}
	t := appendNumber(nil, 1, uint64(m.ModTime.Unix()))
	if ns := m.ModTime.Nanosecond(); ns > 0 {
		t = protowire.AppendTag(t, 2, protowire.Fixed32Type)
		t = protowire.AppendFixed32(t, uint32(ns))
	}
	b = protowire.AppendTag(b, 8, protowire.BytesType)
	return protowire.AppendBytes(b, t)
}

// meta returns what of m is to be stored.
func (b *Builder) meta(m Meta) Meta {
	if !b.cfg.Preserve {
		return Meta{}
	}
	// A time outside the years 1 to 9999 has no form in UnixFS.
	if y := m.ModTime.UTC().Year(); y < 1 || y > 9999 {
		m.ModTime = time.Time{}
	}
	return m
}

// fileNode encodes the node of a file above children.
func fileNode(children []child, m Meta) (blocks.Block, child) {
	var total child
	raw := make([]byte, 0, len(children)*60+64)
	for _, c := range children {
		raw = appendLink(raw, c.cid.Bytes(), "", "", c.dagBytes)
		total.bytes += c.bytes
		total.dagBytes += c.dagBytes
	}
	data := appendKind(make([]byte, 0, len(children)*5+48), pb.Data_File)
	data = appendNumber(data, 3, total.bytes)
	for _, c := range children {
		data = appendNumber(data, 4, c.bytes)
	}
	raw = appendData(raw, appendMeta(data, m))
	blk := newBlock(cid.DagProtobuf, raw)
	total.cid = blk.Cid()
	total.dagBytes += uint64(len(raw))
	return blk, total
}

// symlinkNode encodes a symbolic link. Of its metadata only the time is kept: no system lets its mode be set, and other
// implementations leave it out.
func symlinkNode(target string, m Meta) blocks.Block {
	m.Mode, m.HasMode = 0, false
	data := appendKind(nil, pb.Data_Symlink)
	data = protowire.AppendTag(data, 2, protowire.BytesType)
	data = protowire.AppendString(data, target)
	return newBlock(cid.DagProtobuf, appendData(nil, appendMeta(data, m)))
}

// dirData encodes the Data message of a plain directory.
func dirData(m Meta) []byte { return appendMeta(appendKind(nil, pb.Data_Directory), m) }

// shardData encodes the Data message of a HAMT shard; field has bit i at byte len-1-i/8.
func shardData(field []byte, m Meta) []byte {
	for len(field) > 0 && field[0] == 0 {
		field = field[1:]
	}
	data := appendKind(make([]byte, 0, len(field)+48), pb.Data_HAMTShard)
	data = protowire.AppendTag(data, 2, protowire.BytesType)
	data = protowire.AppendBytes(data, field)
	data = appendNumber(data, 5, 0x22) // murmur3-x64-64
	data = appendNumber(data, 6, shardWidth)
	return appendMeta(data, m)
}
