package test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// upload is what the tests look at of `holdfast uploads --groups --json`.
type upload struct {
	State, Text string
	Bytes, Done int64
}

func uploadsOf(t *testing.T, n *swarm.Node) (all []upload) {
	t.Helper()
	must(t, json.Unmarshal([]byte(n.Must("uploads", "--groups", "--json")), &all))
	return all
}

// link is what the tests look at of `holdfast links --json`.
type link struct {
	Chunk, Provider, State string
	Bytes                  int64
	Price                  uint64
	Paid                   bool
	Expires                time.Time
}

func linksOf(t *testing.T, n *swarm.Node) (all []link) {
	t.Helper()
	must(t, json.Unmarshal([]byte(n.Must("links", "--json")), &all))
	return all
}

// providers starts n nodes that keep chunks for others, all connected to the first.
func providers(s *swarm.Swarm, n int, args ...string) (all []*swarm.Node) {
	s.TB.Helper()
	for i := range n {
		p := s.Start(fmt.Sprint("provider", i), append([]string{"--provider", "--provider-quota", "2GB"}, args...)...)
		if i > 0 {
			p.Connect(all[0])
		}
		all = append(all, p)
	}
	return all
}

// TestWritersMachineGone: content is protected and uploaded; then the writer's repo is deleted, two of the providers are
// killed, and a fresh node that is connected to one of the others mounts it by its manifest.
func TestWritersMachineGone(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 8, "--storage-price", "100000")
	writer := s.Start("writer", "--max-storage-price", "200000")
	writer.Connect(all[0])
	tree := s.ManyFiles(300, "tree")
	s.RandomFile(20<<20, 3, "tree", "big")
	manifest := writer.Add(tree, "--protect", "4,2", "--upload", "--preserve")
	s.Eventually("the upload", func() bool {
		u := uploadsOf(t, writer)
		return len(u) == 1 && u[0].State == "uploaded" && u[0].Done == u[0].Bytes
	})

	// Every chunk is signed for and paid, and no provider has two copies of one.
	kept := make(map[string]bool)
	s.Eventually("all links to be paid", func() bool {
		for _, l := range linksOf(t, writer) {
			if l.State == "signed" && !l.Paid {
				return false
			}
		}
		return true
	})
	holders := make(map[string]bool)
	for _, l := range linksOf(t, writer) {
		if l.State != "signed" {
			continue
		}
		if kept[l.Chunk+l.Provider] {
			t.Errorf("%s has chunk %s twice", l.Provider, l.Chunk)
		}
		if l.Price == 0 {
			t.Errorf("chunk %s is kept for nothing", l.Chunk)
		}
		kept[l.Chunk+l.Provider] = true
		holders[l.Provider] = true
	}
	if len(holders) < 6 {
		t.Errorf("%d providers hold chunks, want 6 at least", len(holders))
	}

	writer.Kill()
	must(t, os.RemoveAll(writer.Repo))
	all[2].Kill()
	all[5].Kill()
	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	m := fresh.Mount("m", manifest)
	s.MustSh(`diff -r "$1" "$2"`, m, tree)
	fresh.Must("umount", m)
}

// TestTooFewProviders: content waits, and says what for, until there are enough.
func TestTooFewProviders(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 3)
	writer := s.Start("writer")
	writer.Connect(all[0])
	writer.Add(s.RandomFile(3<<20, 4, "file"), "--protect", "4,2", "--upload")
	s.Eventually("the upload to say what it waits for", func() bool {
		u := uploadsOf(t, writer)
		return len(u) == 1 && u[0].State == "uploading" && u[0].Text == "uploading: needs 6 providers, 3 known"
	})
	for i := range 4 {
		p := s.Start(fmt.Sprint("late", i), "--provider")
		p.Connect(all[0])
	}
	s.Eventually("the upload, as providers have come", func() bool { return uploadsOf(t, writer)[0].State == "uploaded" })
}

// synced is what `holdfast sync --json` prints.
type synced struct{ Root, Manifest, Expires string }

func syncOf(t *testing.T, n *swarm.Node, dir string) (s synced) {
	t.Helper()
	must(t, json.Unmarshal([]byte(n.Must("sync", "--json", dir)), &s))
	if s.Root == "" || s.Manifest == "" || s.Expires == "" {
		t.Errorf("sync printed %+v", s)
	}
	return s
}

// TestUploadDirectory copies a tree into an upload directory, changes it, restarts the writer, and reads the synced state on
// a fresh node when the writer and two of its providers are gone.
func TestUploadDirectory(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 8)
	writer := s.Start("writer")
	writer.Connect(all[0])
	tree := s.ManyFiles(200, "tree")
	s.RandomFile(9<<20, 5, "tree", "big")
	up := writer.Mount("up", "", "--upload", "--name", "work")
	s.MustSh(`cp -a "$1" "$2/tree"; rsync -a "$1/" "$2/again/"; diff -r "$1" "$2/tree"; diff -r "$1" "$2/again"`, tree, up)
	first := syncOf(t, writer, up)
	s.MustSh(`test "$(getfattr --only-values -n user.holdfast.cid "$1")" = "$2"; test "$(getfattr --only-values -n user.holdfast.manifest "$1")" = "$3"
		test "$(getfattr --only-values -n user.holdfast.state "$1/tree/big")" = uploaded`, up, first.Root, first.Manifest)

	s.MustSh(`cd "$1"; mv tree moved; rm -rf again; echo new > moved/new; printf changed >> moved/big; ln -s moved/big link; chmod 600 moved/new; truncate -s 300M moved/holes`, up)
	writer.Stop()
	writer.Start()
	writer.AwaitMounted(up)
	second := syncOf(t, writer, up)
	if second.Root == first.Root {
		t.Error("the root is that of before the changes")
	}
	kept := s.Path("kept")
	s.MustSh(`cp -a "$1" "$2"`, up, kept)
	writer.Must("umount", up)
	writer.Kill()
	must(t, os.RemoveAll(writer.Repo))
	all[1].Kill()
	all[6].Kill()

	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	m := fresh.Mount("m", second.Manifest)
	s.MustSh(`diff -r --no-dereference "$1" "$2"; test "$(stat -c %a "$1/moved/new")" = 600; test "$(stat -c %Y "$1/moved/big")" = "$(stat -c %Y "$2/moved/big")"`, m, kept)
	fresh.Must("umount", m)
}
