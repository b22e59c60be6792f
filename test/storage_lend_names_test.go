package test

import (
	"fmt"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestUploadRemovedThatWasTouched: a file that gets other times while nothing of it can be placed is imported anew, and
// removed all the same: its room in staging comes free.
func TestUploadRemovedThatWasTouched(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 1)
	writer := s.Start("writer")
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload", "--staging-quota", "32MB")
	file := s.RandomFile(20<<20, 20, "file")
	s.MustSh(`cp "$1" "$2"/a`, file, up)
	cidOf := func() string {
		out, _ := s.Sh(`getfattr --only-values -n user.holdfast.cid "$1/a" | grep ^baf`, up)
		return out
	}
	s.Eventually("it to be imported", func() bool { return cidOf() != "" && len(uploadsOf(t, writer)) > 0 })
	for i := range 3 {
		was := cidOf()
		s.MustSh(`python3 -c "import os,sys; os.utime(sys.argv[1],(int(sys.argv[2]),)*2)" "$1/a" $2`, up, fmt.Sprint(1000000000+i*1000))
		s.Eventually("it to be imported again", func() bool { c := cidOf(); return c != "" && c != was })
	}
	s.MustSh(`rm "$1/a"; cp "$2" "$1/b"; cmp "$2" "$1/b"`, up, file)
}

// TestUploadLinksRemovedAfterRestart removes the names of a hard link one after the other, the one that is known first, and
// writes to what is left of another.
func TestUploadLinksRemovedAfterRestart(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 1)
	writer := s.Start("writer")
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload")
	file := s.RandomFile(9<<20, 20, "x")
	s.MustSh(`mkdir "$2"/d0 "$2"/d1; for f in x y z; do cp "$1" "$2"/d0/$f; printf $f >>"$2"/d0/$f; ln "$2"/d0/$f "$2"/d1/$f; done`, file, up)
	s.Eventually("all to be imported", func() bool {
		out, err := s.Sh(`getfattr --only-values -n user.holdfast.cid "$1"/d0/? | grep -o baf | wc -l`, up)
		return err == nil && out == "3\n"
	})
	writer.Kill()
	writer.Start()
	writer.AwaitMounted(up)
	s.MustSh(`cd "$1" && rm d0/x && rm d1/x && rm d1/y && rm d0/y && rm d0/z && printf changed >>d1/z && rm -r d0 d1`, up)
}
