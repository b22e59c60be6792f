package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	ft "github.com/ipfs/boxo/ipld/unixfs"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestSpecialFiles adds a tree with a pipe, a socket and a device: they are
// skipped with a warning each, and --strict refuses the tree.
func TestSpecialFiles(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	tree := s.ManyFiles(3, "tree")
	s.MustSh(`cd "$1"; mkfifo pipe; mknod null c 1 3; mkdir sub; mkfifo sub/pipe`, tree)
	listen(t, tree+"/socket")
	p := s.Spawn(n.Command("add", "-q", tree))
	if code := p.Wait(patience); code != 0 {
		t.Fatalf("add ended with code %d: %s", code, p.Err())
	}
	for _, name := range []string{"tree/pipe", "null", "sub/pipe", "socket"} {
		if !strings.Contains(p.Err(), name) {
			t.Errorf("no warning names %s: %s", name, p.Err())
		}
	}
	if lines := strings.Count(p.Err(), "\n"); lines != 4 {
		t.Errorf("%d lines of warnings for 4 files: %s", lines, p.Err())
	}
	plain := s.ManyFiles(3, "plain")
	s.Mkdir("plain", "sub")
	if got, want := strings.TrimSpace(p.Out()), n.Add(plain); got != want {
		t.Errorf("the tree was added as %s, without the special files it is %s", got, want)
	}
	out, err := n.Run("add", "-q", "--strict", tree)
	if err == nil || strings.TrimSpace(out) != "" {
		t.Errorf("--strict printed %q, %v", out, err)
	}
	refused(t, n, 1, []string{"pipe"}, "add", tree+"/pipe")
}

// TestNamesThatAreNotUTF8 adds names of any bytes: they come back as they were,
// or are left out with a warning; what is beside them is kept.
func TestNamesThatAreNotUTF8(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	tree := s.ManyFiles(3, "tree")
	must(t, os.WriteFile(filepath.Join(tree, "odd\xff\xfename"), []byte("odd"), 0o644))
	p := s.Spawn(n.Command("add", "-q", tree))
	if code := p.Wait(patience); code != 0 {
		t.Fatalf("add ended with code %d: %s", code, p.Err())
	}
	m := n.Mount("m", strings.TrimSpace(p.Out()))
	s.MustSh(`test "$(cat "$1/entry-0000002")" = 2`, m)
	kept := strings.TrimSpace(s.MustSh(`cat "$1/"odd*name 2> /dev/null || true`, m)) == "odd"
	warned := strings.Contains(p.Err(), "name")
	if kept == warned {
		t.Errorf("the odd name is kept (%v) and warned of (%v): one of the two is wanted. %s", kept, warned, p.Err())
	}
	if _, err := n.Run("add", "-q", "--strict", tree); kept != (err == nil) {
		t.Errorf("add --strict: %v", err)
	}
}

// TestAwkwardNames adds names that are legal and rarely met.
func TestAwkwardNames(t *testing.T) {
	s, a, b := near(t)
	tree := s.Mkdir("tree")
	for _, name := range []string{" ", "new\nline", "-rf", "*", `back\slash`, "ünï", "tab\t", "...", strings.Repeat("x", 255), "%41", "a:b", "Qm"} {
		must(t, os.WriteFile(filepath.Join(tree, name), []byte(name), 0o644))
	}
	root := a.Add(tree)
	if want := newBoxoDAG(t, uio2025).tree(tree).Cid().String(); root != want {
		t.Errorf("added as %s, boxo says %s", root, want)
	}
	s.MustSh(`diff -r "$1" "$2"`, tree, b.Mount("m", root))
	b.Must("get", root, "-o", s.Path("out"))
	s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("out"))
}

// TestHostileDAGs reads directories and files that no honest program makes: the
// good among them is read, the bad is an error, and nothing leaves its place.
func TestHostileDAGs(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	b := s.Start("b")
	dag := newBoxoDAG(t, uio2025)
	leaf := dag.bytes([]byte("good"))
	names := merkledag.NodeWithData(ft.FolderPBData())
	names.SetCidBuilder(uio2025.CidBuilder())
	for _, name := range []string{"good", "", ".", "..", "a/b", "../../escaped", "nul\x00byte", strings.Repeat("y", 256)} {
		must(t, names.AddNodeLink(name, leaf))
	}
	dag.add(names)
	liars := dag.dir(named{"good", leaf}, named{"longer", dag.lying(leaf, 5)}, named{"shorter", dag.lying(leaf, 3)},
		named{"huge", dag.lying(leaf, 1<<62)}, named{"names", names}, named{"deep", dag.deep(leaf, 500)}, named{"rubbish", dag.rubbish()})
	boxo := startBoxo(t, dag)
	boxo.connect(b)
	m := b.Mount("m", liars.Cid().String(), "--timeout", "5s")
	s.MustSh(`test "$(cat "$1/good")" = good; test "$(cat "$1/names/good")" = good; test "$(ls -A "$1/names" | wc -l)" = 1`, m)
	for _, name := range []string{"longer", "shorter", "huge", "deep", "rubbish"} {
		if out, err := s.Sh(`cat "$1"`, m+"/"+name); err == nil || !strings.Contains(err.Error(), "Input/output error") {
			t.Errorf("%s reads %q, %v; want an input/output error", name, out, err)
		}
		if _, err := b.Run("cat", "--timeout", "5s", liars.Cid().String()+"/"+name); err == nil {
			t.Errorf("cat %s succeeded", name)
		}
	}
	b.Run("get", "--timeout", "5s", names.Cid().String(), "-o", s.Path("out", "deep", "down"))
	if left := strings.TrimSpace(s.MustSh(`find "$1" -xdev -name '*escaped*'`, s.Dir)); left != "" {
		t.Errorf("get was led out of its directory: %s", left)
	}
	s.MustSh(`test "$(cat "$1/good")" = good`, m)
	if rss := b.RssAnon(); rss > 400<<20 {
		t.Errorf("hostile DAGs grew the node to %d MiB", rss>>20)
	}
}

// lying makes a file of one leaf that declares another length.
func (b *boxoDAG) lying(leaf ipld.Node, declared uint64) ipld.Node {
	b.t.Helper()
	fsn := ft.NewFSNode(ft.TFile)
	fsn.AddBlockSize(declared)
	data, err := fsn.GetBytes()
	must(b.t, err)
	return b.node(data, leaf)
}

// deep makes a file whose one leaf lies below many inner nodes.
func (b *boxoDAG) deep(leaf ipld.Node, levels int) ipld.Node {
	node := leaf
	for range levels {
		node = b.lying(node, 4)
	}
	return node
}

// rubbish is a dag-pb node whose data is no UnixFS.
func (b *boxoDAG) rubbish() ipld.Node { return b.node([]byte("\xff\xff rubbish")) }

func (b *boxoDAG) node(data []byte, children ...ipld.Node) ipld.Node {
	b.t.Helper()
	node := merkledag.NodeWithData(data)
	node.SetCidBuilder(b.profile.CidBuilder())
	for _, c := range children {
		must(b.t, node.AddNodeLink("", c))
	}
	b.add(node)
	return node
}
