package fs

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The benchmarks read the same bytes through a mount and from the native file system, in one run:
//
//	go test ./fs -run '^$' -bench . -benchtime 3x

const benchBytes = 512 * leafBytes

// benchFiles gives the same file three ways: native, through the mount's process, and by passthrough to body.
func benchFiles(b *testing.B) (native, served, through, body string) {
	b.Helper()
	native = filepath.Join(b.TempDir(), "native")
	if err := os.WriteFile(native, random(benchBytes, 1), 0o644); err != nil {
		b.Fatal(err)
	}
	body = filepath.Join(b.TempDir(), "body")
	if err := os.WriteFile(body, random(benchBytes, 1), 0o644); err != nil {
		b.Fatal(err)
	}
	s := mountChild(b, childSpec{Tree: "huge"})
	p := mountChild(b, childSpec{Tree: "huge"})
	p.tell("body", p.cidOf("big"), body)
	return native, s.path("big"), p.path("big"), body
}

// cidOf asks the mount for a file's CID.
func (s *served) cidOf(name string) string {
	s.tb.Helper()
	buf := make([]byte, 256)
	n, err := unix.Getxattr(s.path(name), xattrCID, buf)
	if err != nil {
		s.tb.Fatal(err)
	}
	return string(buf[:n])
}

// dropFile takes a file out of the page cache; a body under the file that it stands behind.
func dropFile(b *testing.B, path string) {
	b.Helper()
	unix.Sync()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
}

func readWhole(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		if _, err := f.Read(buf); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

func readRandom(b *testing.B, path string, reads int) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for range reads {
		if _, err := f.ReadAt(buf, rand.Int64N(benchBytes/4096)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	native, served, through, body := benchFiles(b)
	for _, way := range []struct{ name, path, drop string }{
		{"native", native, native}, {"served", served, served}, {"passthrough", through, body},
	} {
		b.Run("first/"+way.name, func(b *testing.B) {
			b.SetBytes(benchBytes)
			for b.Loop() {
				b.StopTimer()
				dropFile(b, way.drop)
				b.StartTimer()
				readWhole(b, way.path)
			}
		})
		b.Run("again/"+way.name, func(b *testing.B) {
			b.SetBytes(benchBytes)
			for b.Loop() {
				readWhole(b, way.path)
			}
		})
		b.Run("random/"+way.name, func(b *testing.B) {
			const reads = 5000
			b.SetBytes(reads * 4096)
			for b.Loop() {
				b.StopTimer()
				dropFile(b, way.drop)
				b.StartTimer()
				readRandom(b, way.path, reads)
			}
		})
	}
}

func BenchmarkTree(b *testing.B) {
	s := mountChild(b, childSpec{Tree: "files"})
	native := filepath.Join(b.TempDir(), "native")
	sh(b, `cp -r "$1" "$2"; ls -lR "$2" >/dev/null`, s.dir, native)
	for _, way := range []struct{ name, path string }{{"native", native}, {"served", s.dir}} {
		for _, c := range []struct{ name, script string }{
			{"find", `find "$1" >/dev/null`}, {"ls", `ls -lR "$1" >/dev/null`}, {"stat", `find "$1" -size +1M`},
			{"tar", `tar -C "$1" -cf - . | cat >/dev/null`},
		} {
			b.Run(c.name+"/"+way.name, func(b *testing.B) {
				for b.Loop() {
					sh(b, c.script, way.path)
				}
			})
		}
	}
}
