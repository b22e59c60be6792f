package test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestContentWithoutAMount reads by get, cat, ls and stat.
func TestContentWithoutAMount(t *testing.T) {
	s, a, b := near(t)
	tree := s.ManyFiles(5, "tree")
	big := s.RandomFile(9<<20, 1, "tree", "sub", "big")
	s.MustSh(`ln -s sub/big "$1/link"; : > "$1/empty"`, tree)
	root := a.Add(tree)

	b.Must("get", root, "-o", s.Path("out", "all"))
	s.MustSh(`diff -r --no-dereference "$1" "$2"`, tree, s.Path("out", "all"))
	b.Must("get", root+"/sub/big", "-o", s.Path("out", "big"))
	s.MustSh(`cmp "$1" "$2"`, big, s.Path("out", "big"))
	s.MustSh(`cd "$1"; HOLDFAST_PATH="$2" "$3" get "$4/entry-0000003"; cmp entry-0000003 "$5/entry-0000003"`,
		s.Mkdir("cwd"), b.Repo, s.Bin, root, tree)
	s.MustSh(`HOLDFAST_PATH="$1" "$2" cat "$3/sub/big" | cmp - "$4"`, b.Repo, s.Bin, root, big)
	if got := b.Must("cat", root+"/empty"); got != "" {
		t.Errorf("an empty file reads %q", got)
	}
	ls := b.Must("ls", root)
	for _, name := range []string{"entry-0000000", "entry-0000004", "sub", "link", "empty"} {
		if !strings.Contains(ls, name) {
			t.Errorf("ls has no %s: %s", name, ls)
		}
	}
	var entries []map[string]any
	if err := json.Unmarshal([]byte(b.Must("ls", "--json", root)), &entries); err != nil || len(entries) != 8 {
		t.Errorf("ls --json lists %d entries of 8: %v", len(entries), err)
	}
	if got := b.Must("stat", root+"/sub/big"); !strings.Contains(got, a.Add(big)) {
		t.Errorf("stat does not tell the CID: %s", got)
	}
	var about map[string]any
	if err := json.Unmarshal([]byte(b.Must("stat", "--json", root+"/sub/big")), &about); err != nil {
		t.Errorf("stat --json: %v", err)
	}
	a.Kill()
	b.Must("get", root, "-o", s.Path("out", "again"))
	s.MustSh(`diff -r --no-dereference "$1" "$2"`, tree, s.Path("out", "again"))
}

// TestAddPrints adds several paths, and from a pipe's point of view.
func TestAddPrints(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	one, two := s.WriteFile("one", "one"), s.WriteFile("two", "two")
	lines := strings.Split(n.Must("add", one, two), "\n")
	if len(lines) != 2 || lines[0] != n.Add(one)+"\tone" || lines[1] != n.Add(two)+"\ttwo" {
		t.Errorf("add prints %q", lines)
	}
	if got, want := n.Must("add", "-q", one, two), n.Add(one)+"\n"+n.Add(two); got != want {
		t.Errorf("add -q prints %q, want %q", got, want)
	}
	offline := s.Node("b")
	if got, want := offline.Add(one), n.Add(one); got != want {
		t.Errorf("without a daemon a file is added as %s, want %s", got, want)
	}
	if got := offline.Must("cat", n.Add(one)); got != "one" {
		t.Errorf("without a daemon cat reads %q", got)
	}
}

// TestPinsAndCollection keeps what is pinned and frees the rest.
func TestPinsAndCollection(t *testing.T) {
	s, a, b := near(t)
	kept := s.ManyFiles(30, "kept")
	s.RandomFile(6<<20, 1, "kept", "big")
	loose := s.RandomFile(12<<20, 2, "loose")
	keptRoot, looseRoot := a.Add(kept), a.Add(loose)
	b.Must("pin", keptRoot)
	b.Must("get", looseRoot, "-o", s.Path("got"))
	full := b.Figure(storeBytes)
	b.Must("gc")
	if freed := full - b.Figure(storeBytes); freed < 12<<20 {
		t.Errorf("gc freed %d bytes, the loose file has %d", freed, 12<<20)
	}
	a.Kill()
	b.Must("get", keptRoot, "-o", s.Path("kept again"))
	s.MustSh(`diff -r "$1" "$2"`, kept, s.Path("kept again"))
	b.Must("unpin", keptRoot)
	b.Must("gc")
	if left := b.Figure(storeBytes); left > 1<<20 {
		t.Errorf("after unpin and gc %d bytes are left", left)
	}
	refused(t, b, 1, []string{"pin", keptRoot}, "unpin", keptRoot)
	a.Start()
	b.Must("get", keptRoot, "-o", s.Path("fetched again"))
	s.MustSh(`diff -r "$1" "$2"`, kept, s.Path("fetched again"))
}

// TestQuota reads more through a node than it may keep.
func TestQuota(t *testing.T) {
	s := swarm.New(t)
	a, b := s.Start("a"), s.Start("b", "--quota", "40MiB")
	b.Connect(a)
	pinned := s.RandomFile(12<<20, 1, "pinned")
	pinnedRoot := a.Add(pinned)
	b.Must("pin", pinnedRoot)
	m := b.Mount("m", "")
	for i := range 6 {
		big := s.RandomFile(16<<20, uint64(10+i), "big"+itoa(i))
		s.MustSh(`cmp "$1" "$2/$3"`, big, m, a.Add(big))
		if used := b.Figure(storeBytes); used > 40<<20 {
			t.Errorf("%d bytes are stored, the quota is %d", used, 40<<20)
		}
	}
	a.Kill()
	s.MustSh(`cmp "$1" "$2/$3"`, pinned, m, pinnedRoot)
	b.Must("get", pinnedRoot, "-o", s.Path("out"))
	s.MustSh(`cmp "$1" "$2"`, pinned, s.Path("out"))
}
