package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHundredReaders(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "big", Away: true, Delay: 5 * time.Millisecond})
	want := random(64*leafBytes, 1)
	var readers sync.WaitGroup
	for seed := range uint64(100) {
		readers.Go(func() {
			f, err := os.Open(s.path("big"))
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			r := rand.New(rand.NewPCG(seed, 0))
			buf := make([]byte, 10_000)
			for range 20 {
				off := r.Int64N(int64(len(want) - len(buf)))
				if _, err := f.ReadAt(buf, off); err != nil || !bytes.Equal(buf, want[off:off+int64(len(buf))]) {
					t.Errorf("at %d: equal %v, %v", off, bytes.Equal(buf, want[off:off+int64(len(buf))]), err)
				}
			}
		})
	}
	readers.Wait()
	if n := s.number("most"); n != 1 {
		t.Errorf("a block was fetched %d times", n)
	}
}

// TestLyingDirectory reads a file whose directory states a wrong length: never a byte, and no end too early.
func TestLyingDirectory(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "lie"})
	_, err := os.ReadFile(s.path("liar"))
	wantErrno(t, "read the liar", err, syscall.EIO)
	s.says("says 500 bytes, it has 1000")
}

// dirent is a name of a raw listing and the position behind it.
type dirent struct {
	name string
	off  int64
}

// listRaw lists an open directory from where it is.
func listRaw(t *testing.T, fd int, most int) (list []dirent) {
	t.Helper()
	buf := make([]byte, 4096)
	for len(list) < most {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return list
		}
		for at := 0; at < n; {
			off := int64(*(*uint64)(ptr(&buf[at+8])))
			length := int(*(*uint16)(ptr(&buf[at+16])))
			name, _, _ := bytes.Cut(buf[at+19:at+length], []byte{0})
			list = append(list, dirent{string(name), off})
			at += length
		}
	}
	return list
}

func TestSeekInDirectories(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "seek"})
	for _, dir := range []string{"plain", "hamt"} {
		fd, err := unix.Open(s.path(dir), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		all := listRaw(t, fd, 1<<20)
		names := map[string]bool{}
		for _, e := range all {
			names[e.name] = true
		}
		if want := map[string]int{"plain": 1002, "hamt": 6002}[dir]; len(all) != want || len(names) != want {
			t.Fatalf("%s: listed %d entries, %d names, want %d", dir, len(all), len(names), want)
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 30 {
			at := r.IntN(len(all))
			if _, err := unix.Seek(fd, all[at].off, unix.SEEK_SET); err != nil {
				t.Fatal(err)
			}
			got := listRaw(t, fd, 5)
			rest := all[at+1:]
			if len(got) > len(rest) || !slices.Equal(got, rest[:len(got)]) {
				t.Fatalf("%s: after a seek behind entry %d: %v", dir, at, got[:min(3, len(got))])
			}
		}
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			t.Fatal(err)
		}
		if again := listRaw(t, fd, 1<<20); !slices.Equal(again, all) {
			t.Errorf("%s: a second listing differs", dir)
		}
	}
}

// TestListingDoesNotWait lists a directory none of whose children's roots will ever come.
func TestListingDoesNotWait(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "metas", Timeout: patient})
	s.tell("loseall")
	out := sh(t, `ls -U -A --color=never "$1"`, s.dir)
	if n := strings.Count(out, "\n"); n != 50 {
		t.Errorf("listed %d names", n)
	}
	if n := s.number("ahead"); n != 50 {
		t.Errorf("%d roots were asked for ahead", n)
	}
	s.tell("find")
	if n := strings.Count(sh(t, `ls -lU "$1"`, s.dir), "-rw-r-----"); n != 50 {
		t.Errorf("%d of 50 modes are right", n)
	}
}

// TestPanicIsAnError has a request hit a fault in the blocks below.
func TestPanicIsAnError(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed"})
	s.tell("panic", "on")
	_, err := os.ReadFile(s.path("small"))
	wantErrno(t, "read over a fault", err, syscall.EIO)
	s.tell("panic", "off")
	checkFile(t, s.path("script"), []byte("#!/bin/sh\necho ran \"$@\"\n"))
	s.says("request panicked")
}

func TestMissLogOnce(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "mixed", Timeout: 50 * time.Millisecond})
	sh(t, `ls -lR "$1"`, s.dir)
	s.tell("loseall")
	for range 5 {
		sh(t, `cat "$1"/small 2>/dev/null; true`, s.dir)
	}
	s.says("path=/small")
	if n := strings.Count(s.log.String(), "path=/small"); n != 1 {
		t.Errorf("the lost block is told %d times:\n%s", n, s.log)
	}
	m := newMissLog(nil)
	now, lines := time.Unix(1, 0), 0
	for i := range 1000 {
		if _, ok := m.admit(fmt.Sprint(i), now); ok {
			lines++
		}
	}
	if skipped, ok := m.admit("later", now.Add(missPeriod)); lines != missBurst || !ok || skipped != 1000-missBurst {
		t.Errorf("%d lines in a second; then %v, %d skipped", lines, ok, skipped)
	}
}
