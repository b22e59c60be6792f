package dag

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	uio "github.com/ipfs/boxo/ipld/unixfs/io"
)

// entry is one entry of a test archive.
type entry struct {
	name, target string
	kind         byte
	mode         int64
	data         []byte
}

var tarTime = time.Unix(1_700_000_000, 123_456_789)

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.target, Mode: e.mode, Size: int64(len(e.data)), ModTime: tarTime, Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func file(name, data string) entry {
	return entry{name: name, kind: tar.TypeReg, mode: 0o644, data: []byte(data)}
}
func folder(name string) entry { return entry{name: name, kind: tar.TypeDir, mode: 0o755} }

// byHand builds what an archive should become with File, Symlink and Dir.
type byHand struct {
	t testing.TB
	b *Builder
}

func (h byHand) file(data []byte, mode os.FileMode) Link {
	l, err := h.b.File(context.Background(), bytes.NewReader(data), int64(len(data)), Meta{Mode: mode, HasMode: true, ModTime: tarTime})
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

func (h byHand) dir(m Meta, entries map[string]Link) Link {
	d := h.b.Dir(m)
	for name, l := range entries {
		if err := d.Add(name, l); err != nil {
			h.t.Fatal(err)
		}
	}
	l, err := d.Close(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

func TestTarTree(t *testing.T) {
	big, bigger := randomBytes(1, 2<<20), randomBytes(2, 9<<20+5)
	entries := []entry{
		file("top.txt", "at the top"),
		file("tree/sub/early", "before its directory"),
		folder("./tree/"),
		{name: "tree/big", kind: tar.TypeReg, mode: 0o4711, data: big},
		{name: "tree/link", kind: tar.TypeSymlink, mode: 0o777, target: "../elsewhere"},
		{name: "tree/hard", kind: tar.TypeLink, target: "tree/big"},
		{name: "tree/none", kind: tar.TypeReg, mode: 0},
		folder("tree/empty"),
		file("tree/twice", "first"),
		{name: "tree/bigger", kind: tar.TypeReg, mode: 0o600, data: bigger},
		file("tree//twice", "second"),
		{name: "tree/hardlink to a link", kind: tar.TypeLink, target: "./tree/link"},
		folder("tree/sub"),
	}
	for _, preserve := range []bool{false, true} {
		s := newMemSink()
		roots, err := newTestBuilder(t, s, Config{Preserve: preserve}).Tar(context.Background(), bytes.NewReader(tarOf(t, entries...)), TarOptions{})
		if err != nil {
			t.Fatal(err)
		}
		checkSink(t, s)
		h := byHand{t, newTestBuilder(t, newMemSink(), Config{Preserve: preserve})}
		link, err := h.b.Symlink(context.Background(), "../elsewhere", Meta{Mode: 0o777, HasMode: true, ModTime: tarTime})
		if err != nil {
			t.Fatal(err)
		}
		m := Meta{Mode: 0o755, HasMode: true, ModTime: tarTime}
		tree := h.dir(m, map[string]Link{
			"sub":  h.dir(m, map[string]Link{"early": h.file([]byte("before its directory"), 0o644)}),
			"big":  h.file(big, 0o711|os.ModeSetuid),
			"hard": h.file(big, 0o711|os.ModeSetuid),
			"link": link, "hardlink to a link": link,
			"none": h.file(nil, 0), "empty": h.dir(m, nil),
			"twice": h.file([]byte("second"), 0o644), "bigger": h.file(bigger, 0o600),
		})
		want := []Root{{"top.txt", h.file([]byte("at the top"), 0o644)}, {"tree", tree}}
		if len(roots) != 2 || roots[0].Link.CID != want[0].Link.CID || roots[1].Link.CID != tree.CID || roots[1].Link.Bytes != tree.Bytes {
			t.Errorf("preserve %v: got %v, want %v", preserve, roots, want)
		}
		if len(s.bodies) != 1 {
			t.Errorf("%d bodies, want 1", len(s.bodies))
		}
	}
}

// TestTarOrder: the order of entries and the number of workers change nothing.
func TestTarOrder(t *testing.T) {
	var entries []entry
	for i := range 1500 {
		entries = append(entries, file(fmt.Sprintf("root/d%d/f%d", i%7, i), strings.Repeat(fmt.Sprint(i), i%40)))
	}
	for i := range 7 {
		entries = append(entries, folder(fmt.Sprintf("root/d%d", i)))
	}
	var first Root
	for seed := range uint64(4) {
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		s := newMemSink()
		b := newTestBuilder(t, s, Config{Workers: int(seed*2 + 1), Preserve: true})
		roots, err := b.Tar(context.Background(), bytes.NewReader(tarOf(t, entries...)), TarOptions{})
		if err != nil || len(roots) != 1 {
			t.Fatal(roots, err)
		}
		checkSink(t, s)
		if s.puts > 60 {
			t.Errorf("%d puts for 1,500 small files", s.puts)
		}
		if seed == 0 {
			first = roots[0]
		} else if roots[0] != first {
			t.Errorf("seed %d: %v, want %v", seed, roots[0], first)
		}
		n, err := dagService{s: s}.Get(context.Background(), roots[0].Link.CID)
		if err != nil {
			t.Fatal(err)
		}
		d, err := uio.NewDirectoryFromNode(dagService{s: s}, n)
		if err != nil {
			t.Fatal(err)
		}
		if links, err := d.Links(context.Background()); err != nil || len(links) != 7 {
			t.Errorf("boxo lists %d entries, %v", len(links), err)
		}
	}
}

func TestTarSkips(t *testing.T) {
	entries := []entry{
		file("/etc/passwd", "absolute"), file("ok/../../up", "up"), file("ok/\xff\xfe", "no utf-8"),
		file("ok/"+strings.Repeat("x", 256), "long"), {name: "ok/fifo", kind: tar.TypeFifo}, {name: "ok/null", kind: tar.TypeChar},
		{name: "ok/disk", kind: tar.TypeBlock}, {name: "ok/dangling", kind: tar.TypeLink, target: "ok/absent"},
		{name: "ok/outside", kind: tar.TypeLink, target: "/etc/passwd"}, file("ok/file", "x"), file("ok/file/below", "y"), folder("ok/file"),
		folder("ok/dir"), file("ok/dir", "z"), {name: "ok/hard dir", kind: tar.TypeLink, target: "ok/dir"},
		{name: "ok/long link", kind: tar.TypeSymlink, target: strings.Repeat("x", 4096)}, file(strings.Repeat("d/", 600)+"f", "deep"), folder("./"),
	}
	var skipped []string
	b := newTestBuilder(t, newMemSink(), Config{})
	roots, err := b.Tar(context.Background(), bytes.NewReader(tarOf(t, entries...)), TarOptions{
		Skip: func(path string, reason error) error {
			if !errors.Is(reason, ErrName) {
				t.Errorf("%q: %v", path, reason)
			}
			skipped = append(skipped, path)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range entries {
		if !slices.Contains([]string{"ok/file", "ok/dir", "./"}, e.name) || e.kind == tar.TypeDir && e.name == "ok/file" || e.kind == tar.TypeReg && e.name == "ok/dir" {
			want = append(want, e.name)
		}
	}
	for i := range skipped {
		skipped[i] = strings.TrimSuffix(skipped[i], "/")
	}
	if !slices.Equal(skipped, want) {
		t.Errorf("skipped %q\nwant %q", skipped, want)
	}
	h := byHand{t, b}
	tree := h.dir(Meta{}, map[string]Link{"file": h.file([]byte("x"), 0), "dir": h.dir(Meta{}, nil)})
	if len(roots) != 1 || roots[0].Name != "ok" || roots[0].Link.CID != tree.CID {
		t.Errorf("roots %v, want %v", roots, tree)
	}
	for _, e := range entries {
		_, err := b.Tar(context.Background(), bytes.NewReader(tarOf(t, folder("ok/dir"), file("ok/file", "x"), e)), TarOptions{})
		if slices.Contains(want, e.name) && !errors.Is(err, ErrName) && e.name != "ok/file" && e.name != "ok/dir" {
			t.Errorf("%q without Skip: %v", e.name, err)
		}
	}
}

func TestTarErrors(t *testing.T) {
	whole := tarOf(t, file("a/one", strings.Repeat("1", 3000)), file("a/two", strings.Repeat("2", 2<<20)), file("a/three", "3"))
	boom := errors.New("boom")
	tests := []struct {
		name string
		r    io.Reader
		opts TarOptions
		fail error
		want error
	}{
		{"cut off in a small file", bytes.NewReader(whole[:2000]), TarOptions{}, nil, ErrArchive},
		{"cut off in a large file", bytes.NewReader(whole[:1<<20]), TarOptions{}, nil, ErrArchive},
		{"noise", bytes.NewReader(randomBytes(3, 4096)), TarOptions{}, nil, ErrArchive},
		{"too many", bytes.NewReader(whole), TarOptions{MaxEntries: 2}, nil, ErrArchive},
		{"sink", bytes.NewReader(whole), TarOptions{}, boom, boom},
		{"skip", bytes.NewReader(tarOf(t, file("/x", ""))), TarOptions{Skip: func(string, error) error { return boom }}, nil, boom},
	}
	for _, tt := range tests {
		s := newMemSink()
		s.fail = tt.fail
		if roots, err := newTestBuilder(t, s, Config{}).Tar(context.Background(), tt.r, tt.opts); !errors.Is(err, tt.want) || roots != nil {
			t.Errorf("%s: %v, %v", tt.name, roots, err)
		}
	}
	if roots, err := newTestBuilder(t, newMemSink(), Config{}).Tar(context.Background(), bytes.NewReader(whole), TarOptions{MaxEntries: 3}); err != nil || len(roots) != 1 {
		t.Errorf("as many as allowed: %v, %v", roots, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newTestBuilder(t, newMemSink(), Config{}).Tar(ctx, bytes.NewReader(whole), TarOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// FuzzTar imports noise. Whatever it makes must be whole: boxo can walk it.
func FuzzTar(f *testing.F) {
	f.Add(tarOf(f, folder("d"), file("d/f", "data"), entry{name: "d/l", kind: tar.TypeSymlink, target: "f"}, entry{name: "h", kind: tar.TypeLink, target: "d/f"}), true)
	f.Add(tarOf(f, file("/abs", ""), file("../up", "x"), file("a", "1"), file("a/b", "2")), false)
	f.Fuzz(func(t *testing.T, raw []byte, preserve bool) {
		s := newMemSink()
		b, err := New(Config{Sink: s, Visit: s.visit, Preserve: preserve, Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		// A sparse file may claim any length: what is read of the stream bounds what may come out.
		ctx, cancel := context.WithCancelCause(context.Background())
		s.limit, s.over = 64<<20, func() { cancel(errors.New("enough")) }
		roots, err := b.Tar(ctx, bytes.NewReader(raw), TarOptions{Skip: func(string, error) error { return nil }})
		cancel(nil)
		if err != nil {
			return
		}
		checkSink(t, s)
		for _, r := range roots {
			walkBoxo(t, s, r.Link)
		}
	})
}

func walkBoxo(t *testing.T, s *memSink, l Link) {
	t.Helper()
	n, err := dagService{s: s}.Get(context.Background(), l.CID)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := n.Size(); err != nil || size != l.Bytes {
		t.Fatalf("%s: boxo says %d bytes, %v; we %d", l.CID, size, err, l.Bytes)
	}
	for _, k := range n.Links() {
		walkBoxo(t, s, Link{CID: k.Cid, Bytes: k.Size})
	}
}
