package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestBadCIDs gives every command that takes a CID what is none, or none it can
// use.
func TestBadCIDs(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	dir := s.Mkdir("m")
	digest, err := mh.Encode(make([]byte, 32), 0x300042)
	must(t, err)
	unknownHash := cid.NewCidV1(cid.Raw, digest).String()
	unknownCodec := cid.NewCidV1(0x300042, missingCID(1).Hash()).String()
	truncated := missingCID(1).String()[:30]
	for _, bad := range []string{"not-a-cid", truncated, unknownHash, unknownCodec} {
		for _, args := range [][]string{{"cat", bad}, {"ls", bad}, {"stat", bad}, {"get", bad, "-o", s.Path("out")},
			{"pin", bad}, {"mount", "--detach", bad, dir}, {"cat", bad + "/path"}} {
			refused(t, n, 1, []string{bad}, args...)
		}
	}
	for _, empty := range [][]string{{"cat"}, {"get"}, {"mount"}, {"umount"}, {"add"}, {"pin"}, {"connect"}, {"nonsense"}, {"status", "--nonsense"}} {
		refused(t, n, 2, nil, empty...)
	}
	refused(t, n, 1, []string{"nowhere"}, "connect", "nowhere")
	refused(t, n, 1, []string{"/ip4/127.0.0.1/tcp/1"}, "connect", "/ip4/127.0.0.1/tcp/1")
	nothingMounted(t, s)
	if _, err := os.Lstat(s.Path("out")); err == nil {
		t.Error("a get that failed left its output")
	}
}

// TestCIDsNobodyHas looks for what does not exist, within a timeout.
func TestCIDsNobodyHas(t *testing.T) {
	t.Parallel()
	s, _, b := near(t)
	gone := missingCID(4).String()
	refused(t, b, 1, []string{gone}, "mount", "--detach", "--timeout", "2s", gone, s.Mkdir("m"))
	p := s.Spawn(b.Command("mount", "--timeout", "2s", gone, s.Path("m")))
	if code := p.Wait(patience); code != 1 || strings.Contains(p.Out(), "mounted") {
		t.Errorf("mount of what nobody has ended with code %d and printed %q", code, p.Out())
	}
	refused(t, b, 1, []string{gone}, "cat", "--timeout", "2s", gone)
	refused(t, b, 1, []string{gone}, "get", "--timeout", "2s", gone, "-o", s.Path("out"))
	nothingMounted(t, s)
}

// TestBadPaths goes through files and to names that are not there.
func TestBadPaths(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	tree := s.ManyFiles(3, "tree")
	root := n.Add(tree)
	refused(t, n, 1, []string{"entry-0000001", "not a directory"}, "cat", root+"/entry-0000001/x")
	refused(t, n, 1, []string{"nothing-here"}, "cat", root+"/nothing-here")
	refused(t, n, 1, []string{"directory"}, "cat", root)
	refused(t, n, 1, []string{"nothing-here"}, "get", root+"/nothing-here", "-o", s.Path("out"))
	refused(t, n, 1, []string{"nothing-here"}, "add", s.Path("nothing-here"))
	m := n.Mount("m", root)
	for script, message := range map[string]string{
		`cat "$1/entry-0000001/x"`:              "Not a directory",
		`cat "$1/nothing-here"`:                 "No such file or directory",
		`cat "$1"`:                              "Is a directory",
		`cat "$1/$(printf 'x%.0s' $(seq 255))"`: "No such file or directory",
		`cat "$1/"$'\xff\xfe'`:                  "No such file or directory",
	} {
		if _, err := s.Sh(script, m); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v, want %s", script, err, message)
		}
	}
}

// TestBadMountPoints asks for mounts where none can be.
func TestBadMountPoints(t *testing.T) {
	s := swarm.New(t)
	n := s.Start("a")
	tree := s.ManyFiles(3, "tree")
	root := n.Add(tree)
	full := s.Mkdir("full")
	s.WriteFile("precious", "full", "file")
	file := s.WriteFile("precious", "file")
	refused(t, n, 1, []string{s.Path("missing")}, "mount", "--detach", root, s.Path("missing"))
	refused(t, n, 1, []string{full, "empty"}, "mount", "--detach", root, full)
	refused(t, n, 1, []string{file, "directory"}, "mount", "--detach", root, file)
	refused(t, n, 1, []string{full, "empty"}, "mount", "--detach", full)
	nothingMounted(t, s)
	s.MustSh(`test "$(cat "$1" "$2/file")" = preciousprecious`, file, full)

	m := n.Mount("m", root)
	refused(t, n, 1, []string{m}, "mount", "--detach", root, m)
	if here := s.Mounted(m); len(here) != 1 {
		t.Errorf("mounted twice: %v", here)
	}
	s.MustSh(`diff -r "$1" "$2"`, tree, m)
	refused(t, n, 1, []string{full, "mount"}, "umount", full)
	refused(t, n, 1, []string{s.Path("missing")}, "umount", s.Path("missing"))

	s.MustSh(`mount -t tmpfs -o size=1m tmpfs "$1"`, s.Mkdir("foreign"))
	refused(t, n, 1, []string{s.Path("foreign")}, "umount", s.Path("foreign"))
	if here := s.Mounted(s.Path("foreign")); len(here) != 1 || here[0].Type != "tmpfs" {
		t.Errorf("a foreign mount was touched: %v", here)
	}
}

// TestBadRepos opens repositories that can't be opened.
func TestBadRepos(t *testing.T) {
	s := swarm.New(t)
	fresh := func(name string) *swarm.Node {
		n := s.Node(name)
		n.Add(s.WriteFile("x", "x"))
		return n
	}
	inUse := s.Start("inuse")
	refused(t, inUse, 1, []string{"in use", itoa(inUse.Pid())}, "daemon")
	inUse.Must("status")

	newer := fresh("newer")
	must(t, os.WriteFile(filepath.Join(newer.Repo, "version"), []byte("999\n"), 0o600))
	before := s.MustSh(`cd "$1"; find . -type f | sort | xargs sha256sum`, newer.Repo)
	refused(t, newer, 1, []string{newer.Repo, "newer"}, "daemon")
	refused(t, newer, 1, []string{newer.Repo, "newer"}, "add", s.Path("x"))
	if after := s.MustSh(`cd "$1"; find . -type f | sort | xargs sha256sum`, newer.Repo); after != before {
		t.Error("a repo of a newer format was changed")
	}

	for name, damage := range map[string]string{
		"version":  `echo rubbish > "$1/version"`,
		"database": `for f in "$1"/db/*; do test "$(basename "$f")" = LOCK || head -c 4096 /dev/urandom > "$f"; done`,
		"identity": `echo rubbish > "$1/identity.key"`,
		"settings": `echo "quota: [" > "$1/config.yaml"`,
	} {
		n := fresh("damaged " + name)
		s.MustSh(damage, n.Repo)
		refused(t, n, 1, []string{n.Repo}, "daemon")
		refused(t, n, 1, []string{n.Repo}, "cat", missingCID(1).String())
	}
	foreign := s.Mkdir("foreign")
	s.WriteFile("precious", "foreign", "thesis.tex")
	n := fresh("bystander")
	refused(t, n, 1, []string{foreign}, "--repo", foreign, "init")
	refused(t, n, 1, []string{s.Path("x")}, "--repo", s.Path("x"), "init")
	s.MustSh(`test "$(ls "$1")" = thesis.tex`, foreign)
}

func nothingMounted(t *testing.T, s *swarm.Swarm) {
	t.Helper()
	if left, _ := swarm.Mounts(s.Dir); len(left) != 0 {
		t.Errorf("mounted: %v", left)
	}
}
