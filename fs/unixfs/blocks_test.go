package unixfs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// memBlocks is a Blocks, and a DAGService for boxo, over a map. Blocks in away are not local.
type memBlocks struct {
	ipld.DAGService
	mu      sync.Mutex
	m       map[cid.Cid]blocks.Block
	away    map[cid.Cid]bool
	gets    map[cid.Cid]int
	busy    int // Gets running
	busiest int
	arrived chan struct{} // if set, told of each Get that begins
	gate    chan struct{} // if set, Get waits for a value
	delay   time.Duration // of each Get
	fail    error         // if set, Get's answer
}

func newMemBlocks() *memBlocks {
	return &memBlocks{m: map[cid.Cid]blocks.Block{}, away: map[cid.Cid]bool{}, gets: map[cid.Cid]int{}}
}

func (s *memBlocks) Get(ctx context.Context, w Want) (blocks.Block, error) {
	s.mu.Lock()
	s.gets[w.CID]++
	s.busy++
	s.busiest = max(s.busiest, s.busy)
	b, ok, gate, fail := s.m[w.CID], s.m[w.CID] != nil, s.gate, s.fail
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.busy--
		s.mu.Unlock()
	}()
	if s.delay > 0 {
		select {
		case <-time.After(s.delay):
		case <-ctx.Done():
		}
	}
	if gate != nil {
		s.arrived <- struct{}{}
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fail != nil {
		return nil, fail
	}
	if !ok {
		return nil, fmt.Errorf("no block %s", w.CID)
	}
	return b, ctx.Err()
}

func (s *memBlocks) Local(_ context.Context, w Want) (blocks.Block, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.m[w.CID]; b != nil && !s.away[w.CID] {
		return b, nil
	}
	return nil, fmt.Errorf("%s: %w", w.CID, ErrNotLocal)
}

func (s *memBlocks) Prefetch(context.Context, []Want) {}

func (s *memBlocks) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.gets {
		n += c
	}
	return n
}

// put stores raw under a version 1 CID.
func (s *memBlocks) put(codec uint64, raw []byte) cid.Cid {
	c, err := cid.Prefix{Version: 1, Codec: codec, MhType: mh.SHA2_256, MhLength: -1}.Sum(raw)
	if err != nil {
		panic(err)
	}
	s.putAs(c, raw)
	return c
}

func (s *memBlocks) putAs(c cid.Cid, raw []byte) {
	b, err := blocks.NewBlockWithCid(raw, c)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[c] = b
}

func (s *memBlocks) Add(_ context.Context, n ipld.Node) error {
	s.putAs(n.Cid(), n.RawData())
	return nil
}

func (s *memBlocks) AddMany(ctx context.Context, ns []ipld.Node) error {
	for _, n := range ns {
		_ = s.Add(ctx, n)
	}
	return nil
}

// boxoView gives boxo's readers a DAGService: its Get clashes with Blocks'.
type boxoView struct{ *memBlocks }

func (v boxoView) Get(_ context.Context, c cid.Cid) (ipld.Node, error) {
	v.mu.Lock()
	b := v.m[c]
	v.mu.Unlock()
	if b == nil {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	if c.Type() == cid.Raw {
		return merkledag.DecodeRawBlock(b)
	}
	return merkledag.DecodeProtobufBlock(b)
}

func (v boxoView) GetMany(ctx context.Context, cs []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cs))
	for _, c := range cs {
		n, err := v.Get(ctx, c)
		out <- &ipld.NodeOption{Node: n, Err: err}
	}
	close(out)
	return out
}

// link is a link of a node made by hand.
type link struct {
	name  string
	c     cid.Cid
	tsize uint64
}

// node makes a dag-pb node by hand, as wrong as one likes.
func (s *memBlocks) node(d *pb.Data, links ...link) cid.Cid {
	var n merkledag.ProtoNode
	data, err := proto.MarshalOptions{AllowPartial: true}.Marshal(d)
	if err != nil {
		panic(err)
	}
	n.SetData(data)
	ls := make([]*ipld.Link, len(links))
	for i, l := range links {
		ls[i] = &ipld.Link{Name: l.name, Cid: l.c, Size: l.tsize}
	}
	n.SetLinks(ls)
	raw, err := n.Marshal()
	if err != nil {
		panic(err)
	}
	return s.put(cid.DagProtobuf, raw)
}

func fileData(content []byte, size uint64, blockSizes ...uint64) *pb.Data {
	return &pb.Data{Type: pb.Data_File.Enum(), Data: content, Filesize: &size, Blocksizes: blockSizes}
}

// newRand returns a random source; its seed is printed if the test fails and can be set to repeat it.
func newRand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if v := os.Getenv("HOLDFAST_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("HOLDFAST_SEED=%d repeats this", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func randomBytes(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// open returns the file under c.
func open(t testing.TB, r *Reader, c cid.Cid) *File {
	t.Helper()
	n, err := r.Node(context.Background(), c, c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Open(n)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// putUnsorted is node with the links in the order given.
func (s *memBlocks) putUnsorted(d *pb.Data, links ...link) cid.Cid {
	data, err := proto.Marshal(d)
	if err != nil {
		panic(err)
	}
	var raw []byte
	for _, l := range links {
		m := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), l.c.Bytes())
		m = protowire.AppendString(protowire.AppendTag(m, 2, protowire.BytesType), l.name)
		raw = protowire.AppendBytes(protowire.AppendTag(raw, 2, protowire.BytesType), m)
	}
	raw = protowire.AppendBytes(protowire.AppendTag(raw, 1, protowire.BytesType), data)
	return s.put(cid.DagProtobuf, raw)
}

// onlyRoot fails for every block but one.
type onlyRoot struct {
	*memBlocks
	root cid.Cid
}

func (o *onlyRoot) Get(ctx context.Context, w Want) (blocks.Block, error) {
	if w.CID == o.root {
		return o.m[w.CID], nil
	}
	return o.memBlocks.Get(ctx, w)
}

var dirData = &pb.Data{Type: pb.Data_Directory.Enum()}

// plainBlocks is a Blocks that does nothing but answer.
type plainBlocks struct{ m map[cid.Cid]blocks.Block }

func (p plainBlocks) Get(_ context.Context, w Want) (blocks.Block, error)   { return p.m[w.CID], nil }
func (p plainBlocks) Local(_ context.Context, w Want) (blocks.Block, error) { return p.m[w.CID], nil }
func (p plainBlocks) Prefetch(context.Context, []Want)                      {}
