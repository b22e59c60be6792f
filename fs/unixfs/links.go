package unixfs

import (
	"bytes"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
)

// cborBudget bounds what decoding one dag-cbor block may allocate, in the decoder's units (about bytes).
const cborBudget = 16 << 20

// Links returns the children of block b, which was met as w, in the order of the DAG. Children of a file's nodes carry
// their Place: w without one is taken for the file's root. A file node that lies about sizes has its children listed
// without Places. dag-pb and dag-cbor are understood; blocks of other codecs have no links. The error wraps
// ErrCorrupt.
func Links(w Want, b blocks.Block) ([]Want, error) {
	switch w.CID.Type() {
	case cid.DagProtobuf:
		return pbLinks(w, b.RawData())
	case cid.DagCBOR:
		return cborLinks(w, b.RawData())
	}
	return nil, nil
}

func pbLinks(w Want, raw []byte) ([]Want, error) {
	p, err := decodePB(raw)
	if err != nil {
		return nil, fmt.Errorf("links of %s: %w", w.CID, corrupt(err))
	}
	if len(p.links) == 0 {
		return nil, nil
	}
	file := fileOf(w, raw)
	out := make([]Want, len(p.links))
	for i := range out {
		c, err := castCID(p.link(i).cid)
		if err != nil {
			return nil, fmt.Errorf("links of %s: %w", w.CID, corrupt(err))
		}
		out[i] = Want{CID: c, Dataset: w.Dataset}
		if file != nil {
			out[i].Place = placeOf(w, file, i)
		}
	}
	return out, nil
}

// placeOf is where child i of the file node n lies, which was met as w. What is declared to be empty lies nowhere.
func placeOf(w Want, n *dagNode, i int) Place {
	start := n.childStart(i)
	p := Place{File: w.Place.File, Offset: w.Place.Offset + start, FileBytes: w.Place.FileBytes, Bytes: n.ends[i] - start}
	if !p.File.Defined() {
		p.File, p.FileBytes = w.CID, n.size
	}
	if p.Bytes == 0 {
		return Place{}
	}
	return p
}

// fileOf decodes a node of a file whose sizes fit to each other and to its place, or returns nil.
func fileOf(w Want, raw []byte) *dagNode {
	n, err := decodeNode(raw)
	if err != nil || !n.isFile() {
		return nil
	}
	p := w.Place
	if p.File.Defined() && (p.Offset > p.FileBytes || n.size > p.FileBytes-p.Offset || p.Bytes != 0 && n.size != p.Bytes) {
		return nil
	}
	return n
}

func cborLinks(w Want, raw []byte) ([]Want, error) {
	nb := basicnode.Prototype.Any.NewBuilder()
	opts := dagcbor.DecodeOptions{AllowLinks: true, AllocationBudget: cborBudget}
	if err := opts.Decode(nb, bytes.NewReader(raw)); err != nil {
		return nil, fmt.Errorf("links of %s: %w", w.CID, corrupt(err))
	}
	links, err := traversal.SelectLinks(nb.Build())
	if err != nil {
		return nil, fmt.Errorf("links of %s: %w", w.CID, corrupt(err))
	}
	out := make([]Want, 0, len(links))
	for _, l := range links {
		if c, ok := l.(cidlink.Link); ok {
			out = append(out, Want{CID: c.Cid, Dataset: w.Dataset})
		}
	}
	return out, nil
}
