package node

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// TestGroupNews: what is known of a file's groups adds up to a state and a reason, and what is with providers or gone is
// not remembered.
func TestGroupNews(t *testing.T) {
	s := &uploadSink{id: uploadedBy("work")}
	s.news.begin()
	status := func(g uint64, state uploader.State, reason string) uploader.FileStatus {
		return uploader.FileStatus{ID: s.file(uploadedGroup, g), State: state, Reason: reason, Bytes: 60, Done: 20}
	}
	s.news.hear(status(1, uploader.Uploading, "needs 6 providers, 3 known"))
	s.news.hear(status(2, uploader.Created, ""))
	s.news.hear(status(3, uploader.Failed, "refused: no space"))
	s.news.hear(status(4, uploader.Failed, "refused: too dear"))
	s.news.hear(status(5, uploader.Uploading, "a provider is silent"))
	for _, c := range []struct {
		groups []dataset.GroupID
		state  uploader.State
		reason string
		bytes  int64
	}{
		{nil, uploader.Uploaded, "", 0},
		{[]dataset.GroupID{9}, uploader.Uploaded, "", 0},
		{[]dataset.GroupID{2, 9}, uploader.Uploading, "", 60},
		{[]dataset.GroupID{2, 1, 9}, uploader.Uploading, "needs 6 providers, 3 known", 120},
		{[]dataset.GroupID{5, 1, 2}, uploader.Uploading, "a provider is silent", 180},
		{[]dataset.GroupID{1, 5}, uploader.Uploading, "a provider is silent", 120},
		{[]dataset.GroupID{1, 3}, uploader.Failed, "refused: no space", 120},
		{[]dataset.GroupID{3, 1, 2}, uploader.Failed, "refused: no space", 180},
		{[]dataset.GroupID{4, 3}, uploader.Failed, "refused: no space", 120},
	} {
		if got := s.news.of(s, c.groups); got.State != c.state || got.Reason != c.reason || got.Bytes != c.bytes {
			t.Errorf("groups %v: %+v", c.groups, got)
		}
	}
	large := status(6, uploader.Uploading, "needs 9 providers, 3 known")
	large.Bytes = 600
	s.news.hear(large)
	if got := s.news.of(s, []dataset.GroupID{1, 6, 5}); got.Reason != large.Reason {
		t.Errorf("what keeps most back is %q", got.Reason)
	}
	s.news.hear(status(6, uploader.Uploaded, ""))
	if got := s.news.all(); got.State != uploader.Failed || got.Bytes != 300 || got.Done != 100 {
		t.Errorf("all: %+v", got)
	}
	s.news.hear(status(3, uploader.Uploaded, ""))
	s.news.hear(status(4, uploader.Failed, removedReason))
	if got := s.news.all(); got.State != uploader.Uploading || len(s.news.open) != 3 {
		t.Errorf("after one is uploaded and one is removed: %+v, %d open", got, len(s.news.open))
	}
	s.news.begin()
	if got := s.news.all(); got.State != uploader.Uploaded {
		t.Errorf("after it was forgotten: %+v", got)
	}
}

// TestCountFiles counts regular files at any depth, and stops when it is told to.
func TestCountFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		sub := filepath.Join(dir, strconv.Itoa(i%3), "deeper")
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("0", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var n uint64
	if err := countFiles(t.Context(), dir, &n); err != nil || n != 30 {
		t.Errorf("%d files, %v", n, err)
	}
	if err := countFiles(t.Context(), filepath.Join(dir, "gone"), &n); err != nil || n != 30 {
		t.Errorf("what is gone counts: %d files, %v", n, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := countFiles(ended, dir, &n); err == nil || n != 30 {
		t.Errorf("it counts on: %d files, %v", n, err)
	}
}
