package provider

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// benchPiece is a whole chunk of 8 MiB, as of large files.
func benchPiece(b *testing.B, seed uint64) *piece {
	b.Helper()
	lengths := make([]int, 8)
	for i := range lengths {
		lengths[i] = 1 << 20
	}
	return makePiece(b, seed, lengths...)
}

// BenchmarkPlainFile writes and syncs 8 MiB, as a measure for the others.
func BenchmarkPlainFile(b *testing.B) {
	dir := b.TempDir()
	p := benchPiece(b, 1)
	b.SetBytes(int64(len(p.bytes)))
	for i := 0; b.Loop(); i++ {
		f, err := os.Create(filepath.Join(dir, "f"+string(rune('a'+i%26))+time.Now().Format("150405.000000000")))
		must(b, err)
		_, err = f.Write(p.bytes)
		must(b, err)
		must(b, f.Sync())
		must(b, f.Close())
		must(b, os.Remove(f.Name()))
	}
}

// tcpStore runs links over loopback connections, which have buffers as streams have.
type tcpStore struct {
	b  *testing.B
	n  *node
	at net.Listener
	wg sync.WaitGroup
}

func newTCPStore(b *testing.B) *tcpStore {
	b.Helper()
	s := &tcpStore{b: b, n: newNode(b, func(c *Config) { c.QuotaBytes = 64 << 30 })}
	var err error
	s.at, err = net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	_, from := testKey(b, "ann")
	s.wg.Go(func() {
		for {
			c, err := s.at.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { _ = s.n.p.Serve(context.Background(), from, c) })
		}
	})
	b.Cleanup(func() { must(b, s.at.Close()); s.wg.Wait() })
	return s
}

func (s *tcpStore) dial() net.Conn {
	c, err := net.Dial("tcp", s.at.Addr().String())
	must(s.b, err)
	must(s.b, c.SetDeadline(time.Now().Add(time.Minute)))
	return c
}

func (s *tcpStore) ask(r seal.Request, a seal.Answer) {
	c := s.dial()
	must(s.b, seal.Ask(c, r, a))
	must(s.b, c.Close())
}

// store takes one link to its pledge; the bytes are sealed already.
func (s *tcpStore) store(l *link) {
	s.ask(l.request(), &seal.StoreAnswer{})
	var a seal.SegmentsAnswer
	s.ask(&seal.Segments{Link: l.id, Key: l.key, Root: l.m.Root(), Map: l.m}, &a)
	c := s.dial()
	missing, err := seal.SendData(c, l.id, a.Missing, func(i int) ([]byte, error) { return l.segment(i), nil })
	must(s.b, err)
	must(s.b, c.Close())
	if missing.Count() > 0 {
		s.b.Fatal("segments are missing")
	}
	s.ask(&seal.SignatureRequest{Link: l.id}, &seal.SignatureAnswer{})
}

// BenchmarkStore stores chunks of 8 MiB one after the other, from agreement to pledge.
func BenchmarkStore(b *testing.B) {
	s := newTCPStore(b)
	l := s.n.newLink("ann", 1, benchPiece(b, 1))
	b.SetBytes(int64(len(l.sealed)))
	for i := 0; b.Loop(); i++ {
		l.id = seal.LinkID{byte(i), byte(i >> 8), byte(i >> 16), 1}
		s.store(l)
		b.StopTimer()
		s.ask(&seal.Release{Chunk: l.piece.id}, &seal.BasicAnswer{})
		b.StartTimer()
	}
}

// BenchmarkStoreParallel stores three chunks at a time.
func BenchmarkStoreParallel(b *testing.B) {
	s := newTCPStore(b)
	var links []*link
	for i := range 3 {
		links = append(links, s.n.newLink("ann", byte(i), benchPiece(b, uint64(i))))
	}
	b.SetBytes(3 * int64(len(links[0].sealed)))
	for i := 0; b.Loop(); i++ {
		var wg sync.WaitGroup
		for j, l := range links {
			l.id = seal.LinkID{byte(i), byte(i >> 8), byte(i >> 16), byte(j)}
			wg.Go(func() { s.store(l) })
		}
		wg.Wait()
		b.StopTimer()
		for _, l := range links {
			s.ask(&seal.Release{Chunk: l.piece.id}, &seal.BasicAnswer{})
		}
		b.StartTimer()
	}
}

// BenchmarkGet reads blocks of 1 MiB out of sealed chunks.
func BenchmarkGet(b *testing.B) {
	n := newNode(b, nil)
	l := n.newLink("ann", 1, benchPiece(b, 1))
	l.mustStore()
	b.SetBytes(1 << 20)
	for i := 0; b.Loop(); i++ {
		_, err := n.p.Get(b.Context(), l.piece.chunk[i%8].CID)
		must(b, err)
	}
}
