package unixfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
)

// boxoDir builds a directory with boxo: entry i is a raw file "i".
func boxoDir(t testing.TB, store *memBlocks, hamt bool, fanout int, names []string) cid.Cid {
	t.Helper()
	opts := []uio.DirectoryOption{uio.WithCidBuilder(uio.UnixFS_v1_2025.CidBuilder()), uio.WithMaxHAMTFanout(fanout)}
	var d uio.Directory
	var err error
	if hamt {
		d, err = uio.NewHAMTDirectory(boxoView{store}, 0, opts...)
	} else {
		d, err = uio.NewBasicDirectory(boxoView{store}, opts...)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		n, err := merkledag.NewRawNodeWPrefix(fmt.Append(nil, i), uio.UnixFS_v1_2025.CidBuilder())
		if err != nil {
			t.Fatal(err)
		}
		_ = store.Add(context.Background(), n)
		if err := d.AddChild(context.Background(), name, n); err != nil {
			t.Fatal(err)
		}
	}
	n, err := d.GetNode()
	if err != nil {
		t.Fatal(err)
	}
	_ = store.Add(context.Background(), n)
	return n.Cid()
}

func openDir(t testing.TB, r *Reader, c cid.Cid) *Dir {
	t.Helper()
	n, err := r.Node(context.Background(), c, c)
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.Dir(n)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// listed collects up to max entries behind after.
func listed(t testing.TB, d *Dir, after Cursor, max int) []EntryAt {
	t.Helper()
	var out []EntryAt
	for e, err := range d.Entries(context.Background(), after) {
		if err != nil {
			t.Fatal(err)
		}
		if out = append(out, e); len(out) == max {
			break
		}
	}
	return out
}

func manyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("name-%05d", i)
	}
	return names
}

// TestDirLikeBoxo lists and looks up in directories that boxo built, in one go and in pages.
func TestDirLikeBoxo(t *testing.T) {
	rnd := newRand(t)
	tests := []struct {
		hamt   bool
		fanout int
		names  int
	}{
		{false, 256, 0}, {false, 256, 1}, {false, 256, 3000},
		{true, 256, 0}, {true, 256, 1}, {true, 256, 5000}, {true, 8, 2000}, {true, 16, 500}, {true, 1024, 6000},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			store, names := newMemBlocks(), manyNames(tt.names)
			rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			root := boxoDir(t, store, tt.hamt, tt.fanout, names)
			d := openDir(t, NewReader(store, Config{}), root)
			all := listed(t, d, 0, -1)
			if len(all) != len(names) || d.Skipped() != 0 {
				t.Fatalf("%d entries and %d skipped, want %d", len(all), d.Skipped(), len(names))
			}
			found := map[string]Entry{}
			for _, e := range all {
				found[e.Name] = e.Entry
			}
			for i, name := range names {
				e, err := d.Lookup(context.Background(), name)
				if err != nil || e != found[name] || e.TSize != uint64(len(fmt.Sprint(i))) {
					t.Fatalf("look up %q: %v %v, listed %v", name, e, err, found[name])
				}
				if raw := store.m[e.CID].RawData(); string(raw) != fmt.Sprint(i) {
					t.Fatalf("%q leads to %q", name, raw)
				}
			}
			if _, err := d.Lookup(context.Background(), "absent"); !errors.Is(err, ErrNotFound) {
				t.Errorf("absent: %v", err)
			}
			// In pages, each with a Reader that knows nothing.
			var paged []EntryAt
			for after := Cursor(0); ; {
				page := listed(t, openDir(t, NewReader(store, Config{}), root), after, 1+rnd.IntN(400))
				if len(page) == 0 {
					break
				}
				paged = append(paged, page...)
				after = page[len(page)-1].Next
				if after >= 1<<63 {
					t.Fatal("cursor past 1<<63")
				}
			}
			if !slices.Equal(paged, all) {
				t.Errorf("in pages %d entries, at once %d, or others", len(paged), len(all))
			}
		})
	}
}

func TestEntriesBehindTheEnd(t *testing.T) {
	for _, hamt := range []bool{false, true} {
		store := newMemBlocks()
		d := openDir(t, NewReader(store, Config{}), boxoDir(t, store, hamt, 256, manyNames(100)))
		for _, after := range []Cursor{1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
			if got := listed(t, d, after, -1); len(got) > 60 || after >= 1<<63-1 && len(got) != 0 {
				t.Errorf("hamt %v: %d entries behind %d", hamt, len(got), after)
			}
		}
	}
}

// TestUnusableNames: what no file system can show is left out, counted, told once, and not found.
func TestUnusableNames(t *testing.T) {
	store := newMemBlocks()
	leaf := store.put(cid.Raw, []byte("x"))
	bad := []string{"", ".", "..", "a/b", "/", "a\x00b", strings.Repeat("x", 256)}
	good := []string{"a", "b", "b", "a", "\xff\xfe", "...", strings.Repeat("x", 255), "a"}
	var links []link
	for _, name := range slices.Concat(bad, good) {
		links = append(links, link{name: name, c: leaf})
	}
	sorted := slices.Clone(links)
	slices.SortStableFunc(sorted, func(a, b link) int { return strings.Compare(a.name, b.name) })
	for _, ls := range [][]link{links, sorted} {
		var log bytes.Buffer
		r := NewReader(store, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		d := openDir(t, r, store.putUnsorted(&pb.Data{Type: pb.Data_Directory.Enum()}, ls...))
		var names []string
		for _, e := range listed(t, d, 0, -1) {
			names = append(names, e.Name)
		}
		slices.Sort(names)
		want := slices.Compact(slices.Sorted(slices.Values(good)))
		if !slices.Equal(names, want) || d.Skipped() != uint64(len(ls)-len(want)) {
			t.Errorf("listed %q, skipped %d", names, d.Skipped())
		}
		if strings.Count(log.String(), "\n") != 1 {
			t.Errorf("logged %q", log.String())
		}
		for _, name := range bad {
			if _, err := d.Lookup(context.Background(), name); !errors.Is(err, ErrNotFound) {
				t.Errorf("%q: %v", name, err)
			}
		}
		for _, name := range good {
			if _, err := d.Lookup(context.Background(), name); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

// TestFirstOfEqualNames: listing and lookup agree which of two equal names is meant.
func TestFirstOfEqualNames(t *testing.T) {
	store := newMemBlocks()
	one, two := store.put(cid.Raw, []byte("1")), store.put(cid.Raw, []byte("2"))
	for _, ls := range [][]link{
		{{name: "z", c: two}, {name: "a", c: one}, {name: "m", c: two}, {name: "a", c: two}},
		{{name: "a", c: one}, {name: "a", c: two}, {name: "a", c: two}},
	} {
		d := openDir(t, NewReader(store, Config{}), store.putUnsorted(&pb.Data{Type: pb.Data_Directory.Enum()}, ls...))
		e, err := d.Lookup(context.Background(), "a")
		if err != nil || e.CID != one {
			t.Errorf("looked up %v, %v", e, err)
		}
		for _, e := range listed(t, d, 0, -1) {
			if e.Name == "a" && e.CID != one {
				t.Errorf("listed %v", e)
			}
		}
	}
}

func TestResolve(t *testing.T) {
	store := newMemBlocks()
	file := store.put(cid.Raw, []byte("text"))
	long := store.node(fileData(nil, 4, 4), link{c: file})
	sub := store.node(&pb.Data{Type: pb.Data_Directory.Enum()}, link{name: "deep", c: long, tsize: 9}, link{name: "f", c: file, tsize: 4})
	root := store.node(&pb.Data{Type: pb.Data_Directory.Enum()}, link{name: "f", c: file}, link{name: "sub", c: sub})
	r := NewReader(store, Config{})
	for path, want := range map[string]cid.Cid{"": root, "/": root, "f": file, "sub/deep": long, "/sub//./f": file, "sub/": sub} {
		n, err := r.Resolve(context.Background(), root, path)
		if err != nil || n.CID != want || n.Dataset != root {
			t.Errorf("%q: %v, %v", path, n, err)
		}
	}
	for path, want := range map[string]error{"x": ErrNotFound, "f/x": ErrNotDir, "sub/..": ErrNotFound, "sub/deep/x": ErrNotDir} {
		if n, err := r.Resolve(context.Background(), root, path); !errors.Is(err, want) {
			t.Errorf("%q: %v, %v, want %v", path, n, err, want)
		}
	}
	n, _ := r.Node(context.Background(), root, root)
	if _, err := r.Open(n); !errors.Is(err, ErrIsDir) {
		t.Errorf("open a directory: %v", err)
	}
}

// TestEntryNode: an entry's size is believed for raw files, and a lie is found when reading.
func TestEntryNode(t *testing.T) {
	store := newMemBlocks()
	file := store.put(cid.Raw, []byte("text"))
	store.away[file] = true
	r := NewReader(store, Config{})
	for tsize, want := range map[uint64]error{4: nil, 5: ErrCorrupt, 3: ErrCorrupt} {
		n, err := r.LocalEntryNode(context.Background(), Entry{Name: "f", CID: file, TSize: tsize}, cid.Undef)
		if err != nil || n.Bytes != tsize || store.count() != 0 {
			t.Fatalf("%v, %v, %d fetches", n, err, store.count())
		}
		f, _ := r.Open(n)
		if _, err := f.ReadAt(context.Background(), make([]byte, 2), 0); !errors.Is(err, want) {
			t.Errorf("stated %d: %v", tsize, err)
		}
		clear(store.gets)
	}
	for _, tsize := range []uint64{0, 1 << 40} { // not stated, or nonsense
		if _, err := r.LocalEntryNode(context.Background(), Entry{Name: "f", CID: file, TSize: tsize}, cid.Undef); !errors.Is(err, ErrNotLocal) {
			t.Errorf("stated %d: %v", tsize, err)
		}
		if n, err := r.EntryNode(context.Background(), Entry{Name: "f", CID: file, TSize: tsize}, cid.Undef); err != nil || n.Bytes != 4 {
			t.Errorf("stated %d: %v, %v", tsize, n, err)
		}
	}
}

// TestListStops: a listing that is broken off, or fails, leaves no goroutine and fetches little.
func TestListStops(t *testing.T) {
	store := newMemBlocks()
	root := boxoDir(t, store, true, 256, manyNames(20_000))
	d := openDir(t, NewReader(store, Config{}), root)
	if got := listed(t, d, 0, 5); len(got) != 5 || store.count() > 5 {
		t.Errorf("%d entries with %d fetches", len(got), store.count())
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := 0
	var err error
	for _, err = range d.Entries(ctx, 0) {
		if n++; n == 10_000 {
			cancel()
		}
	}
	if n != 10_001 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d entries, %v", n, err)
	}
	store.fail = errors.New("nobody has it")
	n = 0
	for _, err = range openDir(t, NewReader(&onlyRoot{store, root}, Config{}), root).Entries(context.Background(), 0) {
		n++
	}
	if n != 1 || !errors.Is(err, store.fail) {
		t.Errorf("%d yields, %v", n, err)
	}
}

// TestListLooksAhead lists a HAMT whose blocks take 10 ms each.
func TestListLooksAhead(t *testing.T) {
	store := newMemBlocks()
	root := boxoDir(t, store, true, 256, manyNames(20_000))
	synctest.Test(t, func(t *testing.T) {
		store.delay = 10 * time.Millisecond
		begin := time.Now()
		if got := listed(t, openDir(t, NewReader(store, Config{}), root), 0, -1); len(got) != 20_000 {
			t.Errorf("%d entries", len(got))
		}
		fetches := time.Duration(store.count())
		if serial := fetches * store.delay; time.Since(begin) > serial/10 {
			t.Errorf("%v of virtual time, one after another takes %v", time.Since(begin), serial)
		}
		if store.busiest < 16 || store.busiest > 64 {
			t.Errorf("%d fetches at once", store.busiest)
		}
	})
}
