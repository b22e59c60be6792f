package api

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

func nilLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// pack packs and returns the entries by name.
func pack(t *testing.T, opts PackOptions, paths ...string) (map[string]*tar.Header, map[string]string, error) {
	t.Helper()
	if opts.Skipped == nil {
		opts.Skipped = func(path string, why error) { t.Errorf("left out %s: %v", path, why) }
	}
	var b bytes.Buffer
	if err := Pack(context.Background(), &b, paths, opts); err != nil {
		return nil, nil, err
	}
	headers, contents := map[string]*tar.Header{}, map[string]string{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return headers, contents, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		headers[h.Name], contents[h.Name] = h, string(content)
	}
}

func TestPackKeepsWhatUnixFSHolds(t *testing.T) {
	dir := t.TempDir()
	when := time.Unix(1234567890, 123456789)
	write(t, filepath.Join(dir, "tree", "sub", "file"), "hello", 0o640)
	write(t, filepath.Join(dir, "tree", ".hidden"), "", 0o4755)
	os.Chmod(filepath.Join(dir, "tree", ".hidden"), 0o755|os.ModeSetuid)
	os.Symlink("sub/file", filepath.Join(dir, "tree", "link"))
	os.Symlink("tree", filepath.Join(dir, "alias"))
	if err := os.Chtimes(filepath.Join(dir, "tree", "sub", "file"), when, when); err != nil {
		t.Fatal(err)
	}
	var counted int
	headers, contents, err := pack(t, PackOptions{Progress: func(n int) { counted += n }}, filepath.Join(dir, "tree"), filepath.Join(dir, "alias"))
	if err != nil {
		t.Fatal(err)
	}
	if contents["0/sub/file"] != "hello" || contents["1/sub/file"] != "hello" || counted != 10 {
		t.Errorf("contents %v, %d bytes counted", contents, counted)
	}
	if h := headers["0/sub/file"]; h.Mode != 0o640 || !h.ModTime.Equal(when) {
		t.Errorf("mode %o, time %v", h.Mode, h.ModTime)
	}
	if h := headers["0/.hidden"]; h == nil || h.Mode != 0o4755 {
		t.Errorf("hidden file: %+v", h)
	}
	if h := headers["0/link"]; h.Typeflag != tar.TypeSymlink || h.Linkname != "sub/file" {
		t.Errorf("link: %+v", h)
	}
	if headers["1"].Typeflag != tar.TypeDir {
		t.Error("a link that is a path itself is not followed")
	}
	if got := Measure(context.Background(), []string{filepath.Join(dir, "alias")}); got != 5 {
		t.Errorf("measured %d", got)
	}
}

func TestPackLeavesOutWhatItMust(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good"), "good", 0o644)
	write(t, filepath.Join(dir, "bad\xff"), "bad", 0o644)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	var left []string
	headers, _, err := pack(t, PackOptions{Skipped: func(path string, why error) {
		left = append(left, filepath.Base(path)+": "+why.Error())
	}}, dir)
	if err != nil || headers["0/good"] == nil || len(headers) != 2 {
		t.Errorf("%v, %v", headers, err)
	}
	slices.Sort(left)
	if len(left) != 2 || !strings.Contains(left[0], "UTF-8") || !strings.Contains(left[1], "pipe") {
		t.Errorf("told of %q", left)
	}
	if _, _, err := pack(t, PackOptions{Strict: true}, dir); !errors.Is(err, ErrStrict) {
		t.Errorf("strict: %v", err)
	}
	if _, _, err := pack(t, PackOptions{}, filepath.Join(dir, "pipe")); !errors.Is(err, ErrStrict) {
		t.Errorf("a pipe by name: %v", err)
	}
	if _, _, err := pack(t, PackOptions{}, filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("missing: %v", err)
	}
}

func TestUnpackWritesTreesAndFiles(t *testing.T) {
	when := time.Unix(1000000000, 5)
	preserved := func(h *tar.Header, mode int64) *tar.Header {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.Mode, h.ModTime, h.PAXRecords[PaxPreserved] = mode, when, "mt"
		return h
	}
	out := filepath.Join(t.TempDir(), "new", "out")
	in := archive(t, preserved(dir("."), 0o750), preserved(dir("./ro"), 0o555), preserved(file("./ro/f", "content"), 0o4640),
		preserved(link("./l", "ro/f"), 0o777), file("./plain", ""))
	if err := Unpack(in, out, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o750, "ro": 0o555, "ro/f": 0o640} {
		st, err := os.Stat(filepath.Join(out, name))
		if err != nil || st.Mode()&(os.ModePerm|os.ModeSetuid) != mode || !st.ModTime().Equal(when) {
			t.Errorf("%q: %v, %v", name, st, err)
		}
	}
	if st, err := os.Lstat(filepath.Join(out, "l")); err != nil || !st.ModTime().Equal(when) {
		t.Errorf("link: %v, %v", st, err)
	}
	if st, err := os.Stat(filepath.Join(out, "plain")); err != nil || st.ModTime().Equal(when) {
		t.Errorf("a file without a time got one: %v", err)
	}
	single := filepath.Join(t.TempDir(), "single")
	if err := Unpack(archive(t, file(".", "one file")), single, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(single); err != nil || string(b) != "one file" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestUnpackIsNotLedAstray(t *testing.T) {
	for name, entries := range map[string][]*tar.Header{
		"dots":              {dir("."), file("./../escaped", "x")},
		"absolute":          {dir("."), file("/tmp/escaped", "x")},
		"deep dots":         {dir("."), dir("./a"), file("./a/../../escaped", "x")},
		"through a link":    {dir("."), link("./l", ".."), file("./l/escaped", "x")},
		"through a file":    {dir("."), file("./f", ""), file("./f/escaped", "x")},
		"over a link":       {dir("."), link("./l", "../escaped"), file("./l", "x")},
		"absolute link":     {dir("."), link("./l", "/tmp"), file("./l/escaped", "x")},
		"hard link":         {dir("."), {Name: "./h", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}},
		"device":            {dir("."), {Name: "./d", Typeflag: tar.TypeChar}},
		"twice":             {dir("."), file("./f", "1"), file("./f", "2")},
		"below a file root": {file(".", "x"), file("./../escaped", "y")},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			err := Unpack(archive(t, entries...), filepath.Join(parent, "box", "out"), UnpackOptions{})
			if err == nil {
				t.Error("accepted")
			}
			if left, _ := filepath.Glob(filepath.Join(parent, "box", "*")); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			if left, _ := filepath.Glob(filepath.Join(parent, "box", ".*holdfast*")); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			if _, err := os.Lstat(filepath.Join(parent, "escaped")); err == nil {
				t.Error("escaped")
			}
		})
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	whole := archive(t, dir("."), dir("./ro"), file("./ro/f", strings.Repeat("x", 5000))).Bytes()
	torn := io.MultiReader(bytes.NewReader(whole[:3000]), failingReader{errTorn})
	err := Unpack(torn, filepath.Join(parent, "out"), UnpackOptions{})
	if CodeOf(err) != CodeUnavailable {
		t.Errorf("got %v", err)
	}
	late := io.MultiReader(bytes.NewReader(whole), failingReader{errTorn})
	if err := Unpack(late, filepath.Join(parent, "out"), UnpackOptions{}); CodeOf(err) != CodeUnavailable {
		t.Errorf("a failure told of at the end: %v", err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestNothingIsOverwrittenUnasked(t *testing.T) {
	parent := t.TempDir()
	out := filepath.Join(parent, "out")
	write(t, filepath.Join(out, "keep"), "mine", 0o644)
	write(t, filepath.Join(out, "f"), "old", 0o644)
	tree := func() io.Reader { return archive(t, dir("."), file("./f", "new"), dir("./d"), file("./d/g", "g")) }
	if err := Unpack(tree(), out, UnpackOptions{}); err == nil || hint.Of(err) == "" {
		t.Errorf("overwrote: %v", err)
	}
	for range 2 { // into what is there, and into its own result
		if err := Unpack(tree(), out, UnpackOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"keep": "mine", "f": "new", "d/g": "g"} {
		if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if err := Unpack(archive(t, file(".", "x")), out, UnpackOptions{Force: true}); err == nil {
		t.Error("a file took the place of a directory")
	}
	if err := Unpack(archive(t, file(".", "x")), filepath.Join(out, "f"), UnpackOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(out); len(entries) != 3 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestAddStreams(t *testing.T) {
	f := &fakeNode{}
	c, _, _ := serve(t, f)
	added, err := c.Add(context.Background(), strings.NewReader(strings.Repeat("y", 1<<20)), AddOptions{Pin: true, Raw: true})
	if err != nil || len(added) != 1 || f.added.Len() != 1<<20 {
		t.Errorf("%v, %v, %d bytes arrived", added, err, f.added.Len())
	}
	if got := f.requests[0]; got != "add preserve=false pin=true raw=true" {
		t.Errorf("options arrived as %s", got)
	}
	f.fail = &Error{Code: CodeFull, Message: "store is full"}
	if _, err := c.Add(context.Background(), endless{}, AddOptions{}); CodeOf(err) != CodeFull {
		t.Errorf("a refused stream: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
