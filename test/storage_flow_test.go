package test

import (
	"fmt"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

const flowFiles = 800 // of 130 KiB each, about

// TestUploadLargerThanTheStore copies files into an upload directory that are several times what the writer's block store
// may hold: they go up as there is room.
func TestUploadLargerThanTheStore(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer", "--quota", "32MB")
	writer.Connect(all[0])
	for i := range flowFiles {
		s.RandomFile(int64(40<<10+i%7*(30<<10)), uint64(i), "tree", fmt.Sprint(i%20), fmt.Sprint(i))
	}
	tree, up := s.Path("tree"), writer.Mount("up", "", "--upload")
	s.MustSh(`cp -a "$1/." "$2/"`, tree, up)
	synced := syncOf(t, writer, up)
	if used := writer.Figure("store.used_bytes"); used > 32e6 {
		t.Errorf("%d bytes are in the block store", used)
	}
	s.MustSh(`for f in "$1"/0/*; do test "$(getfattr --only-values -n user.holdfast.state "$f")" = uploaded || exit 1; done`, up)
	writer.Must("umount", up)
	writer.Kill()
	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	m := fresh.Mount("m", synced.Manifest)
	s.MustSh(`diff -r "$1" "$2"`, tree, m)
	fresh.Must("umount", m)
}
