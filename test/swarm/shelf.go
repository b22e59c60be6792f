package swarm

import (
	"context"
	"os"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange"
)

// Shelf keeps blocks in a file, one after another. It is an exchange's store.
type Shelf struct {
	file *os.File

	mu   sync.Mutex // guards what follows
	end  int64
	lies map[string]lie
}

// lie is where a block lies in the file; by its hash, as others may ask for it by another CID.
type lie struct {
	at    int64
	bytes int
}

var _ exchange.Store = (*Shelf)(nil)

func newShelf(path string) (*Shelf, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &Shelf{file: f, lies: make(map[string]lie)}, nil
}

func (s *Shelf) find(c cid.Cid) (lie, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lies[string(c.Hash())]
	if !ok {
		return lie{}, exchange.ErrNotFound
	}
	return l, nil
}

// Get implements exchange.Store.
func (s *Shelf) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	l, err := s.find(c)
	if err != nil {
		return nil, err
	}
	b := make([]byte, l.bytes)
	if _, err := s.file.ReadAt(b, l.at); err != nil {
		return nil, err
	}
	return blocks.NewBlockWithCid(b, c)
}

// SizeOf implements exchange.Store.
func (s *Shelf) SizeOf(_ context.Context, c cid.Cid) (int, error) {
	l, err := s.find(c)
	return l.bytes, err
}

// Put implements exchange.Store.
func (s *Shelf) Put(_ context.Context, arrivals []exchange.Arrival) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range arrivals {
		b := a.Block.RawData()
		if _, err := s.file.WriteAt(b, s.end); err != nil {
			return err
		}
		s.lies[string(a.Block.Cid().Hash())] = lie{s.end, len(b)}
		s.end += int64(len(b))
	}
	return nil
}

// PutBlock keeps one block.
func (s *Shelf) PutBlock(c cid.Cid, data []byte) error {
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		return err
	}
	return s.Put(context.Background(), []exchange.Arrival{{Block: b}})
}

// nobody knows no providers.
type nobody struct{}

func (nobody) FindProviders(context.Context, cid.Cid, int) <-chan peer.AddrInfo {
	c := make(chan peer.AddrInfo)
	close(c)
	return c
}

func (nobody) Provide(context.Context, cid.Cid) error { return nil }
