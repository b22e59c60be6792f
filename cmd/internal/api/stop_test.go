package api

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// lingering is a node that reads on for a while after its client has gone.
type lingering struct {
	fakeNode
	begun, ended chan struct{}
	mayEnd       chan struct{}
}

func (l *lingering) GC(ctx context.Context) (GCResult, error) {
	close(l.begun)
	<-ctx.Done()
	<-l.mayEnd
	close(l.ended)
	return GCResult{}, ctx.Err()
}

func TestServerWaitsForItsRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	node := &lingering{begun: make(chan struct{}), ended: make(chan struct{}), mayEnd: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(node, nilLogger()).Serve(ctx, l) }()
	c, err := Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asked := make(chan error, 1)
	go func() {
		_, err := c.GC(context.Background())
		asked <- err
	}()
	<-node.begun
	cancel()
	if err := <-asked; err == nil {
		t.Error("a request that the end of the node broke off succeeded")
	}
	close(node.mayEnd)
	if err := <-served; err != nil {
		t.Error(err)
	}
	select {
	case <-node.ended:
	default:
		t.Error("the server ended before its requests")
	}
}

func TestForeignNamesGetNothingFromLoopback(t *testing.T) {
	h := NewServer(&fakeNode{}, nilLogger()).Public()
	for _, c := range []struct {
		ip, host string
		code     int
	}{
		{"127.0.0.1", "127.0.0.1:9100", 200}, {"127.0.0.1", "localhost:9100", 200}, {"::1", "[::1]:9100", 200}, {"::1", "[::1]", 200},
		{"127.0.0.1", "evil.example", 421}, {"127.0.0.1", "localhost.evil.example:9100", 421}, {"127.0.0.1", "", 421},
		{"192.0.2.1", "metrics.example:9100", 200},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = c.host
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 9100}))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%q at %s: %d, want %d", c.host, c.ip, w.Code, c.code)
		}
	}
}

func TestPackLeavesOutWhatGoesAway(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "stays", 0o644)
	write(t, filepath.Join(dir, "b"), "goes", 0o644)
	write(t, filepath.Join(dir, "c", "d"), "goes with its directory", 0o644)
	opts := PackOptions{Progress: func(int) { // when "a" has been read
		for _, name := range []string{"b", "c"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	}}
	var left []string
	opts.Skipped = func(path string, why error) { left = append(left, filepath.Base(path)+": "+why.Error()) }
	headers, _, err := pack(t, opts, dir)
	if err != nil || len(headers) != 2 || len(left) != 2 || left[0] != "b: it is gone" {
		t.Errorf("packed %d entries, left out %q, %v", len(headers), left, err)
	}
	write(t, filepath.Join(dir, "b"), "goes", 0o644)
	opts.Strict = true
	if _, _, err := pack(t, opts, dir); err == nil {
		t.Error("strict, and something is missing")
	}
}

func TestAFullDiskIsToldBeforeAnythingIsFetched(t *testing.T) {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: ".", Typeflag: tar.TypeReg, Size: 1 << 50, Format: tar.FormatPAX}); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	read := 0
	body := readerFunc(func(p []byte) (int, error) { read += len(p); return 0, errTorn })
	err := Unpack(io.MultiReader(&head, body), filepath.Join(parent, "out"), UnpackOptions{})
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EFBIG) || read > 0 {
		t.Errorf("%d bytes asked for, %v", read, err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestPackIsNotHeldUpByAPipe(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "first", 0o644)
	write(t, filepath.Join(dir, "b"), "becomes a pipe", 0o644)
	p := &packer{ctx: context.Background(), tar: tar.NewWriter(io.Discard), buf: make([]byte, streamBytes)}
	pipe := filepath.Join(dir, "b")
	st, err := os.Lstat(pipe)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(pipe), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := p.add(pipe, "0/b", st); err == nil {
		t.Error("a pipe was packed as a file")
	}
}
