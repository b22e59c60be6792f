package test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// distant is the swarm most tests of reading want: A has content, B is empty
// and connected to C alone, so it finds A through C's part of the DHT.
type distant struct {
	*swarm.Swarm
	a, b, c *swarm.Node
}

func newDistant(t *testing.T, argsOfB ...string) *distant {
	t.Helper()
	s := swarm.New(t)
	d := &distant{Swarm: s, c: s.Start("c"), a: s.Start("a"), b: s.Start("b", argsOfB...)}
	d.a.Connect(d.c)
	d.b.Connect(d.c)
	return d
}

// near is a swarm of A, which has content, and B, connected to each other.
func near(t *testing.T) (s *swarm.Swarm, a, b *swarm.Node) {
	t.Helper()
	s = swarm.New(t)
	a, b = s.Start("a"), s.Start("b")
	b.Connect(a)
	return s, a, b
}

// TestToolsOverTheNetwork reads Go's own source and a big file from a node that
// is found through a third.
func TestToolsOverTheNetwork(t *testing.T) {
	d := newDistant(t)
	source := strings.TrimSpace(d.MustSh("go env GOROOT")) + "/src"
	big := d.RandomFile(bigBytes, 1, "big")
	sourceCID, bigCID := d.a.Add(source), d.a.Add(big)

	src := d.b.Mount("src", sourceCID)
	d.MustSh(`diff -r "$1" "$2"`, source, src)
	file := filepath.Join(d.b.Mount("file", bigCID), bigCID)
	if got := strings.Fields(d.MustSh(`sha256sum "$1"`, file))[0]; got != d.SHA256(big) {
		t.Errorf("the big file has hash %s on the mount", got)
	}
	d.MustSh(`cmp "$1" "$2"`, big, file)

	d.rsyncs(source, src)
	d.readsLikeNative(t, source, src)
	runChild(t, d.Swarm, "mmap", file, big)
	runChild(t, d.Swarm, "mmap", src+"/fmt/print.go", source+"/fmt/print.go")
	d.isReadOnly(t, src)
	for _, n := range []*swarm.Node{d.a, d.b, d.c} {
		rss := n.RssAnon()
		t.Logf("RssAnon of %s: %d MiB", n.Name, rss>>20)
		if rss > 400<<20 {
			t.Errorf("%s holds %d MiB of anonymous memory, more than 400", n.Name, rss>>20)
		}
	}
}

// rsyncs copies a tree out of the mount, and finds nothing to do a second time.
func (d *distant) rsyncs(source, m string) {
	out := d.Mkdir("rsynced")
	d.MustSh(`rsync -a "$1/go/" "$2/"; diff -r "$3/go" "$2"; test -z "$(rsync -a --itemize-changes "$1/go/" "$2/")"`, m, out, source)
}

// readsLikeNative compares what ordinary tools print about a tree and its mount.
func (d *distant) readsLikeNative(t *testing.T, source, m string) {
	t.Helper()
	for _, script := range []string{
		`cd "$1"; find . | sort | sha256sum`,
		`cd "$1"; find . | wc -l`,
		`cd "$1"; find . -type f -printf '%s %p\n' | sort | sha256sum`,
		`cd "$1"; grep -r -c 'func Fprintf' fmt log | sort`,
		`cd "$1"; tar c fmt net/http | tar t | sort | sha256sum`,
		`cd "$1"; tar c --sort=name fmt net/http | tar x -O | sha256sum`,
		`cd "$1"; find fmt -type f -print0 | sort -z | du -b --files0-from=-`,
		`cd "$1"; ls -U fmt | sort; wc -c fmt/print.go; head -c 100 fmt/print.go; tail -n 3 fmt/print.go`,
	} {
		if got, want := d.MustSh(script, m), d.MustSh(script, source); got != want {
			t.Errorf("%s: %q on the mount, %q natively", script, got, want)
		}
	}
	d.MustSh(`test "$(du -s "$1" | cut -f1)" -gt 100000`, m)
	d.MustSh(`df -T "$1" | grep fuse.holdfast > /dev/null; df -i "$1"; stat -f "$1"`, m)
}

// isReadOnly tries to change the mount.
func (d *distant) isReadOnly(t *testing.T, m string) {
	t.Helper()
	for _, script := range []string{`echo > "$1/new"`, `mkdir "$1/new"`, `rm "$1/fmt/print.go"`, `mv "$1/fmt" "$1/gmt"`,
		`chmod 600 "$1/fmt/print.go"`, `echo >> "$1/fmt/print.go"`, `ln -s x "$1/link"`} {
		if _, err := d.Sh(script, m); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
			t.Errorf("%s: %v, want a read-only file system", script, err)
		}
	}
}

// TestGit reads a bare repository from the mount.
func TestGit(t *testing.T) {
	s, a, b := near(t)
	work, bare := s.Path("work"), s.Path("bare.git")
	s.MustSh(`git init -q -b main "$1"; cd "$1"; git config user.name tester; git config user.email tester@example.com
		for i in $(seq 40); do echo "line $i" >> file; mkdir -p "d$((i % 7))"; echo $i > "d$((i % 7))/f$i"; git add -A; git commit -q -m "commit $i"; done
		git tag v1; git clone -q --bare "$1" "$2"; git -C "$2" gc -q`, work, bare)
	dir := b.Mount("git", a.Add(bare))
	script := `export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'; `
	if got, want := s.MustSh(script+`git -C "$1" log --format='%H %s'`, dir), s.MustSh(`git -C "$1" log --format='%H %s'`, work); got != want {
		t.Errorf("git log differs on the mount: %s", got)
	}
	s.MustSh(script+`git -C "$1" fsck --strict --full`, dir)
	clone := s.Path("clone")
	s.MustSh(script+`git clone -q "$1" "$2"; diff -r --exclude=.git "$2" "$3"; git -C "$2" fsck --full`, dir, clone, work)
	s.MustSh(script+`git clone -q --no-local "$1" "$2"; diff -r --exclude=.git "$2" "$3"`, dir, s.Path("clone2"), work)
}

// TestExecutables runs programs from the mount.
func TestExecutables(t *testing.T) {
	s, a, b := near(t)
	dir := s.Mkdir("bin")
	s.MustSh(`cp "$(command -v sha256sum)" "$1/hash"; cp "$2" "$1/holdfast"; printf '#!/bin/sh\necho "$0 $1"\n' > "$1/script"; chmod 755 "$1"/*; echo data > "$1/data"`, dir, s.Bin)
	m := b.Mount("run", a.Add(dir, "--preserve"))
	s.MustSh(`test "$("$1/hash" < "$1/data")" = "$(sha256sum < "$1/data")"; "$1/holdfast" --help | grep mount > /dev/null; test "$("$1/script" arg)" = "$1/script arg"; ! test -x "$1/data"`, m)
}

// TestNamespaceMount reads any CID below one mount.
func TestNamespaceMount(t *testing.T) {
	s, a, b := near(t)
	tree := s.ManyFiles(5, "tree")
	root, file := a.Add(tree), a.Add(s.RandomFile(3<<20, 9, "file"))
	all := b.Mount("all", "")
	s.MustSh(`diff -r "$1" "$2"`, tree, filepath.Join(all, root))
	s.MustSh(`cmp "$1" "$2"`, s.Path("file"), filepath.Join(all, file))
	if _, err := s.Sh(`cat "$1/no-cid"`, all); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("a name that is no CID: %v", err)
	}
}

// TestFileOnFile mounts a file's CID on a regular file, which then is that file.
func TestFileOnFile(t *testing.T) {
	s, a, b := near(t)
	big := s.RandomFile(5<<20, 10, "file")
	point := s.WriteFile("covered", "point")
	if out := b.Must("mount", "--detach", a.Add(big), point); !strings.HasPrefix(out, "mounted") {
		t.Fatalf("mount printed %q", out)
	}
	s.MustSh(`cmp "$1" "$2"`, big, point)
	b.Must("umount", point)
	s.MustSh(`test "$(cat "$1")" = covered`, point)
}

// TestExtendedAttributes reads what the mount tells about a file.
func TestExtendedAttributes(t *testing.T) {
	s, a, b := near(t)
	tree := s.ManyFiles(3, "tree")
	root := a.Add(tree)
	m := b.Mount("m", root)
	if got := strings.TrimSpace(s.MustSh(`getfattr --only-values -n user.holdfast.cid "$1"`, m)); got != root {
		t.Errorf("the root's user.holdfast.cid is %q, want %s", got, root)
	}
	if got, want := strings.TrimSpace(s.MustSh(`getfattr --only-values -n user.holdfast.cid "$1/entry-0000001"`, m)), a.Add(tree+"/entry-0000001"); got != want {
		t.Errorf("a file's user.holdfast.cid is %q, want %s", got, want)
	}
	if _, err := s.Sh(`getfattr -n user.other "$1"`, m); err == nil || !strings.Contains(err.Error(), "No such attribute") {
		t.Errorf("an attribute that is not there: %v", err)
	}
}
