package fs

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

const leafBytes = 1 << 20

// builder makes DAGs in a fake, with boxo.
type builder struct {
	f *fake
}

func (b builder) must(err error) {
	if err != nil {
		panic(err)
	}
}

// file makes a file: one raw block, or a balanced tree over raw leaves.
func (b builder) file(data []byte) ipld.Node {
	if len(data) <= leafBytes {
		n, err := merkledag.NewRawNodeWPrefix(data, cid.V1Builder{Codec: cid.Raw, MhType: 0x12, MhLength: -1})
		b.must(err)
		b.must(b.f.Add(context.Background(), n))
		return n
	}
	p := helpers.DagBuilderParams{Maxlinks: 174, RawLeaves: true, Dagserv: dagService{b.f},
		CidBuilder: cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12, MhLength: -1}}
	h, err := p.New(chunk.NewSizeSplitter(bytes.NewReader(data), leafBytes))
	b.must(err)
	n, err := balanced.Layout(h)
	b.must(err)
	return n
}

// withMeta makes a small file that carries mode and time.
func (b builder) withMeta(data []byte, mode os.FileMode, mtime time.Time) ipld.Node {
	fsn := unixfs.NewFSNode(unixfs.TFile)
	fsn.SetData(data)
	fsn.SetMode(mode)
	fsn.SetModTime(mtime)
	raw, err := fsn.GetBytes()
	b.must(err)
	return b.pb(raw)
}

func (b builder) pb(data []byte) ipld.Node {
	n := merkledag.NodeWithData(data)
	b.must(n.SetCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12, MhLength: -1}))
	b.must(b.f.Add(context.Background(), n))
	return n
}

func (b builder) symlink(target string) ipld.Node {
	data, err := unixfs.SymlinkData(target)
	b.must(err)
	return b.pb(data)
}

// dir makes a directory, a HAMT if it is big.
func (b builder) dir(children map[string]ipld.Node) ipld.Node {
	ctx := context.Background()
	d, err := uio.NewDirectory(dagService{b.f}, uio.WithCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12, MhLength: -1}))
	b.must(err)
	for name, n := range children {
		b.must(d.AddChild(ctx, name, n))
	}
	n, err := d.GetNode()
	b.must(err)
	b.must(b.f.Add(ctx, n))
	return n
}

// numbered makes a directory of n small files of size bytes each, f00000 and so on.
func (b builder) numbered(n, size int) ipld.Node {
	children := make(map[string]ipld.Node, n)
	for i := range n {
		children[fmt.Sprintf("f%05d", i)] = b.file(random(size, uint64(i)))
	}
	return b.dir(children)
}

// random is the same for the same seed.
func random(n int, seed uint64) []byte {
	var s [32]byte
	s[0], s[1], s[2], s[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(n)
	out := make([]byte, n)
	rand.NewChaCha8(s).Read(out)
	return out
}
