package test

import (
	"path/filepath"
	"testing"
)

// TestHundredReadersFetchEachBlockOnce lets a hundred readers loose on a file of
// which nothing is local.
func TestHundredReadersFetchEachBlockOnce(t *testing.T) {
	s, a, b := near(t)
	big := s.RandomFile(bigBytes, 1, "big")
	root := a.Add(big)
	file := filepath.Join(b.Mount("m", root), root)
	before := b.Figure(blocksIn)
	runChild(t, s, "readers", file, big, "100", itoa(readerRounds), "1")
	s.MustSh(`cmp "$1" "$2"`, file, big)
	// Each leaf and the root; mounting may have fetched the root already.
	blocks := int64(bigBytes>>20) + 1
	if got := b.Figure(blocksIn); got != blocks && before+got != blocks {
		t.Errorf("%d blocks came for a file of %d", got, blocks)
	}
	if got := b.Figure(blocksTwice); got != 0 {
		t.Errorf("%d blocks came more than once", got)
	}
}
