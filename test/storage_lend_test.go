package test

import (
	"fmt"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// diskBelow is how many bytes a folder's files take on the disk.
func diskBelow(s *swarm.Swarm, dir string) (n int64) {
	s.TB.Helper()
	out := s.MustSh(`du -sB1 "$1" | cut -f1`, dir)
	if _, err := fmt.Sscan(out, &n); err != nil {
		s.TB.Fatalf("du says %q: %v", out, err)
	}
	return n
}

// readAnew mounts a synced state on a fresh node that knows a provider alone, and compares it with a tree.
func readAnew(t *testing.T, s *swarm.Swarm, name, manifest, tree string, from *swarm.Node) {
	t.Helper()
	fresh := s.Start(name)
	fresh.Connect(from)
	m := fresh.Mount(name+"-m", manifest)
	s.MustSh(`diff -r "$1" "$2"`, tree, m)
	fresh.Must("umount", m)
	fresh.Kill()
}

// TestUploadFileLargerThanTheStore: a staged file is read where it lies, so it may be larger than the block store, which
// has no copy of it.
func TestUploadFileLargerThanTheStore(t *testing.T) {
	t.Parallel()
	const size = 128 << 20
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer", "--quota", "64MB")
	writer.Connect(all[0])
	file := s.RandomFile(size, 11, "tree", "big")
	up := writer.Mount("up", "", "--upload")
	s.MustSh(`cp "$1" "$2"/`, file, up)
	synced := syncOf(t, writer, up)
	if n := diskBelow(s, writer.Repo+"/blocks"); n > 80e6 {
		t.Errorf("the block store takes %d bytes of the disk", n)
	}
	writer.Must("umount", up)
	writer.Kill()
	readAnew(t, s, "fresh", synced.Manifest, s.Path("tree"), all[0])
}

// TestUploadWrittenWhileUploading writes to files, replaces and removes them while nothing of them can be placed, with
// the writer killed in between. What is uploaded in the end is what they are then.
func TestUploadWrittenWhileUploading(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 1)
	writer := s.Start("writer")
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload")
	for i, name := range []string{"written", "removed", "replaced", "renamed", "kept"} {
		s.RandomFile(9<<20+int64(i), uint64(20+i), "tree", name)
	}
	s.RandomFile(30<<10, 30, "tree", "small") // shares stripes with what goes
	tree := s.Path("tree")
	s.MustSh(`cp "$1"/* "$2"/`, tree, up)
	s.Eventually("all to be imported, and to wait for providers", func() bool {
		out, err := s.Sh(`for f in "$1"/*; do getfattr --only-values -n user.holdfast.cid "$f" && echo; done | grep -c ^baf`, up)
		return err == nil && out == "6\n" && len(uploadsOf(t, writer)) > 0
	})
	blocks := writer.Repo + "/blocks/bodies"
	if n := diskBelow(s, blocks); n > 1<<20 {
		t.Errorf("bodies take %d bytes of the disk", n)
	}
	change := `for d in "$1" "$2"; do printf changed | dd of="$d/written" bs=1 seek=5000000 conv=notrunc status=none &&
		rm "$d/removed" && mv "$d/renamed" "$d/new" && cp "$d/kept" "$d/.tmp" && mv "$d/.tmp" "$d/replaced" || exit 1; done`
	s.MustSh(change, tree, up)
	writer.Kill()
	writer.Start()
	s.MustSh(`printf again | dd of="$1/kept" bs=1 seek=100 conv=notrunc status=none`, tree)
	writer.AwaitMounted(up)
	s.MustSh(`printf again | dd of="$1/kept" bs=1 seek=100 conv=notrunc status=none`, up)
	s.MustSh(`diff -r "$1" "$2"`, tree, up)
	for i := range 5 {
		p := s.Start(fmt.Sprint("late", i), "--provider", "--provider-quota", "2GB")
		p.Connect(all[0])
	}
	synced := syncOf(t, writer, up)
	s.MustSh(`for f in "$1"/*; do test "$(getfattr --only-values -n user.holdfast.state "$f")" = uploaded || exit 1; done`, up)
	writer.Must("umount", up)
	writer.Kill()
	readAnew(t, s, "fresh", synced.Manifest, tree, all[0])
}
