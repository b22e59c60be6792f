package api

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
)

// root is a CID of the right form.
const root = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

// fakeNode answers from memory. A nil function means that the test does not expect the call.
type fakeNode struct {
	Node
	fail error // of every call

	content []byte
	breakAt int // content ends with an error here, if above 0
	entries []Entry
	tar     func(io.Writer) error
	addTar  func(io.Reader, AddOptions) error // takes what is added, if set

	mu       sync.Mutex
	requests []string
	added    bytes.Buffer
	waiting  chan struct{} // closed when somebody waits
}

func (f *fakeNode) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, fmt.Sprintf(format, args...))
	return f.fail
}

func (f *fakeNode) ID(context.Context) (ID, error) {
	return ID{ID: "me", Addresses: []string{"/ip4/127.0.0.1/tcp/1/p2p/me"}, Pid: 7}, f.note("id")
}

func (f *fakeNode) Status(context.Context) (Status, error) {
	return Status{ID: ID{ID: "<me>"}, Peers: 3, Store: StoreStatus{UsedBytes: 4096}}, f.note("status")
}

func (f *fakeNode) Connect(_ context.Context, addrs []string) ([]Peer, error) {
	return []Peer{{ID: "p"}}, f.note("connect %s", strings.Join(addrs, " "))
}

func (f *fakeNode) Stat(_ context.Context, r Read) (Entry, error) {
	e := Entry{Name: "n", CID: root, Kind: KindFile, Bytes: 5}
	if r.MaxPrice != nil && r.Budget != nil {
		return e, f.note("stat %s in %v for at most %d, %d in all", r.Ref, r.Timeout, *r.MaxPrice, *r.Budget)
	}
	return e, f.note("stat %s in %v", r.Ref, r.Timeout)
}

func (f *fakeNode) List(_ context.Context, r Read, detail bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		f.note("list %s %v", r.Ref, detail)
		for _, e := range f.entries {
			if !yield(e, nil) {
				return
			}
		}
		if f.fail != nil {
			yield(Entry{}, f.fail)
		}
	}
}

func (f *fakeNode) Open(_ context.Context, r Read) (File, error) { return f, f.note("open %s", r.Ref) }

func (f *fakeNode) Entry() Entry {
	return Entry{Name: "n", CID: root, Kind: KindFile, Bytes: uint64(len(f.content))}
}

var errTorn = &Error{Code: CodeUnavailable, Message: "block lost", Advice: "find it"}

func (f *fakeNode) Reader(_ context.Context, off uint64) (io.ReadCloser, error) {
	whole := io.Reader(bytes.NewReader(f.content[off:]))
	if f.breakAt > 0 {
		whole = io.MultiReader(bytes.NewReader(f.content[off:f.breakAt]), failingReader{errTorn})
	}
	return io.NopCloser(whole), nil
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func (f *fakeNode) Export(_ context.Context, r Read) (Export, error) {
	return fakeExport{f}, f.note("export %s", r.Ref)
}

type fakeExport struct{ *fakeNode }

func (x fakeExport) WriteTar(_ context.Context, w io.Writer) error { return x.tar(w) }

func (f *fakeNode) Add(_ context.Context, r io.Reader, opts AddOptions) ([]Added, error) {
	if f.fail != nil {
		return nil, f.note("add")
	}
	var err error
	if f.addTar != nil {
		err = f.addTar(r, opts)
	} else {
		_, err = io.Copy(&f.added, r)
	}
	noted := f.note("add preserve=%v pin=%v raw=%v", opts.Preserve, opts.Pin, opts.Raw)
	return []Added{{Name: "0", CID: root}}, errors.Join(err, noted)
}

func (f *fakeNode) Mount(_ context.Context, req MountRequest) (Mount, error) {
	return Mount{Dir: req.Dir, State: "mounted"}, f.note("mount %+v", req)
}

func (f *fakeNode) Unmount(_ context.Context, dir string, force bool) error {
	return f.note("unmount %s %v", dir, force)
}

func (f *fakeNode) Mounts(context.Context) ([]Mount, error) { return []Mount{}, f.note("mounts") }

func (f *fakeNode) WaitUnmounted(ctx context.Context, dir string) error {
	f.note("wait %s", dir)
	close(f.waiting)
	<-ctx.Done()
	return ctx.Err()
}

func (f *fakeNode) Pin(_ context.Context, r Read, progress func(Progress)) (Pin, error) {
	progress(Progress{Blocks: 1, Bytes: 10})
	progress(Progress{Blocks: 2, Bytes: 20})
	return Pin{CID: r.CID.String(), Blocks: 2, Complete: true}, f.note("pin %s", r.CID)
}

func (f *fakeNode) Unpin(_ context.Context, c cid.Cid) error { return f.note("unpin %s", c) }

func (f *fakeNode) Pins(context.Context) ([]Pin, error) { return []Pin{{CID: root}}, f.note("pins") }

func (f *fakeNode) GC(context.Context) (GCResult, error) {
	return GCResult{Blocks: 1, Bytes: 2}, f.note("gc")
}

func (f *fakeNode) Channels(context.Context) ([]Channel, error) {
	return []Channel{}, f.note("channels")
}

func (f *fakeNode) CloseChannels(_ context.Context, id string) ([]Channel, error) {
	return []Channel{}, f.note("close channels %s", id)
}

func (f *fakeNode) Peers(context.Context) ([]Peer, error) { return []Peer{}, f.note("peers") }

func (f *fakeNode) Forget(_ context.Context, id string) error { return f.note("forget %s", id) }

// serve puts a node behind a socket and returns a client of it.
func serve(t *testing.T, node Node) (*Client, *Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(node, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	c, err := Dial(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return c, s, path
}

func read(t *testing.T, s string) Read {
	t.Helper()
	ref, err := ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return Read{Ref: ref}
}

// archive is a tar writer's work as a stream.
func archive(t *testing.T, headers ...*tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Format = tar.FormatPAX
		content := h.PAXRecords["TEST.content"]
		delete(h.PAXRecords, "TEST.content")
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func file(name, content string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"TEST.content": content}}
}

func dir(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeDir} }

func link(name, target string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
}
