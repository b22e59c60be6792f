package test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// signedAt counts the signed links by provider, and returns the chunks that have them.
func signedAt(t *testing.T, n *swarm.Node) (at map[string]int, chunks map[string][]string) {
	t.Helper()
	at, chunks = make(map[string]int), make(map[string][]string)
	for _, l := range linksOf(t, n) {
		if l.State == "signed" {
			at[l.Provider]++
			chunks[l.Chunk] = append(chunks[l.Chunk], l.Provider)
		}
	}
	return at, chunks
}

// TestVanishedProviders: the daemon finds out that providers are gone, and places what they had with others; the bytes
// are not here any more and come from the others. Then the next ones may go.
func TestVanishedProviders(t *testing.T) {
	t.Parallel()
	vanished(t, false)
}

// TestVanishedProvidersOfAMount: the same for a directory that stays mounted with all that was staged. Its files come to
// be uploaded again, as the same content.
func TestVanishedProvidersOfAMount(t *testing.T) {
	t.Parallel()
	vanished(t, true)
}

func vanished(t *testing.T, mounted bool) {
	t.Helper()
	s := swarm.New(t)
	all := providers(s, 8)
	writer := s.Start("writer", "--audit-interval", "2s", "--vanish-after", "2s")
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload", "--protect", "4,2")
	tree := s.ManyFiles(20, "tree")
	s.RandomFile(3<<20, 5, "tree", "big")
	s.MustSh(`cp -a "$1" "$2/"`, tree, up)
	synced := syncOf(t, writer, up)
	if !mounted {
		writer.Must("umount", up)
		must(t, os.RemoveAll(filepath.Join(writer.Repo, "staging")))
	}
	writer.Must("gc")

	_, before := signedAt(t, writer)
	gone := map[string]bool{}
	for _, p := range all[1:3] {
		gone[p.Identity().ID] = true
		p.Kill()
	}
	s.Eventually("all chunks to be with others", func() bool {
		_, now := signedAt(t, writer)
		for chunk, at := range before {
			if len(now[chunk]) < len(at) {
				return false
			}
			for _, p := range now[chunk] {
				if gone[p] {
					return false
				}
			}
		}
		return true
	})
	if mounted {
		s.Eventually("the files to be uploaded again", func() bool {
			_, err := s.Sh(`find "$1" -type f | while read -r f; do test "$(getfattr --only-values -n user.holdfast.state "$f" 2>/dev/null)" = uploaded || exit 1; done`, up)
			return err == nil
		})
		if now := syncOf(t, writer, up); now.Root != synced.Root || now.Manifest != synced.Manifest {
			t.Errorf("sync tells of %+v, and told of %+v", now, synced)
		}
		s.MustSh(`diff -r "$1/tree" "$2"`, up, tree)
		writer.Must("umount", up)
	}
	writer.Kill()
	must(t, os.RemoveAll(writer.Repo))
	all[3].Kill()
	all[4].Kill()
	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	m := fresh.Mount("m", synced.Manifest)
	s.MustSh(`diff -r "$1/tree" "$2"`, m, tree)
	fresh.Must("umount", m)
}
