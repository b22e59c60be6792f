package dataset

import (
	"crypto/sha256"
	"os"
	"time"

	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/unixfs/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfastfs/holdfast/uploader/dag"
)

// Encoding of the nodes that change in place, as dag.Builder encodes them: shards of directories, and the metadata of
// files.

const shardingBytes = 256 << 10 // a directory block longer than this becomes a HAMT

const permissions = os.ModePerm | os.ModeSetuid | os.ModeSetgid | os.ModeSticky

// meta is what is kept of an inode. A time outside the years 1 to 9999 has no form in UnixFS.
func meta(mode os.FileMode, modTime int64) dag.Meta {
	return dag.Meta{Mode: mode & permissions, HasMode: true, ModTime: time.Unix(0, modTime)}
}

// shownBytes is the length of an entry's link in a plain directory.
func shownBytes(name string, l dag.Link) uint64 {
	if !l.CID.Defined() {
		return 0
	}
	size := 1 + protowire.SizeBytes(l.CID.ByteLen()) + 1 + protowire.SizeBytes(len(name)) + 1 + protowire.SizeVarint(l.Bytes)
	return uint64(1 + protowire.SizeBytes(size))
}

// dirDataBytes is the length of the Data field of a plain directory.
func dirDataBytes(m dag.Meta) uint64 {
	data := appendMeta(appendKind(nil, pb.Data_Directory), m)
	return uint64(1 + protowire.SizeBytes(len(data)))
}

func appendKind(b []byte, kind pb.Data_DataType) []byte {
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(kind))
}

// appendMeta ends a UnixFS Data message.
func appendMeta(b []byte, m dag.Meta) []byte {
	if m.HasMode {
		b = protowire.AppendTag(b, 7, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(files.ModePermsToUnixPerms(m.Mode)))
	}
	if m.ModTime.IsZero() {
		return b
	}
	t := protowire.AppendTag(nil, 1, protowire.VarintType)
	t = protowire.AppendVarint(t, uint64(m.ModTime.Unix()))
	if ns := m.ModTime.Nanosecond(); ns > 0 {
		t = protowire.AppendTag(t, 2, protowire.Fixed32Type)
		t = protowire.AppendFixed32(t, uint32(ns))
	}
	b = protowire.AppendTag(b, 8, protowire.BytesType)
	return protowire.AppendBytes(b, t)
}

// shardKid is a link of a shard: an entry, or with an empty name a shard.
type shardKid struct {
	index int
	name  string
	link  dag.Link
}

// shardNode encodes a shard and returns it with the bytes of all blocks of its DAG.
func shardNode(kids []shardKid, m dag.Meta) (blocks.Block, uint64) {
	const digits = "0123456789ABCDEF"
	var field [shardWidth / 8]byte
	raw := make([]byte, 0, len(kids)*80+80)
	var size uint64
	for _, k := range kids {
		field[len(field)-1-k.index/8] |= 1 << (k.index % 8)
		link := protowire.AppendTag(nil, 1, protowire.BytesType)
		link = protowire.AppendBytes(link, k.link.CID.Bytes())
		link = protowire.AppendTag(link, 2, protowire.BytesType)
		link = protowire.AppendString(link, string([]byte{digits[k.index>>4], digits[k.index&15]})+k.name)
		link = protowire.AppendTag(link, 3, protowire.VarintType)
		link = protowire.AppendVarint(link, k.link.Bytes)
		raw = protowire.AppendTag(raw, 2, protowire.BytesType)
		raw = protowire.AppendBytes(raw, link)
		size += k.link.Bytes
	}
	bits := field[:]
	for len(bits) > 0 && bits[0] == 0 {
		bits = bits[1:]
	}
	data := protowire.AppendTag(appendKind(nil, pb.Data_HAMTShard), 2, protowire.BytesType)
	data = protowire.AppendBytes(data, bits)
	data = protowire.AppendTag(data, 5, protowire.VarintType)
	data = protowire.AppendVarint(data, 0x22) // murmur3-x64-64
	data = protowire.AppendTag(data, 6, protowire.VarintType)
	data = appendMeta(protowire.AppendVarint(data, shardWidth), m)
	raw = protowire.AppendTag(raw, 1, protowire.BytesType)
	blk := newBlock(protowire.AppendBytes(raw, data))
	return blk, size + uint64(len(blk.RawData()))
}

// withMeta is a file's root node with other metadata, over the same children.
func withMeta(node []byte, m dag.Meta) (blocks.Block, error) {
	var out []byte
	for rest := node; len(rest) > 0; {
		num, typ, n := protowire.ConsumeField(rest)
		if n < 0 || typ != protowire.BytesType {
			return nil, corrupt("decode a file's root")
		}
		if num != 1 {
			out, rest = append(out, rest[:n]...), rest[n:]
			continue
		}
		_, _, tag := protowire.ConsumeTag(rest)
		data, _ := protowire.ConsumeBytes(rest[tag:])
		data, err := withoutMeta(data)
		if err != nil {
			return nil, err
		}
		out = protowire.AppendTag(out, 1, protowire.BytesType)
		out = protowire.AppendBytes(out, appendMeta(data, m))
		rest = rest[n:]
	}
	return newBlock(out), nil
}

// withoutMeta copies a Data message without mode and time.
func withoutMeta(data []byte) ([]byte, error) {
	var out []byte
	for len(data) > 0 {
		num, _, n := protowire.ConsumeField(data)
		if n < 0 {
			return nil, corrupt("decode a file's root")
		}
		if num != 7 && num != 8 {
			out = append(out, data[:n]...)
		}
		data = data[n:]
	}
	return out, nil
}

// newBlock hashes a node, which the block keeps.
func newBlock(raw []byte) blocks.Block {
	blk, err := blocks.NewBlockWithCid(raw, makeCID(cid.DagProtobuf, sha256.Sum256(raw)))
	if err != nil {
		panic(err) // only with boxo's debug flag, which hashes again
	}
	return blk
}
