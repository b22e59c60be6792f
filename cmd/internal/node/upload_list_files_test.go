package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/uploader"
)

// stage puts closed files into the staging tree of an upload directory that is not mounted.
func (r *running) stage(t *testing.T, name string, files int) {
	t.Helper()
	for i := range files {
		path := filepath.Join(r.repo, "staging", name, fmt.Sprint("d", i%3), fmt.Sprintf("%04d", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, "file %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
		id := [16]byte{1, byte(i), byte(i >> 8)}
		if err := unix.Setxattr(path, xattrFileID, id[:], 0); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *running) filesOf(t *testing.T, of api.UploadFilesRequest) (all []api.UploadFile) {
	t.Helper()
	for f, err := range r.UploadFiles(t.Context(), of) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

// TestFilesOfADirectoryThatIsNotMounted: a directory that goes up without its mount is listed with all its files and what
// they wait for, a file has failed when the uploader has given up its group, and who waits for nothing more than a list may
// leave early.
func TestFilesOfADirectoryThatIsNotMounted(t *testing.T) {
	const files = 1500 // more than are read from a directory at once
	n := fresh(t, nil)
	n.stage(t, "work", files)
	req := defaultUpload
	req.Name = "work"
	if err := n.node.resumeUpload(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	of := api.UploadFilesRequest{Dir: "/nothing", Name: "work"}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for waiting := 0; waiting < files; <-tick.C {
		all := n.filesOf(t, of)
		if len(all) != files {
			t.Fatalf("%d files are listed", len(all))
		}
		waiting = 0
		for _, f := range all {
			if f.State == "uploading" && strings.HasPrefix(f.Reason, "needs ") {
				waiting++
			}
		}
	}
	of.Path = "d1"
	if all := n.filesOf(t, of); len(all) != files/3 || filepath.Dir(all[0].Path) != "d1" || all[0].Bytes == 0 || all[0].CID == "" {
		t.Errorf("%d files are below d1, such as %+v", len(all), all[0])
	}
	for range n.UploadFiles(t.Context(), of) {
		break
	}
	for _, bad := range []api.UploadFilesRequest{{Dir: "/nothing"}, {Dir: "/nothing", Name: "other"}, {Dir: "/nothing", Name: "work", Path: "../x"}, {Dir: "/nothing", Name: "work", Path: "gone"}} {
		for f, err := range n.UploadFiles(t.Context(), bad) {
			if err == nil {
				t.Errorf("%+v lists %+v", bad, f)
			}
		}
	}

	u := n.node.uploadDirs.named("work")
	u.sink.news.mu.Lock()
	for id, f := range u.sink.news.open {
		f.State, f.Reason = uploader.Failed, "refused: no space"
		u.sink.news.open[id] = f
	}
	u.sink.news.mu.Unlock()
	of.Path = "d1/0001"
	if all := n.filesOf(t, of); len(all) != 1 || all[0].State != "failed" || all[0].Reason != "refused: no space" {
		t.Errorf("a file of a group that has failed is %+v", all)
	}

	all, err := n.Uploads(t.Context(), false)
	if err != nil || len(all) != 1 || all[0].Directory == nil || all[0].Directory.Files != files || all[0].Directory.Dir != "" ||
		!strings.HasPrefix(all[0].Text, "uploading: needs ") || all[0].Done != 0 || all[0].Bytes == 0 {
		t.Errorf("uploads: %+v, %v", all, err)
	}
	if groups, err := n.Uploads(t.Context(), true); err != nil || len(groups) < 2 || groups[0].Directory != nil {
		t.Errorf("groups: %+v, %v", groups, err)
	}
	st, err := n.Status(t.Context())
	if err != nil || len(st.Storage.Unmounted) != 1 || st.Storage.Unmounted[0].Name != "work" {
		t.Errorf("status: %+v, %v", st.Storage, err)
	}
}

// TestUploadDirectoryThatNothingWorksOn is listed all the same.
func TestUploadDirectoryThatNothingWorksOn(t *testing.T) {
	n := fresh(t, nil)
	n.stage(t, "work", 3)
	list := func() api.Upload {
		t.Helper()
		all, err := n.Uploads(t.Context(), false)
		if err != nil || len(all) != 1 || all[0].Directory == nil || all[0].Directory.Files != 3 {
			t.Fatalf("uploads: %+v, %v", all, err)
		}
		return all[0]
	}
	if u := list(); u.Text != "created" {
		t.Errorf("before anything of it went up it is %s", u.Text)
	}
	if err := n.node.rememberUpload(api.UploadRequest{Name: "work"}); err != nil {
		t.Fatal(err)
	}
	if u := list(); u.Text != "uploading: goes on when it is mounted, or a daemon starts" {
		t.Errorf("when it is to go on it is %s", u.Text)
	}
}
