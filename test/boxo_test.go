package test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	ft "github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
)

// boxoDAG is the other implementation: boxo's own importer over a blockstore in
// memory.
type boxoDAG struct {
	t       *testing.T
	bs      blockstore.Blockstore
	dag     ipld.DAGService
	profile uio.UnixFSProfile
	trickle bool
}

func newBoxoDAG(t *testing.T, profile uio.UnixFSProfile) *boxoDAG {
	return boxoOver(t, profile, dssync.MutexWrap(ds.NewMapDatastore()))
}

// newBoxoHasher computes CIDs and forgets the blocks.
func newBoxoHasher(t *testing.T) *boxoDAG {
	return boxoOver(t, uio.UnixFS_v1_2025, ds.NewNullDatastore())
}

func boxoOver(t *testing.T, profile uio.UnixFSProfile, d ds.Batching) *boxoDAG {
	bs := blockstore.NewBlockstore(d)
	return &boxoDAG{t: t, bs: bs, dag: merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs))), profile: profile}
}

// file imports what r gives.
func (b *boxoDAG) file(r io.Reader) ipld.Node {
	b.t.Helper()
	params := helpers.DagBuilderParams{
		Dagserv:    b.dag,
		Maxlinks:   b.profile.FileDAGWidth,
		RawLeaves:  b.profile.RawLeaves,
		CidBuilder: b.profile.CidBuilder(),
	}
	builder, err := params.New(chunk.NewSizeSplitter(r, b.profile.ChunkSize))
	if err != nil {
		b.t.Fatal(err)
	}
	layout := balanced.Layout
	if b.trickle {
		layout = trickle.Layout
	}
	node, err := layout(builder)
	if err != nil {
		b.t.Fatal(err)
	}
	return node
}

func (b *boxoDAG) bytes(p []byte) ipld.Node { return b.file(bytes.NewReader(p)) }

// symlink makes the node of a symbolic link.
func (b *boxoDAG) symlink(target string) ipld.Node {
	b.t.Helper()
	data, err := ft.SymlinkData(target)
	if err != nil {
		b.t.Fatal(err)
	}
	node := merkledag.NodeWithData(data)
	node.SetCidBuilder(b.profile.CidBuilder())
	b.add(node)
	return node
}

// named is an entry of a directory.
type named struct {
	name string
	node ipld.Node
}

// dir makes a directory that becomes a HAMT where the profile says so.
func (b *boxoDAG) dir(entries ...named) ipld.Node {
	b.t.Helper()
	dir, err := uio.NewDirectory(b.dag, uio.WithCidBuilder(b.profile.CidBuilder()),
		uio.WithMaxHAMTFanout(b.profile.HAMTShardWidth), uio.WithSizeEstimationMode(b.profile.HAMTSizeEstimation))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.fill(dir, entries)
}

// hamt makes a sharded directory of whatever size.
func (b *boxoDAG) hamt(entries ...named) ipld.Node {
	b.t.Helper()
	dir, err := uio.NewHAMTDirectory(b.dag, 0, uio.WithCidBuilder(b.profile.CidBuilder()),
		uio.WithMaxHAMTFanout(b.profile.HAMTShardWidth))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.fill(dir, entries)
}

func (b *boxoDAG) fill(dir uio.Directory, entries []named) ipld.Node {
	b.t.Helper()
	for _, e := range entries {
		if err := dir.AddChild(context.Background(), e.name, e.node); err != nil {
			b.t.Fatal(err)
		}
	}
	node, err := dir.GetNode()
	if err != nil {
		b.t.Fatal(err)
	}
	b.add(node)
	return node
}

// tree imports a path recursively.
func (b *boxoDAG) tree(path string) ipld.Node {
	b.t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		b.t.Fatal(err)
	}
	switch {
	case info.IsDir():
		var entries []named
		found, err := os.ReadDir(path)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, e := range found {
			entries = append(entries, named{e.Name(), b.tree(filepath.Join(path, e.Name()))})
		}
		return b.dir(entries...)
	case info.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			b.t.Fatal(err)
		}
		return b.symlink(target)
	}
	f, err := os.Open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	return b.file(f)
}

func (b *boxoDAG) add(node ipld.Node) {
	b.t.Helper()
	if err := b.dag.Add(context.Background(), node); err != nil {
		b.t.Fatal(err)
	}
}
