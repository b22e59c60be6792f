package api

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree makes a directory with files on both sides of the length from which descriptors are passed.
func laneTree(t *testing.T) (dir string, want map[string][]byte) {
	t.Helper()
	dir = t.TempDir()
	want = make(map[string][]byte)
	random := rand.New(rand.NewSource(1))
	for name, size := range map[string]int{"a-empty": 0, "b-small": 100, "c-edge": passFrom, "d-more": passFrom + 12345, "e-less": passFrom - 1} {
		b := make([]byte, size)
		random.Read(b)
		want["0/"+name] = b
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, want
}

// readContent reads a tar stream as a node does. passed counts what came as descriptors.
func readContent(got map[string][]byte, passed *int) func(io.Reader, AddOptions) error {
	return func(r io.Reader, opts AddOptions) error {
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if h.Typeflag != tar.TypeReg {
				continue
			}
			in, size, err := opts.Content(context.Background(), h, tr)
			if err != nil {
				return err
			}
			if h.PAXRecords[paxFile] != "" {
				*passed++
			}
			b, err := io.ReadAll(in)
			if err == nil && int64(len(b)) != size {
				err = errors.New("another length than announced")
			}
			if err != nil {
				return err
			}
			got[h.Name] = b
		}
	}
}

// packOn packs dir for a node, with a lane.
func packOn(t *testing.T, c *Client, dir string, progress func(int)) error {
	t.Helper()
	lane, err := c.OpenFileLane(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lane.Close()
	in, out := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := Pack(t.Context(), out, []string{dir}, PackOptions{Lane: lane, Progress: progress, Skipped: func(string, error) {}})
		if !errors.Is(err, ErrTakesNoMore) {
			out.CloseWithError(err)
		}
		packed <- err
	}()
	_, err = c.Add(t.Context(), in, AddOptions{Lane: lane})
	in.CloseWithError(ErrTakesNoMore)
	lane.Close()
	perr := <-packed
	if err == nil && perr != nil {
		t.Errorf("the node has all, but packing failed: %v", perr)
	}
	return err
}

func TestLargeFilesCrossAsDescriptors(t *testing.T) {
	dir, want := laneTree(t)
	got, passed, counted, total := make(map[string][]byte), 0, 0, 0
	c, _, _ := serve(t, &fakeNode{addTar: readContent(got, &passed)})
	if err := packOn(t, c, dir, func(n int) { counted += n }); err != nil {
		t.Fatal(err)
	}
	for name, b := range want {
		total += len(b)
		if !bytes.Equal(got[name], b) {
			t.Errorf("%s arrived with %d bytes of %d, or other ones", name, len(got[name]), len(b))
		}
	}
	if passed != 2 || counted != total {
		t.Errorf("%d files were passed, want 2; %d bytes counted, want %d", passed, counted, total)
	}
}

// TestShrinkingFile cuts a file off between the moment when it is passed and the one when it is read.
func TestShrinkingFile(t *testing.T) {
	dir, _ := laneTree(t)
	got, passed := make(map[string][]byte), 0
	read := readContent(got, &passed)
	c, _, _ := serve(t, &fakeNode{addTar: func(r io.Reader, opts AddOptions) error {
		content := opts.Content
		opts.Content = func(ctx context.Context, h *tar.Header, r io.Reader) (io.Reader, int64, error) {
			if h.PAXRecords[paxFile] != "" {
				if err := os.Truncate(h.PAXRecords[paxFile], 1000); err != nil {
					t.Error(err)
				}
			}
			return content(ctx, h, r)
		}
		return read(r, opts)
	}})
	err := packOn(t, c, dir, nil)
	if err == nil || !strings.Contains(err.Error(), "became shorter") || !strings.Contains(err.Error(), dir) {
		t.Errorf("a file that shrinks: %v", err)
	}
}

// TestNodeThatFailsEndsThePassing has the node fail while a file is on the lane.
func TestNodeThatFailsEndsThePassing(t *testing.T) {
	dir, _ := laneTree(t)
	c, _, _ := serve(t, &fakeNode{addTar: func(r io.Reader, opts AddOptions) error {
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err != nil {
				return err
			}
			if h.PAXRecords[paxFile] != "" {
				return &Error{Code: CodeFull, Message: "store is full"}
			}
		}
	}})
	if err := packOn(t, c, dir, nil); CodeOf(err) != CodeFull {
		t.Errorf("the node's error came as %v", err)
	}
}

// TestStrangeLanes sends what Pack never does.
func TestStrangeLanes(t *testing.T) {
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	defer pw.Close()
	proc, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	frame := make([]byte, laneFrame)
	for name, send := range map[string]func(l *FileLane) error{
		"pipe":           func(l *FileLane) error { return message(l, frame, int(pr.Fd())) },
		"other files":    func(l *FileLane) error { return message(l, frame, int(proc.Fd())) },
		"two":            func(l *FileLane) error { return message(l, frame, int(proc.Fd()), int(proc.Fd())) },
		"no descriptor":  func(l *FileLane) error { return message(l, frame) },
		"a short frame":  func(l *FileLane) error { return message(l, frame[:3], int(proc.Fd())) },
		"the lane's end": func(l *FileLane) error { return l.conn.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			got, passed := make(map[string][]byte), 0
			c, _, _ := serve(t, &fakeNode{addTar: readContent(got, &passed)})
			l, err := c.OpenFileLane(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := send(l); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Add(t.Context(), passing(t, "5000000"), AddOptions{Lane: l}); err == nil || passed != 0 {
				t.Errorf("%d files were taken, error %v", passed, err)
			}
		})
	}
	c, _, _ := serve(t, &fakeNode{addTar: readContent(make(map[string][]byte), new(int))})
	if _, err := c.Add(t.Context(), passing(t, "5000000"), AddOptions{}); CodeOf(err) != CodeUsage {
		t.Errorf("an entry for a lane that is not there: %v", err)
	}
	if _, err := c.Add(t.Context(), passing(t, "5000000"), AddOptions{Lane: &FileLane{name: "nobody's"}}); CodeOf(err) != CodeUsage {
		t.Errorf("a lane that is not there: %v", err)
	}
}

// message sends a frame with descriptors.
func message(l *FileLane, frame []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := l.conn.WriteMsgUnix(frame, oob, nil)
	return err
}

// passing is a stream of one entry whose bytes come on the lane.
func passing(t *testing.T, size string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "0", Typeflag: tar.TypeReg, PAXRecords: map[string]string{paxFile: "x", paxBytes: size}}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return &b
}

// TestLaneEndsWithItsServer opens a lane and uses it for nothing.
func TestLaneEndsWithItsServer(t *testing.T) {
	c, s, _ := serve(t, &fakeNode{})
	l, err := c.OpenFileLane(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.stop()
	l.conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := l.conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the lane outlived its server: %v", err)
	}
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	if len(s.lanes.m) != 0 {
		t.Errorf("%d lanes are kept", len(s.lanes.m))
	}
}
