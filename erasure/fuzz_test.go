package erasure

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ipfs/go-cid"
)

var writeCorpus = flag.Bool("write-corpus", false, "write the fuzz targets' corpus below testdata anew")

// seedParts returns parts of manifests of some shapes, small enough to be mutated well.
func seedParts(tb testing.TB) *shelf {
	tb.Helper()
	var s shelf
	smallManifest(tb, &s)
	r := rand.New(rand.NewPCG(3, 1))
	for _, km := range [][2]int{{1, 2}, {3, 0}, {10, 4}} {
		lengths := make([]int, 25)
		for i := range lengths {
			lengths[i] = r.IntN(MaxBlock / 4)
		}
		writeManifest(tb, &s, km[0], km[1], makeStripes(tb, km[0], km[1], lengths))
	}
	writeManifest(tb, &s, 2, 1, nil)
	return &s
}

// indexedManifest is a header with directories and an index, beside the parts that it links to.
func indexedManifest(tb testing.TB, s *shelf) []byte {
	tb.Helper()
	page := putPage(1, putGroup(nil, Group{
		Stripes: []Stripe{fakeStripe([]Shard{{testCID(tb, cid.Raw, 5), 7}}, 1)},
		Chunks:  []cid.Cid{testCID(tb, cid.DagCBOR, 1), testCID(tb, cid.DagCBOR, 2)},
	}))
	put := func(kind PartKind, b []byte) cid.Cid {
		c := sumCID(cid.DagCBOR, b)
		if err := s.put(Part{kind, c, b}); err != nil {
			tb.Fatal(err)
		}
		return c
	}
	one, six := totals{1, 1, 1, 7}, totals{6, 6, 6, 42}
	leaf := entry{put(PartPage, page), one}
	dir := put(PartDirectory, encodeDirectory(1, []entry{leaf, leaf, leaf, leaf, leaf, leaf}))
	var entries []indexEntry
	for i := range uint32(6) {
		entries = append(entries, indexEntry{indexKey(testCID(tb, cid.Raw, 5)), i})
	}
	leaves := put(PartIndex, encodeLeaf(entries))
	run := put(PartIndex, encodeRun([]leafLink{{leaves, 6, entries[0].key}}))
	h := header{root: testCID(tb, cid.Raw, 5), k: 2, m: 1, level: 1, sum: six, pages: []entry{{dir, six}}, index: []runLink{{run, 6}}}
	return h.encode()
}

// addSeeds gives the parts of a kind to a fuzz target, and writes them into its corpus if asked to.
func addSeeds(f *testing.F, s *shelf, more [][]byte, kinds ...PartKind) {
	f.Helper()
	for _, c := range s.order {
		for _, kind := range kinds {
			if s.parts[c].Kind == kind && len(s.parts[c].Data) < 20000 {
				more = append(more, s.parts[c].Data)
			}
		}
	}
	for _, b := range more {
		f.Add(b)
		if *writeCorpus {
			dir := filepath.Join("testdata", "fuzz", f.Name())
			if err := os.MkdirAll(dir, 0o755); err != nil {
				f.Fatal(err)
			}
			sum := sumCID(cid.Raw, b).Hash()
			name := filepath.Join(dir, hex.EncodeToString(sum[len(sum)-8:]))
			if err := os.WriteFile(name, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", b), 0o644); err != nil {
				f.Fatal(err)
			}
		}
	}
}

// allocates fails if decode takes more memory than there is in b, many times over.
func allocates(tb testing.TB, b []byte, decode func()) {
	tb.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	decode()
	runtime.ReadMemStats(&after)
	// Other goroutines of the fuzzer allocate too: the constant is for them.
	if taken := after.TotalAlloc - before.TotalAlloc; taken > uint64(20*len(b))+4<<20 {
		tb.Fatalf("%d bytes taken for %d", taken, len(b))
	}
}

// canonical fails unless again, what was decoded and encoded, is b, and go-ipld-prime thinks so too.
func canonical(tb testing.TB, b, again []byte) {
	tb.Helper()
	if !bytes.Equal(b, again) {
		tb.Fatalf("decoded and encoded\n%x\nis\n%x", b, again)
	}
	if !bytes.Equal(reencode(tb, b), b) {
		tb.Fatal("go-ipld-prime encodes it in another way")
	}
}

func FuzzChunk(f *testing.F) {
	addSeeds(f, seedParts(f), nil, PartDescriptor)
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Chunk
		var err error
		allocates(t, b, func() { c, err = DecodeChunk(b) })
		if err != nil {
			return
		}
		_, again, err := c.Encode()
		if err != nil {
			t.Fatalf("decoded and refused: %v", err)
		}
		canonical(t, b, again)
	})
}

func FuzzPage(f *testing.F) {
	addSeeds(f, seedParts(f), nil, PartPage)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, km := range [][2]int{{4, 2}, {10, 4}, {1, 2}, {3, 0}, {256, 0}} {
			var groups []Group
			var err error
			allocates(t, b, func() { groups, _, err = decodePage(b, km[0], km[1]) })
			if err != nil {
				continue
			}
			var encoded []byte
			for _, g := range groups {
				encoded = putGroup(encoded, g)
				for _, s := range g.Stripes {
					if err := checkStripe(s, km[0], km[1]); err != nil {
						t.Fatalf("decoded and refused: %v", err)
					}
					g.chunks(s)
				}
				g.Columns()
			}
			canonical(t, b, putPage(len(groups), encoded))
		}
	})
}

func FuzzParts(f *testing.F) {
	s := seedParts(f)
	indexedManifest(f, s)
	addSeeds(f, s, nil, PartDirectory, PartIndex)
	f.Fuzz(func(t *testing.T, b []byte) {
		allocates(t, b, func() {
			if entries, _, err := decodeDirectory(b, 1); err == nil {
				canonical(t, b, encodeDirectory(1, entries))
			}
			if entries, err := decodeLeaf(b, 1000); err == nil {
				canonical(t, b, encodeLeaf(entries))
				pagesFor(entries, entries[0].key)
			}
			if leaves, err := decodeRun(b, 6); err == nil {
				canonical(t, b, encodeRun(leaves))
				leavesFor(leaves, leaves[0].first)
			}
		})
	})
}

// FuzzManifest opens what it is given over parts that are there, walks it, and looks for blocks.
func FuzzManifest(f *testing.F) {
	s := seedParts(f)
	addSeeds(f, s, [][]byte{indexedManifest(f, s)}, PartManifest)
	f.Fuzz(func(t *testing.T, b []byte) {
		self := sumCID(cid.DagCBOR, b)
		reads := 0
		get := func(ctx context.Context, c cid.Cid) ([]byte, error) {
			reads++
			if c == self {
				return b, nil
			}
			if p, ok := s.parts[c]; ok {
				return p.Data, nil
			}
			return nil, errLost
		}
		var m *Manifest
		var err error
		allocates(t, b, func() { m, err = OpenManifest(t.Context(), self, get) })
		if err != nil {
			return
		}
		canonical(t, b, m.head.encode())
		stripes := 0
		for s, err := range m.Stripes(t.Context()) {
			if err != nil || stripes > 1000 {
				break
			}
			stripes++
			if _, err := m.Find(t.Context(), s.Data[0].CID); err != nil {
				t.Logf("find: %v", err)
			}
		}
		for _, err := range m.Parts(t.Context()) {
			if err != nil || stripes > 2000 {
				break
			}
			stripes++
		}
		if _, err := m.Find(t.Context(), testCID(t, cid.Raw, 777)); err == nil {
			t.Fatal("found what is nowhere")
		}
		if reads > 2000+maxRuns {
			t.Fatalf("%d reads", reads)
		}
	})
}
