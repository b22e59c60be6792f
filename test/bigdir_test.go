package test

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestBigDirectory lists a directory of very many entries from another node.
func TestBigDirectory(t *testing.T) {
	s, a, b := near(t)
	tree := s.ManyFiles(manyNames, "tree")
	m := b.Mount("m", a.Add(tree))
	began := time.Now()
	if got := strings.Count(s.MustSh(`ls -U "$1" | head -n 100 || test $? = 141`, m), "\n"); got != 100 {
		t.Errorf("ls -U | head printed %d lines", got)
	}
	t.Logf("ls -U | head: %v, RssAnon of B %d MiB", time.Since(began), b.RssAnon()>>20)
	began = time.Now()
	if got := strings.TrimSpace(s.MustSh(`find "$1" -type f | wc -l`, m)); got != itoa(manyNames) {
		t.Errorf("find sees %s of %d entries", got, manyNames)
	}
	t.Logf("find: %v, RssAnon of B %d MiB", time.Since(began), b.RssAnon()>>20)
	s.MustSh(`diff <(ls -f "$1" | sort) <(ls -f "$2" | sort)`, tree, m)
	s.MustSh(`test "$(cat "$1/entry-0000042")" = 42; ls -l "$1/entry-0000099"; ! test -e "$1/entry-x"`, m)
	for _, n := range []*swarm.Node{a, b} {
		t.Logf("%d entries: RssAnon of %s %d MiB", manyNames, n.Name, n.RssAnon()>>20)
		if n.RssAnon() > 400<<20 {
			t.Errorf("%s holds %d MiB of anonymous memory, more than 400", n.Name, n.RssAnon()>>20)
		}
	}
}
