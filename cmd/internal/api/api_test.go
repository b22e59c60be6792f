package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

func TestCallsReachTheNode(t *testing.T) {
	f := &fakeNode{}
	c, _, _ := serve(t, f)
	ctx := context.Background()
	r := read(t, root+"/a dir/ü%2F?#")
	r.Timeout = 3 * time.Second
	price, budget := uint64(7), uint64(0)
	r.Spending = Spending{MaxPrice: &price, Budget: &budget}
	e, err := c.Stat(ctx, r)
	if err != nil || e.Bytes != 5 || e.Kind != KindFile {
		t.Errorf("stat: %+v, %v", e, err)
	}
	calls := map[string]func() error{
		"stat " + root + "/a dir/ü%2F?# in 3s for at most 7, 0 in all": func() error { return nil },
		"id":                func() error { _, err := c.ID(ctx); return err },
		"peers":             func() error { _, err := c.Peers(ctx); return err },
		"connect /a /b":     func() error { _, err := c.Connect(ctx, []string{"/a", "/b"}); return err },
		"forget p":          func() error { return c.Forget(ctx, "p") },
		"unmount /m x true": func() error { return c.Unmount(ctx, "/m x", true) },
		"mounts":            func() error { _, err := c.Mounts(ctx); return err },
		"unpin " + root:     func() error { return c.Unpin(ctx, r.CID) },
		"pins":              func() error { _, err := c.Pins(ctx); return err },
		"channels":          func() error { _, err := c.Channels(ctx); return err },
		"close channels p":  func() error { _, err := c.CloseChannels(ctx, "p"); return err },
		"gc":                func() error { _, err := c.GC(ctx); return err },
		"status":            func() error { _, err := c.Status(ctx); return err },
		"mount {Dir:/m CID:" + root + " Lazy:true AllowOther:false Remember:true Timeout:2s Readahead:5 Spending:{MaxPrice:<nil> Budget:<nil>} Upload:<nil> NoPassthrough:true}": func() error {
			_, err := c.Mount(ctx, MountRequest{Dir: "/m", CID: root, Lazy: true, Remember: true, Timeout: 2 * time.Second, Readahead: 5, NoPassthrough: true})
			return err
		},
	}
	for want, call := range calls {
		if err := call(); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if !strings.Contains(strings.Join(f.requests, "\n"), want) {
			t.Errorf("%q did not reach the node: %q", want, f.requests)
		}
	}
}

func TestErrorsTravelWhole(t *testing.T) {
	plain := hint.Add(errors.New("disk on fire"), "call the fire brigade")
	for code, fail := range map[Code]error{
		CodeNotFound: &Error{Code: CodeNotFound, Message: "no such name", Advice: "look elsewhere"},
		CodeFailed:   plain,
		CodeBusy:     fmt.Errorf("mount it: %w", &Error{Code: CodeBusy, Message: "in use"}),
		CodeCanceled: context.Canceled,
	} {
		c, _, _ := serve(t, &fakeNode{fail: fail})
		_, err := c.ID(context.Background())
		if err == nil || err.Error() != fail.Error() || CodeOf(err) != code || hint.Of(err) != hint.Of(fail) {
			t.Errorf("%v arrived as %v, code %s, hint %q", fail, err, CodeOf(err), hint.Of(err))
		}
	}
}

func TestStreamsSayWhyTheyEndEarly(t *testing.T) {
	f := &fakeNode{content: bytes.Repeat([]byte("x"), 3<<20), breakAt: 2 << 20}
	c, _, _ := serve(t, f)
	s, err := c.Cat(context.Background(), read(t, root))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n, err := io.Copy(io.Discard, s)
	if n != 2<<20 || CodeOf(err) != CodeUnavailable || err.Error() != "block lost" || hint.Of(err) != "find it" {
		t.Errorf("got %d bytes and %v", n, err)
	}
	f.breakAt = 0
	whole, err := c.Cat(context.Background(), read(t, root))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	b, err := io.ReadAll(whole)
	if err != nil || !bytes.Equal(b, f.content) || whole.Bytes != 3<<20 {
		t.Errorf("got %d bytes of %d, %v", len(b), whole.Bytes, err)
	}
}

func TestTornConnectionIsAnError(t *testing.T) {
	// A server that ends without the trailer, as one that was killed.
	l, err := Listen(filepath.Join(t.TempDir(), "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "part") })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	c, err := Dial(context.Background(), l.(*removing).path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Cat(context.Background(), read(t, root))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := io.ReadAll(s); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a torn stream reads as %v", err)
	}
	for _, err := range c.List(context.Background(), read(t, root), false) {
		if err == nil {
			t.Error("a torn listing has entries")
		}
	}
}

func TestRangesOfContent(t *testing.T) {
	f := &fakeNode{content: []byte("0123456789")}
	c, _, _ := serve(t, f)
	for spec, want := range map[string]string{"bytes=2-4": "234", "bytes=-3": "789", "bytes=8-": "89", "": "0123456789"} {
		var header []string
		if spec != "" {
			header = []string{"Range", spec}
		}
		req, _ := http.NewRequest("GET", "http://holdfast/content/"+root+"/x.txt", nil)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != want || resp.Header.Get("Etag") != `"`+root+`"` || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%q: %q, %v", spec, body, resp.Header)
		}
		if spec != "" && resp.StatusCode != http.StatusPartialContent {
			t.Errorf("%q: status %d", spec, resp.StatusCode)
		}
	}
	f.breakAt = 4
	resp, err := c.http.Get("http://holdfast/content/" + root)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("content that broke off reads as whole")
	}
}

func TestListingStreams(t *testing.T) {
	f := &fakeNode{}
	for i := range 5000 {
		f.entries = append(f.entries, Entry{Name: fmt.Sprint(i), CID: root})
	}
	c, _, _ := serve(t, f)
	n := 0
	for e, err := range c.List(context.Background(), read(t, root+"/d"), true) {
		if err != nil || e.Name != fmt.Sprint(n) {
			t.Fatalf("entry %d: %+v, %v", n, e, err)
		}
		n++
	}
	if n != 5000 {
		t.Errorf("%d entries", n)
	}
	f.fail = errTorn
	var last error
	for _, err := range c.List(context.Background(), read(t, root), false) {
		last = err
	}
	if CodeOf(last) != CodeUnavailable {
		t.Errorf("the listing ended with %v", last)
	}
}

func TestPinReportsProgress(t *testing.T) {
	c, _, _ := serve(t, &fakeNode{})
	var seen []uint64
	pin, err := c.Pin(context.Background(), read(t, root), func(p Progress) { seen = append(seen, p.Bytes) })
	if err != nil || pin.Blocks != 2 || !pin.Complete || fmt.Sprint(seen) != "[10 20]" {
		t.Errorf("%+v, %v, progress %v", pin, err, seen)
	}
}

func TestClientThatLeavesEndsTheWork(t *testing.T) {
	f := &fakeNode{waiting: make(chan struct{})}
	c, s, _ := serve(t, f)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	go func() {
		<-f.waiting
		cancel(why)
	}()
	if err := c.WaitUnmounted(ctx, "/m"); !errors.Is(err, why) {
		t.Errorf("waiting ended with %v", err)
	}
	// The handler has ended too, or this would wait for it.
	if err := s.Drain(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestHeldNodeWaitsForItsClients(t *testing.T) {
	c, s, path := serve(t, &fakeNode{})
	ctx := context.Background()
	release, err := c.Hold(ctx)
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx) }()
	for range 10 {
		if _, err := c.ID(ctx); err != nil {
			t.Fatalf("a held node refuses: %v", err)
		}
	}
	late, err := Dial(ctx, path)
	if err != nil {
		t.Fatalf("a held node is gone: %v", err)
	}
	defer late.Close()
	release()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if _, err := late.Hold(ctx); err == nil {
		t.Error("a node that has ended is held")
	}
}

func TestNobodyAtTheSocket(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(context.Background(), filepath.Join(dir, "api.sock")); !errors.Is(err, ErrNoNode) {
		t.Errorf("no socket: %v", err)
	}
	// What a killed owner leaves.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "api.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := Dial(context.Background(), filepath.Join(dir, "api.sock")); !errors.Is(err, ErrNoNode) {
		t.Errorf("dead socket: %v", err)
	}
	l, err := Listen(filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatalf("over a dead socket: %v", err)
	}
	st, err := os.Stat(filepath.Join(dir, "api.sock"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st, err)
	}
	l.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSocketInADeepDirectory(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(deep, "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			conn.Close()
		}
		accepted <- err
	}()
	c, err := Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-accepted; err != nil {
		t.Error(err)
	}
	l.Close()
}

func TestPublicPagesShowAndChangeNothing(t *testing.T) {
	s := NewServer(&fakeNode{}, nilLogger())
	get := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		s.Public().ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	code, text := get("GET", "/metrics")
	for _, want := range []string{"holdfast_store_used_bytes 4096", "holdfast_peers 3", "# TYPE holdfast_exchange_received_bytes_total counter", "go_goroutines"} {
		if code != 200 || !strings.Contains(text, want) {
			t.Errorf("metrics (%d) have no %q", code, want)
		}
	}
	if code, text := get("GET", "/"); code != 200 || !strings.Contains(text, "&lt;me&gt;") || strings.Contains(text, "<me>") {
		t.Errorf("page (%d): %s", code, text)
	}
	for _, path := range []string{"/v1/gc", "/v1/mounts", "/content/" + root, "/v1/id"} {
		if code, _ := get("POST", path); code != 404 && code != 405 {
			t.Errorf("%s answers %d in public", path, code)
		}
	}
}

func TestRefsAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]string{
		root: root, root + "/": root, root + "/a/b": root + "/a/b", "/ipfs/" + root + "/a": root + "/a", "ipfs://" + root: root,
		"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn": "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
	} {
		if ref, err := ParseRef(text); err != nil || ref.String() != want {
			t.Errorf("%q: %v, %v", text, ref, err)
		}
	}
	bad := map[string]Code{
		"": CodeUsage, "hello": CodeUsage, root[:30]: CodeUsage, root + "/a//b": CodeUsage, root + "/../x": CodeUsage,
		"bafzaajaiaejcbplnnrmzwtqjynoc2pkpmr4pmtbvfcnpfwfcmc2iziz6jrxmlkjm": CodeUnsupported, // codec libp2p-key
		"bafkrgqaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":    CodeUsage,
	}
	for text, code := range bad {
		_, err := ParseRef(text)
		if err == nil || CodeOf(err) != code && CodeOf(err) != CodeUnsupported {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParseCID(root + "/a"); CodeOf(err) != CodeUsage {
		t.Errorf("a path where a CID is wanted: %v", err)
	}
}
