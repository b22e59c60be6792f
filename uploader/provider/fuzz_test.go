package provider

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

var writeCorpus = flag.Bool("write-corpus", false, "write the fuzz target's corpus below testdata anew")

// script is a stream whose other end has said all it will say.
type script struct {
	io.Reader
	io.Writer
}

func (script) Close() error                     { return nil }
func (script) SetReadDeadline(time.Time) error  { return nil }
func (script) SetWriteDeadline(time.Time) error { return nil }

// sampleStreams are streams of each kind of request, about one link that the provider knows.
func sampleStreams(t testing.TB, l *link) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for name, r := range map[string]seal.Request{
		"quote": &seal.Quote{Now: l.n.clock.now()}, "store": l.request(), "channel": &seal.OpenChannel{},
		"map":  &seal.Segments{Link: l.id, Key: l.key, Root: l.m.Root(), Map: l.m},
		"sign": &seal.SignatureRequest{Link: l.id}, "voucher": &seal.Voucher{Link: l.id, Voucher: fakeVoucher(5)},
		"audit":   &seal.Audit{Chunk: l.piece.id, Segments: []uint32{0}},
		"renew":   &seal.Renew{Link: linkID(9), Chunk: l.piece.id, Expiry: l.expiry.Add(time.Hour), Now: l.n.clock.now()},
		"release": &seal.Release{Chunk: l.piece.id},
	} {
		var b bytes.Buffer
		must(t, seal.WriteMessage(&b, r))
		all[name] = b.Bytes()
	}
	var b bytes.Buffer
	must(t, seal.WriteMessage(&b, &seal.Data{Link: l.id}))
	must(t, seal.WriteSegment(&b, 0, l.segment(0)))
	must(t, seal.EndSegments(&b))
	all["data"] = b.Bytes()
	return all
}

func TestWriteCorpus(t *testing.T) {
	n := newNode(t, nil)
	dir := filepath.Join("testdata", "fuzz", "FuzzServe")
	for name, b := range sampleStreams(t, n.newLink("ann", 1, makePiece(t, 1, 100))) {
		path := filepath.Join(dir, name)
		if *writeCorpus {
			must(t, os.MkdirAll(dir, 0o755))
			must(t, os.WriteFile(path, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", b), 0o644))
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the corpus is not complete: %v", err)
		}
	}
}

// FuzzServe sends anything to a provider that keeps a chunk. It neither fails nor loses count, and the
// blocks that it serves are right.
func FuzzServe(f *testing.F) {
	n := newNode(f, nil)
	l := n.newLink("ann", 1, makePiece(f, 1, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		n.t = t
		_ = n.p.Serve(context.Background(), l.from, script{bytes.NewReader(b), io.Discard})
		n.checkSums()
		if st := n.p.Stats(); st.Failed > 0 {
			t.Error("the provider failed")
		}
		if got, err := n.p.Get(context.Background(), l.piece.chunk[0].CID); err == nil && !bytes.Equal(got.RawData(), l.piece.bytes) {
			t.Error("a wrong block was served")
		}
	})
}
