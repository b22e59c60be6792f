package unixfs

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
)

const (
	maxNodeBytes   = 2 << 20 // of an inner node or directory block
	maxFileDepth   = 64      // inner levels of a file
	maxShardDepth  = 32      // levels of a HAMT
	maxShardBytes  = 1 << 19 // of a HAMT shard's block: 1,024 names of 255 bytes fit
	maxTargetBytes = 4095    // of a symbolic link
)

// dagNode is a decoded and checked dag-pb UnixFS node. It is immutable and may be shared.
type dagNode struct {
	pbNode
	kind    pb.Data_DataType
	content []byte // the Data field of UnixFS: bytes of a file, a bitfield, a link's target
	hasMode bool
	mode    uint32
	modTime time.Time

	size uint64   // files: bytes below this node, as declared
	ends []uint64 // files: where each child ends, from the start of this node

	shard shardShape // HAMT shards

	order []uint32 // plain directories whose links are unsorted: links by name, equal names in link order
}

// decodeNode decodes a dag-pb block that should be UnixFS. What it returns refers to raw.
func decodeNode(raw []byte) (*dagNode, error) {
	p, err := decodePB(raw)
	if err != nil {
		return nil, corrupt(err)
	}
	if !p.hasData {
		return nil, corrupt(errNoType)
	}
	d, err := decodeFS(p.data, len(p.links))
	if err != nil {
		return nil, corrupt(err)
	}
	n := &dagNode{pbNode: p, kind: d.kind, content: d.data, hasMode: d.hasMode, mode: d.mode, modTime: d.modTime()}
	switch d.kind {
	case pb.Data_Raw, pb.Data_File:
		err = n.setFile(&d)
	case pb.Data_Directory:
		n.sortNames()
	case pb.Data_HAMTShard:
		err = n.setShard(&d)
	case pb.Data_Symlink:
		if len(d.data) > maxTargetBytes || bytes.IndexByte(d.data, 0) >= 0 {
			err = fmt.Errorf("link target of %d bytes is none that a file system can have", len(d.data))
		}
	default:
		return nil, fmt.Errorf("%w: unixfs type %s", ErrUnsupported, d.kind)
	}
	if err != nil {
		return nil, corrupt(err)
	}
	return n, nil
}

// setFile checks that the sizes add up and sums them.
func (n *dagNode) setFile(d *fsData) error {
	if len(d.blockSizes) != len(n.links) {
		return fmt.Errorf("%d block sizes for %d links", len(d.blockSizes), len(n.links))
	}
	sum := uint64(len(n.content))
	n.ends = d.blockSizes // summed in place: d is ours
	for i, s := range d.blockSizes {
		if s > math.MaxInt64-sum {
			return fmt.Errorf("block sizes sum past %d", int64(math.MaxInt64))
		}
		sum += s
		n.ends[i] = sum
	}
	if d.hasSize && d.size != sum {
		return fmt.Errorf("file size %d declared, block sizes sum to %d", d.size, sum)
	}
	n.size = sum
	return nil
}

// child returns the index of the child that holds the byte at off, which must be inside the children.
func (n *dagNode) child(off uint64) int {
	return sort.Search(len(n.ends), func(i int) bool { return n.ends[i] > off })
}

// childStart returns where child i begins, from the start of this node.
func (n *dagNode) childStart(i int) uint64 {
	if i == 0 {
		return uint64(len(n.content))
	}
	return n.ends[i-1]
}

// sortNames makes the index by name, unless the links are in that order already, as encoders should leave them.
func (n *dagNode) sortNames() {
	sorted := true
	var last []byte
	for i := range n.links {
		name := n.link(i).name
		if i > 0 && bytes.Compare(last, name) > 0 {
			sorted = false
			break
		}
		last = name
	}
	if sorted {
		return
	}
	n.order = make([]uint32, len(n.links))
	for i := range n.order {
		n.order[i] = uint32(i)
	}
	slices.SortStableFunc(n.order, func(a, b uint32) int {
		return bytes.Compare(n.link(int(a)).name, n.link(int(b)).name)
	})
}

// byName returns the first link called name.
func (n *dagNode) byName(name []byte) (int, bool) {
	at := func(i int) int {
		if n.order != nil {
			return int(n.order[i])
		}
		return i
	}
	i := sort.Search(len(n.links), func(i int) bool { return bytes.Compare(n.link(at(i)).name, name) >= 0 })
	if i == len(n.links) || !bytes.Equal(n.link(at(i)).name, name) {
		return 0, false
	}
	return at(i), true
}

// cost is the memory the node holds, in bytes.
func (n *dagNode) cost() int64 {
	return int64(cap(n.raw)) + int64(cap(n.links)+cap(n.order))*4 + int64(cap(n.ends))*8 + 256
}

// owned returns the node with a copy of its block, so that keeping it keeps nothing of the block cache alive.
func (n *dagNode) owned() *dagNode {
	c := *n
	c.raw = bytes.Clone(n.raw)
	c.data = rebase(n.raw, c.raw, n.data)
	c.content = rebase(n.raw, c.raw, n.content)
	return &c
}

// rebase returns the part of to that lies where part lies in from.
func rebase(from, to, part []byte) []byte {
	if len(part) == 0 {
		return nil
	}
	at := cap(from) - cap(part)
	return to[at : at+len(part)]
}

func corrupt(err error) error { return fmt.Errorf("%w: %w", ErrCorrupt, err) }

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}

// isFile reports whether the node is a file or a part of one.
func (n *dagNode) isFile() bool { return n.kind == pb.Data_File || n.kind == pb.Data_Raw }
