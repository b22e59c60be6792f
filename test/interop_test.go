package test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/test/swarm"
)

var uio2025 = uio.UnixFS_v1_2025

// TestBoxoFetchesFromHoldfast lets boxo's client read two of our nodes: every
// kind of request and answer crosses the wire.
func TestBoxoFetchesFromHoldfast(t *testing.T) {
	s := swarm.New(t)
	a, c := s.Start("a"), s.Start("c")
	tree := s.ManyFiles(4000, "tree") // a HAMT
	big := s.RandomFile(24<<20, 11, "tree", "big")
	root := a.Add(tree)
	if again := c.Add(tree); again != root {
		t.Fatalf("two nodes add one tree as %s and %s", root, again)
	}

	node := startBoxo(t, newBoxoDAG(t, uio2025))
	node.connect(a)
	node.connect(c)
	ctx, cancel := context.WithTimeout(t.Context(), swarm.Patience)
	defer cancel()
	if err := merkledag.FetchGraph(ctx, cid.MustParse(root), node.online); err != nil {
		t.Fatalf("boxo fetches the DAG: %v", err)
	}
	if got, want := node.read(ctx, root, "big"), s.SHA256(big); got != want {
		t.Errorf("boxo reads a file with hash %s, want %s", got, want)
	}

	// What nobody has is answered with dont-have, and taken back by a cancel; boxo
	// asks for that word only of peers that have served the session.
	session := node.bitswap.NewSession(ctx)
	node.forget(ctx, root)
	if _, err := session.GetBlock(ctx, cid.MustParse(root)); err != nil {
		t.Fatalf("boxo fetches the root: %v", err)
	}
	lost, stop := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		session.GetBlock(lost, missingCID(1))
	}()
	s.Eventually("boxo is told dont-have", func() bool { _, received := node.counts.now(); return received.dontHave > 0 })
	stop()
	<-gone
	s.Eventually("every kind has crossed the wire", func() bool { return missing(node.counts.now()) == "" })
	sent, received := node.counts.now()
	t.Logf("boxo sent %+v, received %+v", sent, received)
}

// TestHoldfastFetchesFromBoxo reads DAGs of every make from two boxo nodes, by
// get and through the mount.
func TestHoldfastFetchesFromBoxo(t *testing.T) {
	s := swarm.New(t)
	tree := s.Mkdir("tree")
	s.RandomFile(5<<20+12345, 21, "tree", "big")
	s.RandomFile(300, 22, "tree", "small")
	s.RandomFile(0, 23, "tree", "empty")
	s.MustSh(`ln -s big "$1/link"; mkdir "$1/sub"; cp "$1/small" "$1/sub/copy"`, tree)

	dags := everyMake(t, tree)
	v1 := dags[0].dag
	// A root too long to be given in answer to a want-have.
	long := v1.tree(s.RandomFile(800_000, 24, "long")).Cid().String()
	first, second := startBoxo(t, v1), startBoxo(t, newBoxoDAG(t, uio2025))
	for _, d := range dags {
		copyBlocks(t, d.dag, first.dag)
		copyBlocks(t, d.dag, second.dag)
	}
	b := s.Start("b")
	b.Must("connect", addressOf(t, first.host), addressOf(t, second.host))
	b.Must("get", long, "-o", s.Path("long again"))
	s.MustSh(`cmp "$1" "$2"`, s.Path("long"), s.Path("long again"))
	all := b.Mount("all", "")
	for _, d := range dags {
		out := s.Path("out of " + d.name)
		b.Must("get", d.root.String(), "-o", out)
		s.MustSh(`diff -r --no-dereference "$1" "$2"`, tree, out)
		s.MustSh(`diff -r --no-dereference "$1" "$2"`, tree, filepath.Join(all, d.root.String()))
	}

	lost := s.Spawn(b.Command("cat", missingCID(2).String()))
	s.Eventually("both say dont-have", func() bool {
		one, _ := first.counts.now()
		two, _ := second.counts.now()
		return one.dontHave > 0 && two.dontHave > 0
	})
	lost.Signal(syscall.SIGINT)
	if code := lost.Wait(swarm.Patience); code != 130 {
		t.Errorf("cat interrupted ended with code %d, want 130: %s", code, lost.Err())
	}
	both := func() (asked, answered kinds) {
		sent1, received1 := first.counts.now()
		sent2, received2 := second.counts.now()
		return received1.plus(received2), sent1.plus(sent2)
	}
	t.Cleanup(func() { t.Logf("never crossed the wire: %q", missing(both())) })
	s.Eventually("every kind has crossed the wire", func() bool { return missing(both()) == "" })
	asked, answered := both()
	t.Logf("boxo was asked %+v, answered %+v", asked, answered)
}

// madeDAG is a tree as some other implementation might have imported it.
type madeDAG struct {
	name string
	dag  *boxoDAG
	root cid.Cid
}

// everyMake imports a tree in all layouts there are, as CIDv0 and CIDv1. The
// first is what holdfast itself would make.
func everyMake(t *testing.T, tree string) []madeDAG {
	t.Helper()
	// Narrow nodes and short chunks make deep DAGs of small files.
	narrow0, narrow1 := uio.UnixFS_v0_2015, uio2025
	narrow0.FileDAGWidth, narrow0.ChunkSize = 5, 64<<10
	narrow1.FileDAGWidth, narrow1.ChunkSize = 5, 100_000
	v1, v1Trickle := newBoxoDAG(t, uio2025), newBoxoDAG(t, narrow1)
	v0, v0Trickle := newBoxoDAG(t, narrow0), newBoxoDAG(t, narrow0)
	v1Trickle.trickle, v0Trickle.trickle = true, true
	sharded := newBoxoDAG(t, uio.UnixFS_v0_2015)
	return []madeDAG{
		{"CIDv1, raw leaves", v1, v1.tree(tree).Cid()},
		{"CIDv0, dag-pb leaves", v0, v0.tree(tree).Cid()},
		{"trickle, raw leaves", v1Trickle, v1Trickle.tree(tree).Cid()},
		{"trickle, dag-pb leaves", v0Trickle, v0Trickle.tree(tree).Cid()},
		{"HAMT, CIDv0", sharded, sharded.shards(tree).Cid()},
	}
}

// shards imports a directory with its own level as a HAMT.
func (b *boxoDAG) shards(dir string) interface{ Cid() cid.Cid } {
	b.t.Helper()
	found, err := os.ReadDir(dir)
	must(b.t, err)
	var entries []named
	for _, e := range found {
		entries = append(entries, named{e.Name(), b.tree(filepath.Join(dir, e.Name()))})
	}
	return b.hamt(entries...)
}

// forget drops a block of the blockstore.
func (n *boxoNode) forget(ctx context.Context, c string) {
	n.t.Helper()
	must(n.t, n.dag.bs.DeleteBlock(ctx, cid.MustParse(c)))
}

// read hashes a file of a directory with boxo's reader.
func (n *boxoNode) read(ctx context.Context, root, name string) string {
	n.t.Helper()
	node, err := n.online.Get(ctx, cid.MustParse(root))
	must(n.t, err)
	dir, err := uio.NewDirectoryFromNode(n.online, node)
	must(n.t, err)
	file, err := dir.Find(ctx, name)
	must(n.t, err)
	r, err := uio.NewDagReader(ctx, file, n.online)
	must(n.t, err)
	defer r.Close()
	return hashAll(n.t, r)
}

func copyBlocks(t *testing.T, from, to *boxoDAG) {
	t.Helper()
	if from == to {
		return
	}
	keys, err := from.bs.AllKeysChan(t.Context())
	must(t, err)
	for k := range keys {
		// The blockstore lists multihashes: the codec is of no matter to it.
		block, err := from.bs.Get(t.Context(), k)
		must(t, err)
		must(t, to.bs.Put(t.Context(), block))
	}
}

// missingCID is the CID of a raw block that exists nowhere.
func missingCID(i byte) cid.Cid {
	sum, err := mh.Sum([]byte{0xff, 'n', 'o', 'w', 'h', 'e', 'r', 'e', i}, mh.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, sum)
}
