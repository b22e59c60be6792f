package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/test/swarm"
)

// uploaded waits until so many uploads are with providers, to the last byte.
func uploaded(t *testing.T, s *swarm.Swarm, n *swarm.Node, uploads int) {
	t.Helper()
	s.Eventually("the upload", func() bool {
		all := uploadsOf(t, n)
		for _, u := range all {
			if u.State != "uploaded" || u.Done != u.Bytes {
				return false
			}
		}
		return len(all) == uploads
	})
}

// nodesByID names nodes by their peer IDs.
func nodesByID(all []*swarm.Node) map[string]*swarm.Node {
	by := make(map[string]*swarm.Node)
	for _, n := range all {
		by[n.Identity().ID] = n
	}
	return by
}

// TestManifestHoldersLost: of the m+1 providers that have the manifest m are killed. A fresh node, which is connected to
// one provider that has nothing of the manifest and knows nobody else, mounts it.
func TestManifestHoldersLost(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 7)
	writer := s.Start("writer")
	writer.Connect(all[0])
	tree := s.ManyFiles(30, "tree")
	s.RandomFile(2<<20, 6, "tree", "big")
	manifest := writer.Add(tree, "--protect", "4,2", "--upload")
	uploaded(t, s, writer, 1)
	by := nodesByID(all)
	var holders []string
	_, chunks := signedAt(t, writer)
	for _, at := range chunks {
		if len(at) == 3 { // others have one link
			holders = at
		}
	}
	if len(holders) != 3 {
		t.Fatalf("the manifest is with %d providers, want 3", len(holders))
	}
	writer.Kill()
	must(t, os.RemoveAll(writer.Repo))
	for _, p := range holders[:2] {
		by[p].Kill()
		delete(by, p)
	}
	delete(by, holders[2])
	fresh := s.Start("fresh")
	for _, p := range by {
		fresh.Connect(p)
		break
	}
	m := fresh.Mount("m", manifest)
	s.MustSh(`diff -r "$1" "$2"`, m, tree)
	fresh.Must("umount", m)
}

// TestTwoOfSixReachable: with two columns of six left no stripe can be rebuilt. What the two have can be read, and the
// rest is EIO; the mount lives on, and all is there when the others are back.
func TestTwoOfSixReachable(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer")
	writer.Connect(all[0])
	fresh := s.Start("fresh", "--timeout", "4s")
	m := fresh.Mount("m", "")
	const trees, files = 4, 6
	var roots []string
	for i := range trees {
		name := fmt.Sprint("tree", i)
		for j := range files {
			s.RandomFile(20<<10, uint64(100*i+j), name, fmt.Sprint("file", j))
		}
		roots = append(roots, writer.Add(s.Path(name), "--protect", "4,2", "--upload"))
	}
	uploaded(t, s, writer, trees)
	writer.Kill()
	for _, p := range all {
		fresh.Connect(p)
	}
	for i, root := range roots {
		if out := s.MustSh(`ls "$1/$2"`, m, root); len(strings.Fields(out)) != files {
			t.Fatalf("tree %d has %q", i, out)
		}
	}
	for _, p := range all[2:] {
		p.Kill()
	}
	// All files at once: each whole, or EIO.
	out := s.MustSh(`m="$1" dir="$2"; shift 2; i=0
		for root in "$@"; do
			for f in "$m/$root"/*; do
				( if err="$(cat "$f" 2>&1 >/dev/null)"; then cmp "$f" "$dir/tree$i/$(basename "$f")" && echo whole
				elif [[ "$err" = *"Input/output error"* ]]; then echo EIO; else echo "$err"; fi ) &
			done
			i=$((i+1))
		done
		wait`, append([]string{m, s.Dir}, roots...)...)
	whole, lost := strings.Count(out, "whole\n"), strings.Count(out, "EIO\n")
	t.Logf("%d files can be read, %d can't", whole, lost)
	if whole+lost != trees*files || whole == 0 || lost == 0 {
		t.Errorf("reads say %q", out)
	}
	for _, p := range all[2:] {
		p.Start()
	}
	s.Eventually("all to be there again", func() bool {
		_, err := s.Sh(`i=0; m="$1" dir="$2"; shift 2; for root in "$@"; do diff -r "$m/$root" "$dir/tree$i"; i=$((i+1)); done`, append([]string{m, s.Dir}, roots...)...)
		return err == nil
	})
	fresh.Must("umount", m)
}

// TestBoxoFetchesFromProviders: every block of what was uploaded, parity and the manifest's parts too, comes to boxo's
// Bitswap client from the providers, by its plain CID.
func TestBoxoFetchesFromProviders(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer")
	writer.Connect(all[0])
	tree := s.ManyFiles(50, "tree")
	s.RandomFile(5<<20, 8, "tree", "big")
	text := writer.Add(tree, "--protect", "4,2", "--upload")
	uploaded(t, s, writer, 1)
	writer.Kill()

	node := startBoxo(t, newBoxoHasher(t))
	for _, p := range all {
		node.connect(p)
	}
	fetched := 0
	get := func(ctx context.Context, c cid.Cid) ([]byte, error) {
		b, err := node.bitswap.GetBlock(ctx, c) // which checks it
		if err != nil {
			return nil, fmt.Errorf("fetch %s: %w", c, err)
		}
		fetched++
		return b.RawData(), nil
	}
	c, err := cid.Decode(text)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), swarm.Patience)
	defer cancel()
	manifest, err := erasure.OpenManifest(ctx, c, get)
	must(t, err)
	for part, err := range manifest.Parts(ctx) {
		must(t, err)
		if _, err := get(ctx, part); err != nil {
			t.Error(err)
		}
	}
	blocks := 0
	for g, err := range manifest.Groups(ctx) {
		must(t, err)
		for _, stripe := range g.Stripes {
			for _, shard := range stripe.Shards() {
				blocks++
				if b, err := get(ctx, shard.CID); err != nil || len(b) != shard.Bytes {
					t.Errorf("%d bytes of %d, %v", len(b), shard.Bytes, err)
				}
			}
		}
	}
	if blocks < 8 {
		t.Errorf("the dataset has %d blocks", blocks)
	}
	t.Logf("%d blocks, %d fetched", blocks, fetched)
}

// storedBytes is what providers have of sealed chunks.
func storedBytes(t *testing.T, all []*swarm.Node) (sum int64) {
	t.Helper()
	for _, n := range all {
		entries, err := os.ReadDir(filepath.Join(n.Repo, "chunks"))
		must(t, err)
		for _, e := range entries {
			if info, err := e.Info(); err == nil { // it may go meanwhile
				sum += info.Size()
			}
		}
	}
	return sum
}
