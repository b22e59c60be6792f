package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfastfs/holdfast/test/swarm"
)

const (
	smallFile   = 10 << 10 // bytes of each file of the tree
	filesPerDir = 100
)

// fixtures are what rows share, each made when a row first asks for it.
type fixtures struct {
	big, tree      string // sources on the native file system
	home           *swarm.Node
	bigCID         string
	treeCID        string
	manifest       string            // of the big file
	holders        map[string]string // addresses, by the columns of it that they keep
	mounts         map[string]string // by CID and flags
	nodes, scratch int               // made so far, for their names
}

// big is a native file of random bytes, of -size.
func (b *bench) big() string {
	if b.share.big == "" {
		path := b.swarm.Path("source", "big")
		b.swarm.Mkdir("source")
		b.must(writeRandom(path, b.opt.size, 1), "write the big file")
		b.share.big = path
	}
	return b.share.big
}

// tree is a native directory of -files small files of random bytes.
func (b *bench) tree() string {
	if b.share.tree == "" {
		root := b.swarm.Path("source", "tree")
		b.must(writeTree(root, b.opt.files), "write the tree")
		b.share.tree = root
	}
	return b.share.tree
}

// treeFiles are the paths of the tree's files below root.
func (b *bench) treeFiles(root string) []string {
	paths := make([]string, b.opt.files)
	for i := range paths {
		paths[i] = treePath(root, i)
	}
	return paths
}

func treePath(root string, i int) string {
	return filepath.Join(root, fmt.Sprintf("d%04d", i/filesPerDir), fmt.Sprintf("f%06d", i))
}

func writeTree(root string, files int) error {
	for i := range files {
		path := treePath(root, i)
		if i%filesPerDir == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		if err := writeRandom(path, smallFile, uint64(i)+2); err != nil {
			return err
		}
	}
	return nil
}

// writeRandom writes n bytes, the same for the same seed.
func writeRandom(path string, n int64, seed uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	buf := make([]byte, min(n, 1<<20))
	for n > 0 {
		p := buf[:min(n, int64(len(buf)))]
		src.Read(p)
		if _, err := f.Write(p); err != nil {
			return err
		}
		n -= int64(len(p))
	}
	return f.Close()
}

// home is the node that has added the sources; the others fetch from it.
func (b *bench) home() *swarm.Node {
	if b.share.home == nil {
		b.share.home = b.start("home")
	}
	return b.share.home
}

// start runs a node with an empty repository, watched until it ends.
func (b *bench) start(name string) *swarm.Node {
	n := b.swarm.Start(name)
	b.watch.add(n.Name, n.Pid())
	return n
}

// empty is a new node that has nothing and knows nobody. It is to be discarded.
func (b *bench) empty() *swarm.Node {
	b.share.nodes++
	return b.start(fmt.Sprintf("node%d", b.share.nodes))
}

// fresh is an empty node connected to home.
func (b *bench) fresh() *swarm.Node {
	home := b.home()
	n := b.empty()
	n.Connect(home)
	return n
}

// restart stops a node and runs it again, so that it has its store and nothing
// in memory.
func (b *bench) restart(n *swarm.Node) {
	b.watch.remove(n.Name)
	n.Stop()
	n.Start()
	b.watch.add(n.Name, n.Pid())
}

// discard stops a node and removes its repository.
func (b *bench) discard(n *swarm.Node) {
	b.watch.remove(n.Name)
	n.Stop()
	b.must(os.RemoveAll(n.Repo), "remove the repository of "+n.Name)
}

// add imports path and returns its CID.
func (b *bench) add(n *swarm.Node, path string) string {
	return strings.TrimSpace(b.output(n.Command("add", "-q", path)))
}

// bigAt is the CID of the big file, which home has.
func (b *bench) bigAt() string {
	if b.share.bigCID == "" {
		b.share.bigCID = b.add(b.home(), b.big())
	}
	return b.share.bigCID
}

// treeAt is the CID of the tree, which home has.
func (b *bench) treeAt() string {
	if b.share.treeCID == "" {
		b.share.treeCID = b.add(b.home(), b.tree())
	}
	return b.share.treeCID
}

// mountedBig is the big file in a mount of home.
func (b *bench) mountedBig(flags ...string) string {
	cid := b.bigAt()
	return filepath.Join(b.mounted(cid, flags...), cid)
}

// mountedTree is the tree in a mount of home.
func (b *bench) mountedTree() string { return b.mounted(b.treeAt()) }

// mounted is home's mount of cid with flags.
func (b *bench) mounted(cid string, flags ...string) string {
	key := strings.Join(append(flags, cid), " ")
	if b.share.mounts == nil {
		b.share.mounts = make(map[string]string)
	}
	dir, ok := b.share.mounts[key]
	if !ok {
		dir = b.home().Mount(fmt.Sprintf("home.mnt%d", len(b.share.mounts)), cid, flags...)
		b.share.mounts[key] = dir
	}
	return dir
}

// scratch is a path below the scratch directory that nobody has used.
func (b *bench) scratch() string {
	b.share.scratch++
	b.swarm.Mkdir("out")
	return b.swarm.Path("out", fmt.Sprint(b.share.scratch))
}
