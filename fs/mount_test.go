package fs

import (
	"bytes"
	"os"
	"testing"
)

func TestMountReads(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	got, err := os.ReadFile(s.path("big"))
	if err != nil || !bytes.Equal(got, random(bigBytes, 1)) {
		t.Fatalf("big: %d bytes, %v", len(got), err)
	}
	t.Log(sh(t, `cd "$1" && ls -laiR && cat small && cat sub/deep/file && find . && df . && du -a && stat -f . && ./script a b && readlink link && cat link; getfattr -d small`, s.dir))
}
