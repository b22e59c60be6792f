package test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// listedUpload is what the tests look at of `holdfast uploads --json`.
type listedUpload struct {
	Name, State, Text string
	Bytes, Done       int64
	Directory         *struct {
		Dir   string
		Files int
	}
}

// listedFile is what the tests look at of `holdfast uploads --json DIR`.
type listedFile struct{ Path, State, Progress, Reason, CID string }

// TestUploadsTellWhy: with too few providers the directory, its files and whoever waits for them say what is missing; so do
// status and the list when it is not mounted any more; and all of them see the end of it.
func TestUploadsTellWhy(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 3)
	writer := s.Start("writer")
	writer.Connect(all[0])
	writer.Add(s.RandomFile(3<<20, 7, "added"), "--protect", "4,2", "--upload")
	up := writer.Mount("up", "", "--upload", "--name", "work")
	s.MustSh(`mkdir "$1/d"; head -c 1M /dev/urandom > "$1/one"; head -c 1M /dev/urandom > "$1/d/two"`, up)
	const why = "needs 6 providers, 3 known"

	sync := s.Spawn(writer.Command("sync", up))
	s.Eventually("sync to say what it waits for", func() bool { return sync.Err() == "holdfast: waits: "+why+"\n" })
	sync.Signal(syscall.SIGINT)
	if code := sync.Wait(swarm.Patience); code != 130 || sync.Out() != "" || strings.Count(sync.Err(), "\n") != 1 {
		t.Errorf("an interrupted sync ended with %d: %s%s", code, sync.Out(), sync.Err())
	}
	refused(t, writer, 1, []string{"not all is with providers after 1s", why}, "sync", "--timeout", "1s", up)

	state := s.MustSh(`cd "$1/d"; getfattr --only-values -n user.holdfast.state two; getfattr --only-values -n user.holdfast.error two`, up)
	if state != "uploading"+why {
		t.Errorf("a file is %s", state)
	}
	list := func(args ...string) (all []listedFile) {
		t.Helper()
		must(t, json.Unmarshal([]byte(writer.Must(append([]string{"uploads", "--json"}, args...)...)), &all))
		return all
	}
	for _, args := range [][]string{{up}, {up, "d"}, {"work"}, {"work", "one"}} {
		files := list(args...)
		if want := 3 - len(args); args[len(args)-1] != "work" && len(args) == 2 && len(files) != 1 || len(args) == 1 && len(files) != want {
			t.Errorf("%v lists %+v", args, files)
		}
		for _, f := range files {
			if f.State != "uploading" || f.Reason != why || f.CID == "" || !strings.HasPrefix(f.Progress, "0 of ") {
				t.Errorf("%v lists %+v", args, f)
			}
		}
	}
	if out := writer.Must("uploads", up, "d"); !strings.HasPrefix(out, "uploading ") || !strings.HasSuffix(out, " d/two  ("+why+")") {
		t.Errorf("the list of files is %q", out)
	}
	refused(t, writer, 1, []string{"no upload directory"}, "uploads", s.Mkdir("other"))
	uploads := func() (all []listedUpload) {
		t.Helper()
		must(t, json.Unmarshal([]byte(writer.Must("uploads", "--json")), &all))
		if len(all) != 2 || all[0].Directory == nil || all[0].Directory.Files != 2 || all[1].Directory != nil {
			t.Fatalf("uploads are %+v", all)
		}
		return all
	}
	for _, u := range uploads() {
		if u.Text != "uploading: "+why || u.Done > 1<<20 || u.Bytes-u.Done < 1<<20 {
			t.Errorf("an upload is %+v", u)
		}
	}
	if dir := uploads()[0]; dir.Name != "work" || dir.Directory.Dir != up {
		t.Errorf("the directory is listed as %+v", dir)
	}

	writer.Must("umount", up)
	if out := writer.Must("uploads"); !strings.Contains(out, "\nwork") || !strings.Contains(out, "not mounted") {
		t.Errorf("uploads of what is not mounted: %s", out)
	}
	if out := writer.Must("status"); !strings.Contains(out, "\nuploading  work, which is not mounted: ") {
		t.Errorf("status of what is not mounted: %s", out)
	}
	for i := range 3 {
		s.Start(fmt.Sprint("late", i), "--provider").Connect(all[0])
	}
	s.Eventually("all to be uploaded", func() bool {
		for _, u := range uploads() {
			if u.State != "uploaded" || u.Done != u.Bytes {
				return false
			}
		}
		return true
	})
	if out := writer.Must("status"); strings.Contains(out, "which is not mounted") {
		t.Errorf("status of what is uploaded: %s", out)
	}
	up = writer.Mount("again", "", "--upload", "--name", "work")
	if files := list(up); len(files) != 0 {
		t.Errorf("what is uploaded is listed: %+v", files)
	}
	if files := list("--all", up); len(files) != 2 || files[0].State != "uploaded" || files[0].Reason != "" {
		t.Errorf("all files are %+v", files)
	}
	writer.Must("umount", up)
}
