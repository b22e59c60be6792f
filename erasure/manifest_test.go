package erasure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
)

// shelf keeps parts and counts how often they are read.
type shelf struct {
	mu    sync.Mutex
	parts map[cid.Cid]Part // under mu
	order []cid.Cid        // under mu
	reads int              // under mu
}

func (s *shelf) put(p Part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p.Data) > MaxPage || sumCID(cid.DagCBOR, p.Data) != p.CID {
		return fmt.Errorf("part %s of %d bytes is not what it says", p.CID, len(p.Data))
	}
	if s.parts == nil {
		s.parts = make(map[cid.Cid]Part)
	}
	s.parts[p.CID] = p
	s.order = append(s.order, p.CID)
	return nil
}

var errLost = errors.New("lost")

func (s *shelf) get(_ context.Context, c cid.Cid) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	p, ok := s.parts[c]
	if !ok {
		return nil, errLost
	}
	return p.Data, nil
}

// writeManifest writes stripes and returns the manifest.
func writeManifest(tb testing.TB, s *shelf, k, m int, stripes []Stripe) cid.Cid {
	tb.Helper()
	w, err := NewManifestWriter(testCID(tb, cid.DagProtobuf, 1<<40), k, m, s.put)
	if err != nil {
		tb.Fatalf("writer: %v", err)
	}
	for _, st := range stripes {
		if err := w.Add(st); err != nil {
			tb.Fatalf("add stripe: %v", err)
		}
	}
	c, err := w.Close()
	if err != nil {
		tb.Fatalf("close: %v", err)
	}
	return c
}

func openManifest(tb testing.TB, s *shelf, c cid.Cid) *Manifest {
	tb.Helper()
	m, err := OpenManifest(tb.Context(), c, s.get)
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	return m
}

// makeStripes plans blocks of the given lengths.
func makeStripes(tb testing.TB, k, m int, lengths []int) []Stripe {
	tb.Helper()
	planned, _ := plan(tb, k, series(tb, lengths))
	stripes := make([]Stripe, len(planned))
	for i, data := range planned {
		stripes[i] = fakeStripe(data, m)
	}
	return stripes
}

func checkManifest(tb testing.TB, m *Manifest, stripes []Stripe) {
	tb.Helper()
	i := 0
	var blocks, size int64
	for s, err := range m.Stripes(tb.Context()) {
		if err != nil {
			tb.Fatalf("stripe %d: %v", i, err)
		}
		if i >= len(stripes) || !reflect.DeepEqual(s, stripes[i]) {
			tb.Fatalf("stripe %d differs", i)
		}
		for _, d := range s.Data {
			blocks++
			size += int64(d.Bytes)
		}
		i++
	}
	if i != len(stripes) || m.Blocks() != blocks || m.Bytes() != size || m.CountStripes() != int64(i) {
		tb.Fatalf("%d stripes of %d; %d blocks, %d bytes", i, len(stripes), m.Blocks(), m.Bytes())
	}
	for _, s := range stripes {
		for j, d := range s.Data {
			f, err := m.Find(tb.Context(), d.CID)
			if err != nil || f.Shard != j || !reflect.DeepEqual(f.Stripe, s) || len(f.Chunks) != len(s.Data)+len(s.Parity) {
				tb.Fatalf("find %s: %+v, %v", d.CID, f, err)
			}
		}
	}
}

func TestManifestRoundTrip(t *testing.T) {
	r := seeded(t)
	for range 25 {
		k, m := 1+r.IntN(12), r.IntN(6)
		stripes := makeStripes(t, k, m, randomLengths(r))
		var first, second shelf
		c := writeManifest(t, &first, k, m, stripes)
		if again := writeManifest(t, &second, k, m, stripes); again != c || !slices.Equal(first.order, second.order) {
			t.Fatalf("the same stripes gave another manifest")
		}
		if last := first.order[len(first.order)-1]; last != c || first.parts[c].Kind != PartManifest {
			t.Fatal("the manifest is not the last part")
		}
		manifest := openManifest(t, &first, c)
		checkManifest(t, manifest, stripes)
		if a, b := manifest.Code(); a != k || b != m || manifest.Root() != testCID(t, cid.DagProtobuf, 1<<40) || manifest.CID() != c {
			t.Errorf("code (%d,%d), root %s", a, b, manifest.Root())
		}
		checkRewritten(t, manifest, k, m)
	}
}

// checkRewritten writes a manifest's groups into another, as a writer does who keeps what lives.
func checkRewritten(tb testing.TB, m *Manifest, k, parity int) {
	tb.Helper()
	var s shelf
	w, err := NewManifestWriter(m.Root(), k, parity, s.put)
	if err != nil {
		tb.Fatalf("writer: %v", err)
	}
	for g, err := range m.Groups(tb.Context()) {
		if err != nil {
			tb.Fatalf("groups: %v", err)
		}
		if err := w.AddGroup(g); err != nil {
			tb.Fatalf("add group: %v", err)
		}
		for _, c := range g.Chunks {
			if s.parts[c].Kind != PartDescriptor || s.parts[c].Data == nil {
				tb.Fatalf("chunk %s is not what it was", c)
			}
		}
	}
	if c, err := w.Close(); err != nil || c != m.CID() {
		tb.Fatalf("rewritten manifest is %s, was %s: %v", c, m.CID(), err)
	}
	if _, err := w.Close(); err == nil {
		tb.Fatal("closed twice")
	}
}

// smallManifest is the one whose CID is fixed: that of other versions and machines must be the same.
func smallManifest(tb testing.TB, s *shelf) cid.Cid {
	tb.Helper()
	codec := mustCodec(tb, 4, 2)
	blocks := [][]byte{[]byte("the first block"), bytes.Repeat([]byte("second "), 3000), {}, {0}, []byte("the fifth"), []byte("the sixth")}
	var stripes []Stripe
	p, err := NewPlanner(4, nil, func(data []Shard) error {
		var bodies [][]byte
		for _, d := range data {
			i := slices.IndexFunc(blocks, func(b []byte) bool { return sumCID(cid.Raw, b) == d.CID })
			bodies = append(bodies, blocks[i])
		}
		stripe, _, err := codec.Protect(data, bodies, nil)
		stripes = append(stripes, stripe)
		return err
	})
	if err != nil {
		tb.Fatalf("planner: %v", err)
	}
	for _, b := range blocks {
		if err := p.Add(Shard{sumCID(cid.Raw, b), len(b)}); err != nil {
			tb.Fatalf("plan: %v", err)
		}
	}
	if err := p.Close(); err != nil {
		tb.Fatalf("plan: %v", err)
	}
	return writeManifest(tb, s, 4, 2, stripes)
}

func TestVectors(t *testing.T) {
	var s shelf
	manifest := smallManifest(t, &s)
	var chunks []cid.Cid
	for g, err := range openManifest(t, &s, manifest).Groups(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, g.Chunks...)
	}
	for i, c := range append([]cid.Cid{manifest}, chunks...) {
		if i >= len(vectors) || c.String() != vectors[i] {
			t.Errorf("vector %d: got %s", i, c)
		}
	}
}

// Go-ipld-prime walks from the manifest to everything that it names.
func TestGenericTraversal(t *testing.T) {
	var s shelf
	stripes := makeStripes(t, 4, 2, addFile(addFile(nil, 20<<30), 10000))
	root := writeManifest(t, &s, 4, 2, stripes)
	want := make(map[cid.Cid]bool)
	for _, st := range stripes {
		for _, shard := range st.Shards() {
			want[shard.CID] = true
		}
	}
	for c := range s.parts {
		want[c] = true
	}
	want[testCID(t, cid.DagProtobuf, 1<<40)] = true

	system := cidlink.DefaultLinkSystem()
	system.StorageReadOpener = func(_ linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		return bytes.NewReader(s.parts[l.(cidlink.Link).Cid].Data), nil
	}
	got := make(map[cid.Cid]bool)
	var visit func(c cid.Cid)
	visit = func(c cid.Cid) {
		if got[c] {
			return
		}
		got[c] = true
		if _, ours := s.parts[c]; !ours {
			return
		}
		node, err := system.Load(linking.LinkContext{Ctx: t.Context()}, cidlink.Link{Cid: c}, basicnode.Prototype.Any)
		if err != nil {
			t.Fatalf("load %s: %v", c, err)
		}
		links, err := traversal.SelectLinks(node)
		if err != nil {
			t.Fatalf("links of %s: %v", c, err)
		}
		for _, l := range links {
			visit(l.(cidlink.Link).Cid)
		}
	}
	visit(root)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("found %d links, want %d", len(got), len(want))
	}
	m := openManifest(t, &s, root)
	if len(m.head.index) == 0 {
		t.Errorf("%d pages without index: the test is too small", m.head.sum.pages)
	}
	parts := 0
	for c, err := range m.Parts(t.Context()) {
		if p := s.parts[c]; err != nil || p.Data == nil || p.Kind == PartDescriptor {
			t.Fatalf("part %s of kind %d: %v", c, p.Kind, err)
		}
		parts++
	}
	for _, p := range s.parts {
		if p.Kind != PartDescriptor {
			parts--
		}
	}
	if parts != 0 {
		t.Errorf("%d parts too many", parts)
	}
	checkManifest(t, m, stripes)
}

// Every part reads the same in go-ipld-prime, which writes it back byte for byte.
func TestPartsAreCanonical(t *testing.T) {
	var s shelf
	smallManifest(t, &s)
	writeManifest(t, &s, 3, 2, makeStripes(t, 3, 2, randomLengths(rand.New(rand.NewPCG(7, 7)))))
	for c, p := range s.parts {
		if again := reencode(t, p.Data); !bytes.Equal(again, p.Data) {
			t.Errorf("part %s of kind %d is not canonical", c, p.Kind)
		}
	}
}

// decodeGeneric decodes by go-ipld-prime.
func decodeGeneric(tb testing.TB, b []byte) datamodel.Node {
	tb.Helper()
	node := basicnode.Prototype.Any.NewBuilder()
	if err := (dagcbor.DecodeOptions{AllowLinks: true}).Decode(node, bytes.NewReader(b)); err != nil {
		tb.Fatalf("go-ipld-prime: %v", err)
	}
	return node.Build()
}

// reencode decodes and encodes by go-ipld-prime.
func reencode(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	if err := dagcbor.Encode(decodeGeneric(tb, b), &out); err != nil {
		tb.Fatalf("go-ipld-prime: %v", err)
	}
	return out.Bytes()
}

func TestFindWhatIsNotThere(t *testing.T) {
	var s shelf
	stripes := makeStripes(t, 2, 1, []int{5, 5, 7})
	m := openManifest(t, &s, writeManifest(t, &s, 2, 1, stripes))
	for _, c := range []cid.Cid{cid.Undef, testCID(t, cid.Raw, 99), testCID(t, cid.Libp2pKey, 1), stripes[0].Parity[0].CID} {
		if _, err := m.Find(t.Context(), c); !errors.Is(err, ErrNotFound) {
			t.Errorf("find %s: %v", c, err)
		}
	}
	other := cid.NewCidV1(cid.DagProtobuf, testCID(t, cid.Raw, 1).Hash())
	if f, err := m.Find(t.Context(), other); err != nil || f.Stripe.Data[f.Shard].CID != testCID(t, cid.Raw, 1) {
		t.Errorf("find by another codec: %+v, %v", f, err)
	}
	empty := openManifest(t, &s, writeManifest(t, &s, 2, 1, nil))
	if _, err := empty.Find(t.Context(), other); !errors.Is(err, ErrNotFound) || empty.Blocks() != 0 {
		t.Errorf("find in nothing: %v", err)
	}
}

// Many readers at once, of more pages than are kept.
func TestReadersAtOnce(t *testing.T) {
	var s shelf
	stripes := makeStripes(t, 2, 1, slices.Repeat([]int{1 << 20}, 60000))
	m := openManifest(t, &s, writeManifest(t, &s, 2, 1, stripes))
	if m.head.sum.pages <= keptPages {
		t.Fatalf("%d pages are too few", m.head.sum.pages)
	}
	seed := seeded(t).Uint64()
	err := Parallel(16, func(i int) error {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		for range 30 {
			d := stripes[r.IntN(len(stripes))].Data[1]
			if f, err := m.Find(t.Context(), d.CID); err != nil || f.Stripe.Data[1] != d {
				return fmt.Errorf("find %s: %w", d.CID, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range m.Groups(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: got %v", err)
		}
	}
}

// Each part lost in turn: blocks are found as before, or the loss is the reason.
func TestLostParts(t *testing.T) {
	var s shelf
	stripes := makeStripes(t, 2, 1, slices.Repeat([]int{1 << 20}, 25000))
	root := writeManifest(t, &s, 2, 1, stripes)
	lost := 0
	for _, c := range s.order {
		if s.parts[c].Kind == PartDescriptor {
			continue
		}
		lost++
		part := s.parts[c]
		delete(s.parts, c)
		m, err := OpenManifest(t.Context(), root, s.get)
		if c == root {
			if !errors.Is(err, errLost) {
				t.Fatalf("open: %v", err)
			}
			continue
		}
		for i := 0; i < len(stripes); i += 501 {
			d := stripes[i].Data[0]
			if f, err := m.Find(t.Context(), d.CID); !errors.Is(err, errLost) && (err != nil || f.Stripe.Data[0] != d) {
				t.Fatalf("part %s lost, find %s: %v", c, d.CID, err)
			}
		}
		var end error
		for _, err := range m.Groups(t.Context()) {
			end = err
		}
		if part.Kind == PartPage && !errors.Is(end, errLost) {
			t.Fatalf("page %s lost, groups: %v", c, end)
		}
		s.parts[c] = part
	}
	if lost < 8 {
		t.Errorf("only %d parts: the test is too small", lost)
	}
}

func TestManifestOfTooMuch(t *testing.T) {
	var s shelf
	if _, err := NewManifestWriter(cid.Undef, 4, 2, s.put); !errors.Is(err, ErrShape) {
		t.Errorf("no root: %v", err)
	}
	if _, err := NewManifestWriter(testCID(t, cid.Raw, 1), 0, 2, s.put); !errors.Is(err, ErrShape) {
		t.Errorf("no code: %v", err)
	}
	good := fakeStripe([]Shard{{testCID(t, cid.Raw, 1), 5}, {testCID(t, cid.Raw, 2), 4}}, 1)
	for i, spoil := range []func(s *Stripe){
		func(s *Stripe) { s.Data = nil },
		func(s *Stripe) { s.Data = append(s.Data, s.Data[0]) },
		func(s *Stripe) { s.Data[1] = s.Data[0] },
		func(s *Stripe) { s.Data[0].Bytes = -1 },
		func(s *Stripe) { s.Data[0].CID = cid.Undef },
		func(s *Stripe) { s.Parity = nil },
		func(s *Stripe) { s.Parity[0].Bytes = 4 },
		func(s *Stripe) { s.Parity[0].CID = testCID(t, cid.DagProtobuf, 1) },
	} {
		bad := Stripe{slices.Clone(good.Data), slices.Clone(good.Parity)}
		spoil(&bad)
		w, err := NewManifestWriter(testCID(t, cid.Raw, 1), 2, 1, s.put)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(bad); !errors.Is(err, ErrShape) {
			t.Errorf("bad stripe %d: %v", i, err)
		}
		if _, err := w.Close(); !errors.Is(err, ErrShape) {
			t.Errorf("bad stripe %d, close: %v", i, err)
		}
	}
	wide := Group{}
	for i := range 9 {
		wide.Stripes = append(wide.Stripes, fakeStripe([]Shard{{testCID(t, cid.Raw, uint64(i)), 1 << 20}}, 1))
	}
	w, err := NewManifestWriter(testCID(t, cid.Raw, 1), 2, 1, s.put)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddGroup(wide); !errors.Is(err, ErrShape) {
		t.Errorf("group of 9 MiB: %v", err)
	}
	full := errors.New("full")
	w, err = NewManifestWriter(testCID(t, cid.Raw, 1), 2, 1, func(Part) error { return full })
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddGroup(Group{Stripes: []Stripe{good}}); !errors.Is(err, full) {
		t.Errorf("put failed: %v", err)
	}
}
