package node

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/fs"
)

// Staged files are lent by ID: another that lies where one was is never taken for it.
func TestOpenStaged(t *testing.T) {
	t.Parallel()
	dir, id, other := t.TempDir(), fs.FileID{1}, fs.FileID{2}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openStaged(dir, "file", id); err == nil {
		t.Error("opened a file without an ID")
	}
	if err := unix.Setxattr(file, xattrFileID, id[:], 0); err != nil {
		t.Fatal(err)
	}
	f, err := openStaged(dir, "file", id)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Symlink(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for what, open := range map[string]func() (*os.File, error){
		"another ID":        func() (*os.File, error) { return openStaged(dir, "file", other) },
		"no file":           func() (*os.File, error) { return openStaged(dir, "gone", id) },
		"no directory":      func() (*os.File, error) { return openStaged(filepath.Join(dir, "gone"), "file", id) },
		"outside":           func() (*os.File, error) { return openStaged(filepath.Dir(dir), "../"+filepath.Base(dir), id) },
		"a link out of it":  func() (*os.File, error) { return openStaged(dir, "link", id) },
		"a directory of it": func() (*os.File, error) { return openStaged(dir, ".", id) },
	} {
		if f, err := open(); err == nil {
			t.Errorf("%s: opened %s", what, f.Name())
		}
	}
}

// Loans of one file are made and ended one after the other, and nothing is left of that.
func TestLenderTurns(t *testing.T) {
	t.Parallel()
	l := newLender(nil)
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				unlock := l.lock(importKey{id: fs.FileID{1}}, "here")
				if inside.Add(1) > 1 {
					t.Error("two at a time")
				}
				inside.Add(-1)
				unlock()
			}
		})
	}
	unlock := l.lock(importKey{id: fs.FileID{2}}, "") // of another file it is another's turn
	wg.Wait()
	unlock()
	if len(l.turns) > 0 {
		t.Errorf("%d turns are left", len(l.turns))
	}
}
