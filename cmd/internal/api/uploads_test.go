package api

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"testing"
)

func (f *fakeNode) Uploads(_ context.Context, groups bool) ([]Upload, error) {
	return []Upload{{Name: "work", State: "uploading", Directory: &UploadDirectory{Files: 7}}}, f.note("uploads groups=%v", groups)
}

// uploadFiles is how many files a fake node's upload directory has.
const uploadFiles = 10_000

func (f *fakeNode) UploadFiles(_ context.Context, of UploadFilesRequest) iter.Seq2[UploadFile, error] {
	return func(yield func(UploadFile, error) bool) {
		f.note("files %+v", of)
		for i := range uploadFiles {
			if !yield(UploadFile{Path: fmt.Sprint(i), State: "uploading", Reason: "needs 6 providers, 3 known"}, nil) {
				f.note("left at %d", i)
				return
			}
		}
		if err := f.note("end"); err != nil {
			yield(UploadFile{}, err)
		}
	}
}

func (f *fakeNode) Sync(_ context.Context, dir string, progress func(SyncProgress)) (Synced, error) {
	progress(SyncProgress{Left: 20, Reason: "needs 6 providers, 3 known"})
	progress(SyncProgress{Left: 10})
	return Synced{Root: root, Manifest: "m"}, f.note("sync %s", dir)
}

// TestUploadFiles: a list of any length comes whole, ends where its reader has seen enough, and tells of its failure.
func TestUploadFiles(t *testing.T) {
	f := &fakeNode{}
	c, _, _ := serve(t, f)
	ctx := context.Background()
	n := 0
	for one, err := range c.UploadFiles(ctx, UploadFilesRequest{Dir: "/m nt/ü", Name: "ü", Path: "a b/é", All: true}) {
		if err != nil || one.Path != fmt.Sprint(n) || one.Reason != "needs 6 providers, 3 known" {
			t.Fatalf("file %d: %+v, %v", n, one, err)
		}
		n++
	}
	if n != uploadFiles || f.requests[0] != "files {Dir:/m nt/ü Name:ü Path:a b/é All:true}" {
		t.Errorf("%d files came of %q", n, f.requests)
	}
	for range c.UploadFiles(ctx, UploadFilesRequest{}) {
		break
	}
	f.mu.Lock() // who left may still be told of
	f.fail = &Error{Code: CodeNotFound, Message: "no such directory"}
	f.mu.Unlock()
	var last error
	for _, err := range c.UploadFiles(ctx, UploadFilesRequest{}) {
		last = err
	}
	if CodeOf(last) != CodeNotFound {
		t.Errorf("a failure comes back as %v", last)
	}
}

// TestSyncTellsProgress: who waits hears how far it is and what for, in order, and then what came of it.
func TestSyncTellsProgress(t *testing.T) {
	f := &fakeNode{}
	c, _, _ := serve(t, f)
	var told []SyncProgress
	s, err := c.Sync(context.Background(), "/m nt/ü", func(p SyncProgress) { told = append(told, p) })
	if err != nil || s != (Synced{Root: root, Manifest: "m"}) || strings.Join(f.requests, "\n") != "sync /m nt/ü" {
		t.Errorf("sync: %+v, %v, %q", s, err, f.requests)
	}
	if want := []SyncProgress{{Left: 20, Reason: "needs 6 providers, 3 known"}, {Left: 10}}; !reflect.DeepEqual(told, want) {
		t.Errorf("told %+v", told)
	}
	if s, err := c.Sync(context.Background(), "/d", nil); err != nil || s.Root != root {
		t.Errorf("sync that nobody watches: %+v, %v", s, err)
	}
	f.fail = errTorn
	if _, err := c.Sync(context.Background(), "/d", nil); CodeOf(err) != CodeUnavailable || !errors.As(err, new(*Error)) {
		t.Errorf("a failure comes back as %v", err)
	}
}

// TestUploadsOrGroups: the node hears which of the two lists is wanted.
func TestUploadsOrGroups(t *testing.T) {
	f := &fakeNode{}
	c, _, _ := serve(t, f)
	for _, groups := range []bool{false, true} {
		all, err := c.Uploads(context.Background(), groups)
		if err != nil || len(all) != 1 || all[0].Directory == nil || all[0].Directory.Files != 7 {
			t.Errorf("uploads: %+v, %v", all, err)
		}
	}
	if got := strings.Join(f.requests, ", "); got != "uploads groups=false, uploads groups=true" {
		t.Errorf("the node heard %s", got)
	}
}
