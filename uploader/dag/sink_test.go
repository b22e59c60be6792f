package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// memSink keeps blocks in memory and checks what the contract of Sink and Body says.
type memSink struct {
	mu      sync.Mutex
	blocks  map[cid.Cid][]byte
	visited map[cid.Cid]bool
	bodies  map[cid.Cid]uint64 // committed, with their lengths
	aborted int
	open    int
	fail    error // returned by the next Put
	puts    int
	bytes   int
	limit   int // if set, over is called once more bytes than this were put
	over    func()
}

func newMemSink() *memSink {
	return &memSink{blocks: map[cid.Cid][]byte{}, visited: map[cid.Cid]bool{}, bodies: map[cid.Cid]uint64{}}
}

func (s *memSink) Put(_ context.Context, blks []blocks.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	if s.fail != nil {
		return s.fail
	}
	for _, b := range blks {
		s.blocks[b.Cid()] = b.RawData()
		if s.bytes += len(b.RawData()); s.limit > 0 && s.bytes > s.limit {
			s.over()
		}
	}
	return nil
}

func (s *memSink) Body(_ context.Context, fileBytes uint64) (Body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return &memBody{s: s, size: fileBytes, parts: map[uint64]uint64{}}, nil
}

func (s *memSink) visit(c cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visited[c] = true
}

type memBody struct {
	s     *memSink
	size  uint64
	parts map[uint64]uint64
}

func (b *memBody) Put(ctx context.Context, offset uint64, blks []blocks.Block) error {
	for _, blk := range blks {
		kept, _ := blocks.NewBlockWithCid(bytes.Clone(blk.RawData()), blk.Cid())
		if err := b.s.Put(ctx, []blocks.Block{kept}); err != nil {
			return err
		}
		b.s.mu.Lock()
		b.parts[offset] = uint64(len(blk.RawData()))
		b.s.mu.Unlock()
		offset += uint64(len(blk.RawData()))
	}
	return nil
}

func (b *memBody) Commit(_ context.Context, file cid.Cid) error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.open--
	starts := make([]uint64, 0, len(b.parts))
	for o := range b.parts {
		starts = append(starts, o)
	}
	sort.Slice(starts, func(i, j int) bool { return starts[i] < starts[j] })
	at := uint64(0)
	for _, o := range starts {
		if o != at {
			return fmt.Errorf("gap in body at %d", at)
		}
		at += b.parts[o]
	}
	if at != b.size {
		return errors.New("body is not full")
	}
	if _, ok := b.s.blocks[file]; !ok {
		return errors.New("commit before the root was put")
	}
	b.s.bodies[file] = b.size
	return nil
}

func (b *memBody) Abort() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.open--
	b.s.aborted++
}

// dagService lets boxo build into and read from a memSink.
type dagService struct {
	ipld.DAGService
	s *memSink
}

func (d dagService) Add(ctx context.Context, n ipld.Node) error {
	return d.s.Put(ctx, []blocks.Block{n})
}

func (d dagService) AddMany(ctx context.Context, ns []ipld.Node) error {
	for _, n := range ns {
		if err := d.Add(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (d dagService) Get(_ context.Context, c cid.Cid) (ipld.Node, error) {
	d.s.mu.Lock()
	raw, ok := d.s.blocks[c]
	d.s.mu.Unlock()
	if !ok {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	b, err := blocks.NewBlockWithCid(raw, c)
	if err != nil {
		return nil, err
	}
	if c.Type() == cid.Raw {
		return merkledag.DecodeRawBlock(b)
	}
	return merkledag.DecodeProtobufBlock(b)
}

func (d dagService) GetMany(ctx context.Context, cs []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cs))
	for _, c := range cs {
		n, err := d.Get(ctx, c)
		out <- &ipld.NodeOption{Node: n, Err: err}
	}
	close(out)
	return out
}

func newTestBuilder(t testing.TB, s *memSink, cfg Config) *Builder {
	t.Helper()
	cfg.Sink, cfg.Visit = s, s.visit
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// randomBytes are the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	p := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = src.Read(p)
	return p
}

// checkSink fails unless every block hashes to its CID, was visited, and no body is left open.
func checkSink(t testing.TB, s *memSink) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != 0 {
		t.Errorf("%d bodies neither committed nor aborted", s.open)
	}
	for c, raw := range s.blocks {
		if sum, err := c.Prefix().Sum(raw); err != nil || !sum.Equals(c) {
			t.Errorf("block %s does not hash to its CID", c)
		}
		if !s.visited[c] {
			t.Errorf("block %s was not visited", c)
		}
	}
	if len(s.visited) != len(s.blocks) {
		t.Errorf("%d blocks visited, %d put", len(s.visited), len(s.blocks))
	}
}
