package test

import (
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestOutage takes the network away from a reader and gives it back.
func TestOutage(t *testing.T) {
	t.Parallel()
	d := newDistant(t)
	tree := d.ManyFiles(30, "tree")
	d.ManyFiles(20, "tree", "read")
	d.ManyFiles(20, "tree", "unread")
	read := d.RandomFile(9<<20, 1, "tree", "read", "big")
	unread := d.RandomFile(9<<20, 2, "tree", "unread", "big")
	root := d.a.Add(tree)
	m := d.b.Mount("m", root, "--timeout", "3s")
	d.MustSh(`ls -lR "$1" > /dev/null; cat "$1"/read/* > /dev/null; head -c 1000 "$1/unread/entry-0000003"`, m)
	list := d.MustSh(`cd "$1"; find . | sort`, m)
	port := d.a.Identity().Addresses[0]

	d.a.Kill()
	d.c.Kill()

	// A second mount shares nothing with the first but the node's store: what it
	// answers did not come from the kernel's memory.
	again := d.b.Mount("again", root, "--timeout", "3s")
	for _, dir := range []string{m, again} {
		d.MustSh(`cmp "$1/read/big" "$2"; diff -r "$3/read" "$1/read"`, dir, read, tree)
		if got := d.MustSh(`cd "$1"; find . | sort`, dir); got != list {
			t.Errorf("the directories of %s list otherwise without a network", dir)
		}
		d.MustSh(`stat -f "$1"; df "$1"`, dir)
	}
	// Both at the same time, so that A is not given up for long.
	one, two := d.SpawnSh(`cat "$1/unread/big" > "$2"`, m, d.Path("one")), d.SpawnSh(`cp "$1/unread/big" "$2"`, again, d.Path("two"))
	for _, p := range []*swarm.Process{one, two} {
		if code := p.Wait(patience); code == 0 || !strings.Contains(p.Err(), "Input/output error") {
			t.Errorf("reading what is not here ended with code %d: %s; want an input/output error", code, p.Err())
		}
	}
	d.MustSh(`cmp -n "$(stat -c %s "$1")" "$1" "$3"; cmp -n "$(stat -c %s "$2")" "$2" "$3"`, d.Path("one"), d.Path("two"), unread)
	// The mounts stay whole after the errors.
	d.MustSh(`cmp "$1/read/big" "$2"`, m, read)
	d.b.Must("umount", again)
	if here := d.Mounted(again); len(here) != 0 {
		t.Errorf("umount left %v", here)
	}

	d.a.Start()
	if got := d.a.Identity().Addresses[0]; got != port {
		t.Fatalf("A came back on %s, was on %s", got, port)
	}
	d.Eventually("reads work again without remounting", func() bool {
		_, err := d.Sh(`cmp "$1/unread/big" "$2"`, m, unread)
		return err == nil
	})
	d.MustSh(`diff -r "$1" "$2"`, tree, m)
}

// TestLocalRootNeedsNoNetwork mounts what a lone node has.
func TestLocalRootNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	d := newDistant(t)
	tree := d.ManyFiles(10, "tree")
	root := d.a.Add(tree)
	d.b.Kill()
	d.c.Kill()
	m := d.a.Mount("m", root, "--timeout", "2s")
	d.MustSh(`diff -r "$1" "$2"; stat -f "$2"`, tree, m)
	d.a.Must("umount", m)
	d.a.Stop()
	p, m := d.a.MountForeground("m2", root, "--timeout", "2s")
	d.MustSh(`diff -r "$1" "$2"`, tree, m)
	d.MustSh(`fusermount3 -u "$1"`, m)
	if code := p.Wait(patience); code != 0 {
		t.Errorf("mount ended with code %d after fusermount3 -u: %s", code, p.Err())
	}
}

// TestLazyMount mounts a root that nobody has yet; it is there when somebody has.
func TestLazyMount(t *testing.T) {
	t.Parallel()
	d := newDistant(t)
	tree := d.ManyFiles(10, "tree")
	root := d.a.Add(tree)
	d.a.Kill()
	refused(t, d.b, 1, []string{root}, "mount", "--detach", "--timeout", "2s", root, d.Mkdir("eager"))
	if here := d.Mounted(d.Path("eager")); len(here) != 0 {
		t.Errorf("a mount that failed left %v", here)
	}
	m := d.b.Mount("lazy", root, "--lazy", "--timeout", "2s")
	if _, err := d.Sh(`ls "$1"`, m); err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("ls of a root nobody has: %v", err)
	}
	d.a.Start()
	d.Eventually("the lazy mount shows the tree", func() bool {
		_, err := d.Sh(`diff -r "$1" "$2"`, tree, m)
		return err == nil
	})
}
