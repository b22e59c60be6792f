package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// uploadingNode is a node of which only uploads can be asked.
type uploadingNode struct {
	api.Node
	files   int
	fail    error
	uploads []api.Upload
	told    []api.SyncProgress
	wait    bool // sync waits for its ctx
	asked   api.UploadFilesRequest
}

func (n *uploadingNode) Uploads(context.Context, bool) ([]api.Upload, error) { return n.uploads, nil }

func (n *uploadingNode) UploadFiles(_ context.Context, of api.UploadFilesRequest) iter.Seq2[api.UploadFile, error] {
	n.asked = of
	return func(yield func(api.UploadFile, error) bool) {
		for i := range n.files {
			f := api.UploadFile{Path: fmt.Sprintf("d/%d", i), Bytes: 1 << 20, State: "uploading", Progress: "0 of 5 blocks", Reason: "needs 6 providers, 3 known"}
			if i%2 == 1 {
				f.Path, f.Reason = f.Path+"\x1b[2J", ""
			}
			if !yield(f, nil) {
				return
			}
		}
		if n.fail != nil {
			yield(api.UploadFile{}, n.fail)
		}
	}
}

func (n *uploadingNode) Sync(ctx context.Context, _ string, progress func(api.SyncProgress)) (api.Synced, error) {
	for _, p := range n.told {
		progress(p)
	}
	if n.wait {
		<-ctx.Done()
		return api.Synced{}, context.Cause(ctx)
	}
	return api.Synced{Root: "r", Manifest: "m"}, n.fail
}

// with returns a session with a node, and an app that prints into the buffers.
func with(t *testing.T, n api.Node) (s *session, a *app, out, stderr *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- api.NewServer(n, slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	c, err := api.Dial(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	out, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return &session{Client: c}, &app{out: out, err: stderr}, out, stderr
}

func TestFilesOfAnUploadDirectoryAreListedAsTheyCome(t *testing.T) {
	n := &uploadingNode{files: 3}
	s, a, out, _ := with(t, n)
	if err := a.listFiles(t.Context(), s, []string{"work", "d"}, true, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || lines[0] != "uploading    1.0 MiB  0 of 5 blocks           d/0  (needs 6 providers, 3 known)" ||
		!strings.HasSuffix(lines[1], `  "d/1\x1b[2J"`) {
		t.Errorf("printed %q", lines)
	}
	if n.asked.Name != "work" || n.asked.Path != "d" || !n.asked.All || !filepath.IsAbs(n.asked.Dir) {
		t.Errorf("asked for %+v", n.asked)
	}
	for _, files := range []int{0, 1, 3000} {
		out.Reset()
		n.files = files
		var got []api.UploadFile
		if err := a.listFiles(t.Context(), s, []string{"./work"}, false, true); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got) != files || !strings.HasSuffix(out.String(), "]\n") {
			t.Errorf("%d of %d files in JSON: %v", len(got), files, err)
		}
	}
	if n.asked.Name != "" {
		t.Errorf("a path was taken for a name: %+v", n.asked)
	}
	out.Reset()
	n.files, n.fail = 2, errors.New("boom")
	if err := a.listFiles(t.Context(), s, []string{"work"}, false, false); err == nil || err.Error() != "boom" || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("a list that breaks off ends with %v after %q", err, out.String())
	}
}

// writes counts what is written, and how much at most at once.
type writes struct{ n, most int }

func (w *writes) Write(p []byte) (int, error) {
	w.n, w.most = w.n+len(p), max(w.most, len(p))
	return len(p), nil
}

func TestAListOfManyFilesIsNotKept(t *testing.T) {
	s, a, _, _ := with(t, &uploadingNode{files: 20_000})
	w := &writes{}
	a.out = w
	if err := a.listFiles(t.Context(), s, []string{"work"}, false, true); err != nil || w.n < 20_000*100 || w.most > 64<<10 {
		t.Errorf("%d bytes were written, %d at once: %v", w.n, w.most, err)
	}
}

func TestTheTableOfUploads(t *testing.T) {
	n := &uploadingNode{uploads: []api.Upload{
		{Name: "work", Text: "uploading: needs 6 providers, 3 known", Bytes: 3 << 20, Done: 1 << 20, Directory: &api.UploadDirectory{Dir: "/mnt/up", Files: 12}},
		{Name: "old", Text: "uploaded", Bytes: 5, Done: 5, Directory: &api.UploadDirectory{Files: 7, More: true}},
		{ID: "00", Name: "film.mkv", Text: "uploaded"},
	}}
	s, a, out, _ := with(t, n)
	if err := a.listUploads(t.Context(), s, false, false); err != nil {
		t.Fatal(err)
	}
	want := `NAME      MOUNTED      FILES  WAITING  SIGNED FOR  EXPIRES  STATE
work      /mnt/up         12  2.0 MiB     1.0 MiB  -        uploading: needs 6 providers, 3 known
old       not mounted     >7      0 B         5 B  -        uploaded
film.mkv  -                -      0 B         0 B  -        uploaded
`
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}

func TestSyncSaysWhatItWaitsForOnce(t *testing.T) {
	var out bytes.Buffer
	w := newWaiting(&out)
	at := time.Unix(1e9, 0)
	for _, c := range []struct {
		after  time.Duration
		reason string
		left   int64
		says   string
	}{
		{0, "needs 6 providers, 0 known", 100, ""}, // nobody is known yet
		{time.Second, "needs 6 providers, 3 known", 100, ""},
		{time.Second, "needs 6 providers, 3 known", 120, ""},
		{time.Second, "needs 6 providers, 3 known", 120, "holdfast: waits: needs 6 providers, 3 known\n"},
		{time.Minute, "needs 6 providers, 3 known", 120, ""},
		{time.Second, "a try failed", 80, ""},
		{time.Second, "needs 6 providers, 3 known", 80, ""},
		{time.Minute, "needs 6 providers, 3 known", 80, ""},
		{time.Second, "", 30, ""},
		{time.Minute, "", 30, ""},
		{time.Second, "can't read f:\nboom", 0, ""},
		{time.Minute, "can't read f:\nboom", 0, "holdfast: waits: can't read f:; boom\n"},
	} {
		at = at.Add(c.after)
		out.Reset()
		w.tell(at, api.SyncProgress{Left: c.left, Reason: c.reason})
		if out.String() != c.says {
			t.Errorf("at %v it says %q, want %q", at.Unix()-1e9, out.String(), c.says)
		}
	}
	if w.done != 120 || w.bar.Bytes() != 120 {
		t.Errorf("%d bytes are done, the bar has %d", w.done, w.bar.Bytes())
	}
}

func TestSyncEndsWithItsTimeoutOrItsCaller(t *testing.T) {
	n := &uploadingNode{wait: true, told: []api.SyncProgress{{Left: 9, Reason: "needs 6 providers, 3 known"}}}
	s, a, _, stderr := with(t, n)
	_, err := a.sync(t.Context(), s, "/mnt/up", 2*time.Second)
	if !errors.Is(err, errNotSynced) || err.Error() != "not all is with providers after 2s: needs 6 providers, 3 known" ||
		!strings.Contains(hint.Of(err), "holdfast uploads /mnt/up") || exitCode(err) != 1 {
		t.Errorf("a timeout ends with %v, %q", err, hint.Of(err))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	if _, err := a.sync(ctx, s, "/mnt/up", time.Hour); exitCode(endOf(ctx, err)) != 130 {
		t.Errorf("an interrupt ends with %v", err)
	}
	s, _, _, _ = with(t, &uploadingNode{})
	if got, err := a.sync(t.Context(), s, "/mnt/up", time.Hour); err != nil || got.Root != "r" {
		t.Errorf("sync: %+v, %v", got, err)
	}
	if stderr.Len() > 0 {
		t.Errorf("said %q", stderr.String())
	}
}

func TestStatusNamesWhatGoesUpWithoutAMount(t *testing.T) {
	var out bytes.Buffer
	st := api.Status{}
	st.Storage.Unmounted = []api.Upload{{Name: "wo\x1brk", Text: "uploading: needs 6 providers, 3 known", Bytes: 5 << 20, Done: 2 << 20}}
	printStatus(&out, st)
	want := `uploading  "wo\x1brk", which is not mounted: 3.0 MiB to go, uploading: needs 6 providers, 3 known`
	if !strings.Contains(out.String(), want+"\n") {
		t.Errorf("status printed %s", out.String())
	}
}
