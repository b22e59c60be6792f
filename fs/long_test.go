//go:build long

package fs

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestMillionEntries lists a directory of a million names: its head at once, all of it in bounded memory.
func TestMillionEntries(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "million"})
	t.Log("before:", s.tell("rss"))
	if n := strings.Count(sh(t, `ls -U "$1" | head`, s.dir), "\n"); n != 10 {
		t.Errorf("the head has %d names", n)
	}
	before := kib(t, s.tell("rss"))
	out := sh(t, `find "$1" | wc -l`, s.dir)
	if n, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || n != 1_000_001 {
		t.Errorf("found %s, %v", out, err)
	}
	after := kib(t, s.tell("rss"))
	t.Logf("RssAnon: %d MiB before find, %d after; %d nodes known", before>>10, after>>10, s.stats().Nodes)
	if s.stats().Nodes > plusEntries+1 {
		t.Errorf("%d nodes are known", s.stats().Nodes)
	}
	if after-before > 64<<10 {
		t.Errorf("find took %d MiB", (after-before)>>10)
	}
}

func kib(t *testing.T, rss string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(rss, "%d kB", &n); err != nil {
		t.Fatal(rss, err)
	}
	return n
}
