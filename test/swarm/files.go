package swarm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Random is an endless reader of bytes that seed determines.
func Random(seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// RandomFile writes a file of random bytes below the scratch directory and
// returns its path.
func (s *Swarm) RandomFile(bytes int64, seed uint64, elem ...string) string {
	s.TB.Helper()
	path := s.Path(elem...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.TB.Fatalf("random file: %v", err)
	}
	f, err := os.Create(path)
	if err != nil {
		s.TB.Fatalf("random file: %v", err)
	}
	defer f.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(Random(seed), bytes), make([]byte, 1<<20)); err != nil {
		s.TB.Fatalf("random file: %v", err)
	}
	return path
}

// WriteFile writes a file below the scratch directory and returns its path.
func (s *Swarm) WriteFile(content string, elem ...string) string {
	s.TB.Helper()
	path := s.Path(elem...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.TB.Fatalf("write file: %v", err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		s.TB.Fatalf("write file: %v", err)
	}
	return path
}

// ManyFiles makes a directory of count small files and returns its path. Their
// contents repeat, and those that are equal are hard links: a million of them
// are quickly made and gone.
func (s *Swarm) ManyFiles(count int, elem ...string) string {
	s.TB.Helper()
	const contents = 100
	dir := s.Mkdir(elem...)
	name := func(i int) string { return filepath.Join(dir, fmt.Sprintf("entry-%07d", i)) }
	for i := range count {
		var err error
		if i < contents {
			err = os.WriteFile(name(i), fmt.Appendf(nil, "%d", i), 0o644)
		} else {
			err = os.Link(name(i%contents), name(i))
		}
		if err != nil {
			s.TB.Fatalf("many files: %v", err)
		}
	}
	return dir
}

// SHA256 is the hash of a local file, in hex. It is not for files of a mount:
// those are read by a child.
func (s *Swarm) SHA256(path string) string {
	s.TB.Helper()
	f, err := os.Open(path)
	if err != nil {
		s.TB.Fatalf("hash: %v", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		s.TB.Fatalf("hash: %v", err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
