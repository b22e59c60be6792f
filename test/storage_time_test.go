package test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestExpiryAndRenewal has one upload directory renewed and another not: providers drop what was not, and get its
// space back; the other's links last longer and longer.
func TestExpiryAndRenewal(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer")
	writer.Connect(all[0])
	kept := writer.Mount("kept", "", "--upload", "--name", "kept", "--expiry", "12s", "--auto-renew")
	file := s.RandomFile(100<<10, 1, "file")
	s.MustSh(`cp "$1" "$2"/`, file, kept)
	synced := syncOf(t, writer, kept)
	of := len(linksOf(t, writer))
	before := storedBytes(t, all)
	once := writer.Mount("once", "", "--upload", "--name", "once", "--expiry", "12s")
	s.MustSh(`cp "$1" "$2"/`, s.RandomFile(4<<20, 2, "more"), once)
	expires, err := time.Parse(time.RFC3339, syncOf(t, writer, once).Expires)
	must(t, err)
	if with := storedBytes(t, all); with < before+6<<20 {
		t.Errorf("providers have %d bytes, and had %d", with, before)
	}
	s.Eventually("what is not renewed to expire", func() bool {
		expired := 0
		for _, u := range uploadsOf(t, writer) {
			if u.State == "failed" && strings.Contains(u.Text, "expired") {
				expired++
			}
		}
		return expired > 0
	})
	s.Eventually("its space to be free", func() bool { return storedBytes(t, all) <= before })
	s.Eventually("all links that are renewed to last longer", func() bool {
		signed := 0
		for _, l := range linksOf(t, writer) {
			if l.State == "signed" && l.Expires.After(expires) {
				signed++
			}
		}
		return signed == of
	})
	now := syncOf(t, writer, kept)
	if until, err := time.Parse(time.RFC3339, now.Expires); err != nil || now.Manifest != synced.Manifest || !until.After(expires) {
		t.Errorf("sync tells of %+v when what it told of is renewed, %+v", now, synced)
	}
	s.Eventually("what is renewed to be uploaded", func() bool { // it is being renewed now and then
		_, err := s.Sh(`test "$(getfattr --only-values -n user.holdfast.state "$1/file")" = uploaded`, kept)
		return err == nil
	})
	s.MustSh(`cmp "$1/more" "$2/more"`, s.Path(), once) // it was never evicted
	fresh := s.Start("fresh")
	fresh.Connect(all[5])
	writer.Kill()
	fresh.Must("get", synced.Manifest, "-o", s.Path("out"))
	s.MustSh(`cmp "$1" "$2/file"`, file, s.Path("out"))
}

// TestChurn rewrites half of a tree again and again. At each synced state providers come to have at most twice what
// is live and its parity.
func TestChurn(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer")
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload")
	const files = 40
	write := func(round, i int) string {
		return s.RandomFile(int64(10+i*2)<<10, uint64(1000*round+i), "tree", fmt.Sprintf("f%02d", i))
	}
	for i := range files {
		write(0, i)
	}
	most := 0.0
	for round := range churnRounds {
		for i := range files {
			switch {
			case round == 0 || (i+round)%2 == 0:
			case i%8 == round%8:
				must(t, os.RemoveAll(s.Path("tree", fmt.Sprintf("f%02d", i))))
			default:
				write(round, i)
			}
		}
		s.MustSh(`rsync -a --checksum --delete --inplace "$1/" "$2/"`, s.Path("tree"), up)
		syncOf(t, writer, up)
		live, err := strconv.ParseInt(strings.TrimSpace(s.MustSh(`find "$1" -type f -printf '%s\n' | awk '{n+=$1} END {print n}'`, s.Path("tree"))), 10, 64)
		must(t, err)
		ratio := 0.0
		s.Eventually("providers to have at most twice what is live", func() bool {
			ratio = float64(storedBytes(t, all)) / (1.5 * float64(live))
			return ratio <= 2
		})
		most = max(most, ratio)
	}
	t.Logf("at most %.2f times what is live is stored", most)
	fresh := s.Start("fresh")
	fresh.Connect(all[1])
	root := syncOf(t, writer, up).Manifest
	writer.Must("umount", up)
	writer.Kill()
	fresh.Must("get", root, "-o", s.Path("out"))
	s.MustSh(`diff -r "$1" "$2"`, s.Path("tree"), s.Path("out"))
}

// TestKilledWhileUploading kills the writer's daemon and a provider's amid an upload, again and again. What was staged
// is whole each time, and in the end everything is with providers, once and paid once.
func TestKilledWhileUploading(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 7, "--storage-price", "100000")
	writer := s.Start("writer", "--max-storage-price", "200000")
	writer.Connect(all[0])
	tree := s.Path("tree")
	for i := range 40 {
		s.RandomFile(100<<10, uint64(i), "tree", fmt.Sprint("f", i))
	}
	up := writer.Mount("up", "", "--upload")
	for i := range killRounds {
		s.RandomFile(6<<20, uint64(1000+i), "tree", fmt.Sprint("big", i))
		s.MustSh(`rsync -a --inplace "$1/" "$2/"`, tree, up)
		s.Eventually("some links", func() bool { return len(linksOf(t, writer)) > 3*i })
		if i%2 == 0 {
			all[1].Kill()
		}
		writer.Kill()
		writer.Start()
		if i%2 == 0 {
			all[1].Start()
		}
		writer.AwaitMounted(up)
		s.MustSh(`diff -r "$1" "$2"`, tree, up)
	}
	synced := syncOf(t, writer, up)
	booksBalance(t, s, writer, all)
	at := make(map[string]bool)
	for _, l := range linksOf(t, writer) {
		if l.State == "signed" && at[l.Chunk+l.Provider] {
			t.Errorf("%s has signed twice for %s", l.Provider, l.Chunk)
		}
		at[l.Chunk+l.Provider] = at[l.Chunk+l.Provider] || l.State == "signed"
	}
	writer.Must("umount", up)
	writer.Kill()
	must(t, os.RemoveAll(writer.Repo))
	fresh := s.Start("fresh")
	fresh.Connect(all[2])
	fresh.Must("get", synced.Manifest, "-o", s.Path("out"))
	s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("out"))
}
