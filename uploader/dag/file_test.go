package dag

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"
	"time"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
)

// boxoFile imports with boxo's own importer under the profile.
func boxoFile(t testing.TB, s *memSink, r io.Reader, chunkBytes int64, width int, m Meta) Link {
	t.Helper()
	params := helpers.DagBuilderParams{
		Maxlinks: width, RawLeaves: true, CidBuilder: uio.UnixFS_v1_2025.CidBuilder(), Dagserv: dagService{s: s},
		FileMode: m.Mode, FileModTime: m.ModTime,
	}
	db, err := params.New(chunk.NewSizeSplitter(r, chunkBytes))
	if err != nil {
		t.Fatal(err)
	}
	n, err := balanced.Layout(db)
	if err != nil {
		t.Fatal(err)
	}
	size, err := n.Size()
	if err != nil {
		t.Fatal(err)
	}
	return Link{CID: n.Cid(), Bytes: size}
}

func TestFileEqualsBoxo(t *testing.T) {
	if uio.UnixFS_v1_2025.ChunkSize != defaultChunkBytes || uio.UnixFS_v1_2025.FileDAGWidth != defaultWidth {
		t.Fatal("the profile's file settings have changed")
	}
	const mib = 1 << 20
	for _, size := range []int{0, 1, 1000, mib - 1, mib, mib + 1, 2 * mib, BodyBytes - 1, BodyBytes, BodyBytes + 12345} {
		data := randomBytes(uint64(size), size)
		want := boxoFile(t, newMemSink(), bytes.NewReader(data), mib, 1024, Meta{})
		for _, announced := range []int64{int64(size), -1} {
			s := newMemSink()
			got, err := newTestBuilder(t, s, Config{}).File(context.Background(), bytes.NewReader(data), announced, Meta{Mode: 0o600})
			if err != nil {
				t.Fatal(err)
			}
			if got.CID != want.CID || got.Bytes != want.Bytes || got.FileBytes != uint64(size) {
				t.Errorf("%d bytes: got %v, boxo has %v", size, got, want)
			}
			checkSink(t, s)
			if inBody := s.bodies[got.CID] == uint64(size) && size > 0; inBody != (announced >= BodyBytes) {
				t.Errorf("%d bytes announced as %d: body %v", size, announced, s.bodies)
			}
		}
	}
}

func TestFile1025LeavesEqualsBoxo(t *testing.T) {
	const size = 1024<<20 + 1
	zeros := func() io.Reader { return io.LimitReader(zeroReader{}, size) }
	want := boxoFile(t, newMemSink(), zeros(), 1<<20, 1024, Meta{})
	s := newMemSink()
	got, err := newTestBuilder(t, s, Config{}).File(context.Background(), zeros(), size, Meta{})
	if err != nil {
		t.Fatal(err)
	}
	if got.CID != want.CID || got.Bytes != want.Bytes {
		t.Errorf("got %v, boxo has %v", got, want)
	}
	checkSink(t, s)
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestFileShapesEqualBoxo(t *testing.T) {
	for _, width := range []int{2, 3, 8} {
		for leaves := 1; leaves <= 70; leaves++ {
			data := randomBytes(uint64(leaves), leaves*16-5)
			want := boxoFile(t, newMemSink(), bytes.NewReader(data), 16, width, Meta{})
			s := newMemSink()
			b := newTestBuilder(t, s, Config{chunkBytes: 16, width: width})
			got, err := b.File(context.Background(), iotest.OneByteReader(bytes.NewReader(data)), int64(len(data)), Meta{})
			if err != nil {
				t.Fatal(err)
			}
			if got.CID != want.CID || got.Bytes != want.Bytes {
				t.Errorf("width %d, %d leaves: got %v, boxo has %v", width, leaves, got, want)
			}
			checkSink(t, s)
		}
	}
}

func TestPreserveFile(t *testing.T) {
	when := time.Unix(1700000000, 123456789)
	for _, size := range []int{0, 1, 1 << 20, 3<<20 + 7} {
		m := Meta{Mode: 0o4751 | os.ModeSetuid, ModTime: when}
		data := randomBytes(7, size)
		s := newMemSink()
		got, err := newTestBuilder(t, s, Config{Preserve: true}).File(context.Background(), bytes.NewReader(data), int64(size), m)
		if err != nil {
			t.Fatal(err)
		}
		if got.CID.Type() != cid.DagProtobuf {
			t.Errorf("%d bytes: root is not dag-pb", size)
		}
		n, err := dagService{s: s}.Get(context.Background(), got.CID)
		if err != nil {
			t.Fatal(err)
		}
		fsn, err := unixfs.FSNodeFromBytes(n.(*merkledag.ProtoNode).Data())
		if err != nil {
			t.Fatal(err)
		}
		if fsn.Mode() != 0o751|os.ModeSetuid || !fsn.ModTime().Equal(when) || fsn.FileSize() != uint64(size) {
			t.Errorf("boxo reads mode %v, time %v, size %d", fsn.Mode(), fsn.ModTime(), fsn.FileSize())
		}
		dr, err := uio.NewDagReader(context.Background(), n, dagService{s: s})
		if err != nil {
			t.Fatal(err)
		}
		back, err := io.ReadAll(dr)
		if err != nil || !bytes.Equal(back, data) {
			t.Errorf("%d bytes: boxo reads %d bytes back, %v", size, len(back), err)
		}
		checkSink(t, s)
		if want := boxoWrapped(t, s, data, m); size <= 1<<20 && want != got.CID {
			t.Errorf("%d bytes with attributes: got %s, boxo's nodes make %s", size, got.CID, want)
		}
		if size > 1<<20 {
			want := boxoFile(t, newMemSink(), bytes.NewReader(data), 1<<20, 1024, Meta{Mode: m.Mode, ModTime: when})
			if want.CID != got.CID {
				t.Errorf("%d bytes with attributes: got %s, boxo has %s", size, got.CID, want.CID)
			}
		}
	}
}

// boxoWrapped makes, with boxo's nodes, the root above the one leaf of a small file.
func boxoWrapped(t *testing.T, s *memSink, data []byte, m Meta) cid.Cid {
	t.Helper()
	fsn := unixfs.NewFSNode(unixfs.TFile)
	root := new(merkledag.ProtoNode)
	if err := root.SetCidBuilder(uio.UnixFS_v1_2025.CidBuilder()); err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 {
		leaf, err := merkledag.NewRawNodeWPrefix(data, uio.UnixFS_v1_2025.CidBuilder())
		if err != nil {
			t.Fatal(err)
		}
		if err := root.AddNodeLink("", leaf); err != nil {
			t.Fatal(err)
		}
		fsn.AddBlockSize(uint64(len(data)))
	}
	fsn.SetMode(m.Mode)
	fsn.SetModTime(m.ModTime)
	raw, err := fsn.GetBytes()
	if err != nil {
		t.Fatal(err)
	}
	root.SetData(raw)
	return root.Cid()
}

func TestFileErrors(t *testing.T) {
	boom := errors.New("boom")
	data := randomBytes(1, 6<<20)
	tests := []struct {
		name      string
		r         io.Reader
		announced int64
		fail      error
		want      error
	}{
		{"shorter", bytes.NewReader(data[:5<<20]), 6 << 20, nil, ErrSize},
		{"longer", bytes.NewReader(data), 6<<20 - 1, nil, ErrSize},
		{"longer by chunks", bytes.NewReader(data), 4 << 20, nil, ErrSize},
		{"short small", bytes.NewReader(data[:5]), 6, nil, ErrSize},
		{"long small", bytes.NewReader(data[:6]), 5, nil, ErrSize},
		{"not empty", bytes.NewReader(data[:6]), 0, nil, ErrSize},
		{"reader fails", io.MultiReader(bytes.NewReader(data[:5<<20]), iotest.ErrReader(boom)), 6 << 20, nil, boom},
		{"reader is cut off", io.MultiReader(bytes.NewReader(data[:100]), iotest.ErrReader(io.ErrUnexpectedEOF)), -1, nil, io.ErrUnexpectedEOF},
		{"sink fails", bytes.NewReader(data), 6 << 20, boom, boom},
		{"sink fails loose", bytes.NewReader(data), -1, boom, boom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newMemSink()
			s.fail = tt.fail
			_, err := newTestBuilder(t, s, Config{}).File(context.Background(), tt.r, tt.announced, Meta{})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if s.open != 0 || len(s.bodies) != 0 || (tt.announced >= BodyBytes) != (s.aborted == 1) {
				t.Errorf("open %d, committed %v, aborted %d", s.open, s.bodies, s.aborted)
			}
		})
	}
}

func TestFileCancel(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	s := newMemSink()
	r := readerFunc(func(p []byte) (int, error) {
		if s.puts > 3 {
			cancel(cause)
		}
		return zeroReader{}.Read(p)
	})
	_, err := newTestBuilder(t, s, Config{Workers: 1}).File(ctx, lockedReader{s, r}, -1, Meta{})
	if !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type lockedReader struct {
	s *memSink
	r io.Reader
}

func (l lockedReader) Read(p []byte) (int, error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.r.Read(p)
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no error without a sink")
	}
	if _, err := New(Config{Sink: newMemSink(), Workers: -1}); err == nil {
		t.Error("no error for -1 workers")
	}
}
