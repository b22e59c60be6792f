package uploader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// network is all providers behind pipes, the writer's bytes, and what searches find.
type network struct {
	testing.TB
	secret  []byte
	writer  peer.ID
	serving sync.WaitGroup

	mu     sync.Mutex // guards the rest
	peers  map[peer.ID]*served
	order  []*served
	blocks map[cid.Cid][]byte
	reads  map[cid.Cid]int
	most   int // streams at once to one provider
}

// served is a fake provider that speaks messages, and what it was sent.
type served struct {
	*fake
	net      *network
	maps     map[seal.LinkID]seal.Map
	segments map[seal.LinkID]map[int][]byte
	keys     map[cid.Cid]seal.Key
	gone     bool
	stallAt  string           // a kind of request that is never answered
	excuse   seal.RefusalCode // what audits and renewals are refused with, unless zero
	streams  int
}

func newNetwork(t testing.TB, providers int) *network {
	_, self := keyOf(t, "writer")
	n := &network{
		TB: t, secret: bytes.Repeat([]byte{7}, 32), writer: self,
		peers: make(map[peer.ID]*served), blocks: make(map[cid.Cid][]byte), reads: make(map[cid.Cid]int),
	}
	for range providers {
		n.add()
	}
	t.Cleanup(n.serving.Wait)
	return n
}

func (n *network) add() *served {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &served{
		fake: newFake(n, fmt.Sprintf("provider-%d", len(n.order)), n.writer, time.Now), net: n,
		maps: make(map[seal.LinkID]seal.Map), segments: make(map[seal.LinkID]map[int][]byte), keys: make(map[cid.Cid]seal.Key),
	}
	n.peers[s.id] = s
	n.order = append(n.order, s)
	return s
}

// Find implements Candidates.
func (n *network) Find(context.Context) (found []Candidate, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.order {
		found = append(found, Candidate{ID: s.id})
	}
	return found, nil
}

// ReadShard implements Chunks.
func (n *network) ReadShard(_ context.Context, c cid.Cid) ([]byte, bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reads[c]++
	if b := n.blocks[c]; b != nil {
		return bytes.Clone(b), false, nil
	}
	return nil, false, errors.New("not here, and not to be rebuilt")
}

// pipe is the writer's end of a stream.
type pipe struct {
	net.Conn
	done func() // once
}

// Close implements Stream.
func (p pipe) Close() error {
	p.done()
	return p.Conn.Close()
}

// Reset implements Stream.
func (p pipe) Reset() error { return p.Close() }

// Open implements Providers.
func (n *network) Open(ctx context.Context, id peer.ID) (Stream, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.peers[id]
	if s == nil || s.gone {
		return nil, errors.New("no route to provider")
	}
	ours, theirs := net.Pipe()
	s.streams++
	n.most = max(n.most, s.streams)
	n.serving.Go(func() {
		s.serve(theirs)
		_ = theirs.Close()
	})
	return pipe{ours, sync.OnceFunc(func() { n.with(func() { s.streams-- }) })}, nil
}

// with runs fn while no provider answers.
func (n *network) with(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
}

// count returns how many requests of a kind all providers had.
func (n *network) count(kind string) (sum int) {
	n.with(func() {
		for _, s := range n.order {
			sum += s.calls[kind]
		}
	})
	return sum
}

func kindOf(r seal.Request) string {
	switch r.(type) {
	case *seal.Quote:
		return "quote"
	case *seal.StoreRequest:
		return "store"
	case *seal.Segments:
		return "map"
	case *seal.Data:
		return "data"
	case *seal.SignatureRequest:
		return "sign"
	case *seal.Audit:
		return "audit"
	case *seal.OpenChannel:
		return "channel"
	case *seal.Voucher:
		return "voucher"
	case *seal.Renew:
		return "renew"
	case *seal.Release:
		return "release"
	}
	return fmt.Sprintf("%T", r)
}

// serve answers one request.
func (s *served) serve(c net.Conn) {
	in := seal.NewReader(c)
	r, err := in.ReadRequest(nil)
	if err != nil {
		return
	}
	var got map[int][]byte
	var stall bool
	s.net.with(func() { stall = s.stallAt == kindOf(r) })
	if stall {
		_, _ = io.Copy(io.Discard, c) // until the writer gives up
		return
	}
	if d, ok := r.(*seal.Data); ok {
		if got, ok = s.receive(in, d.Link); !ok {
			return
		}
	}
	var a seal.Answer
	s.net.with(func() { a = s.respond(r, got) })
	_ = seal.WriteMessage(c, a)
}

// receive reads segments. It gives up after the first where it fills up.
func (s *served) receive(in *seal.Reader, id seal.LinkID) (map[int][]byte, bool) {
	got := make(map[int][]byte)
	var buf seal.SegmentBuffer
	for {
		i, b, err := in.ReadSegment(&buf)
		if errors.Is(err, io.EOF) {
			return got, true
		}
		if err != nil {
			return nil, false
		}
		var full bool
		s.net.with(func() {
			if err := s.maps[id].CheckSegment(i, b); err != nil {
				s.t.Errorf("segment of link %s: %v", id, err)
			}
			full = s.fillsUp
		})
		if got[i] = bytes.Clone(b); full {
			return got, true
		}
	}
}

func (s *served) respond(r seal.Request, got map[int][]byte) seal.Answer {
	switch r := r.(type) {
	case *seal.Segments:
		if r.Map.Root() != r.Root {
			s.t.Errorf("map of link %s does not lead to its root", r.Link)
		}
		if l := s.links[r.Link]; l != nil {
			s.maps[r.Link], s.keys[l.chunk] = r.Map, r.Key
		}
	case *seal.Data:
		if s.segments[r.Link] == nil {
			s.segments[r.Link] = make(map[int][]byte)
		}
		var set seal.Bitmap
		for i, b := range got {
			if s.segments[r.Link][i] != nil {
				s.calls["again"]++
			}
			s.segments[r.Link][i] = b
			set.Set(i)
		}
		return s.data(r.Link, set)
	case *seal.Audit:
		return s.prove(r)
	case *seal.Renew:
		if s.excuse != 0 {
			return &seal.SignatureAnswer{Refusal: seal.Refuse(s.excuse, "not now")}
		}
	}
	return s.answer(r)
}

func (s *served) prove(r *seal.Audit) *seal.AuditAnswer {
	if s.excuse != 0 {
		return &seal.AuditAnswer{Refusal: seal.Refuse(s.excuse, "not now")}
	}
	err := s.audit(r.Chunk)
	var refusal *seal.Refusal
	if errors.As(err, &refusal) {
		return &seal.AuditAnswer{Refusal: refusal}
	}
	a := &seal.AuditAnswer{Nonce: r.Nonce}
	for id, l := range s.links { // one is live; it may be the renewal of the one that the segments came for
		if !l.chunk.Equals(r.Chunk) || len(s.segments[id]) < len(s.maps[id].Segments) || len(s.maps[id].Segments) == 0 {
			continue
		}
		for _, i := range r.Segments {
			b := bytes.Clone(s.segments[id][int(i)])
			if err != nil {
				b[0]++
			}
			a.Segments = append(a.Segments, seal.Proven{Bytes: b, Proof: s.maps[id].Prove(int(i))})
		}
		return a
	}
	return a
}

// file makes a file of one group with random shards, which the writer has.
func (n *network) file(name string, columns int, policy Policy) File {
	n.mu.Lock()
	defer n.mu.Unlock()
	random := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", name))))
	g := Group{Parity: columns / 3}
	for range columns {
		var chunk erasure.Chunk
		for range 2 {
			b := make([]byte, 100<<10)
			random.Read(b)
			c := cidOf(string(b))
			n.blocks[c] = b
			chunk = append(chunk, erasure.Shard{CID: c, Bytes: len(b)})
		}
		id, descriptor, err := chunk.Encode()
		if err != nil {
			n.Fatal(err)
		}
		g.Columns = append(g.Columns, Column{Chunk: id, Descriptor: descriptor})
	}
	return File{ID: FileID(cidOf(name).Hash()[2:18]), Name: name, Groups: []Group{g}, Policy: policy}
}

// config is complete but for a database: the journal is given apart.
func (n *network) config() Config {
	c := Config{DB: new(badger.DB), Self: n.writer, Secret: n.secret, Chunks: n, Providers: n, Candidates: n, VanishAfter: time.Hour}
	if err := c.defaults(); err != nil {
		n.Fatal(err)
	}
	return c
}

// start runs an uploader until stop is called.
func start(t testing.TB, cfg Config, j journal) (u *Uploader, stop func()) {
	t.Helper()
	u, err := open(cfg, j)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	return u, stop
}

// checkStored checks that each chunk of a file can be unsealed at so many providers that signed for it.
func (n *network) checkStored(f File, copies int) {
	n.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	used := make(map[peer.ID]int)
	for _, column := range f.Groups[0].Columns {
		chunk, err := erasure.DecodeChunk(column.Descriptor)
		if err != nil {
			n.Fatal(err)
		}
		var want []byte
		for _, s := range chunk {
			want = append(want, n.blocks[s.CID]...)
		}
		found := 0
		for id, s := range n.peers {
			if !s.gone && s.kept()[column.Chunk] == 1 && bytes.Equal(s.unsealed(column.Chunk), want) {
				found++
				used[id]++
			}
		}
		if found < copies {
			n.Errorf("chunk %s is with %d providers, want %d", column.Chunk, found, copies)
		}
	}
	for id, k := range used {
		if k > 1 {
			n.Errorf("provider %s has %d columns of a group", id, k)
		}
	}
}

func (s *served) unsealed(c cid.Cid) (b []byte) {
	for id, l := range s.links {
		if l.chunk.Equals(c) && !l.over && s.segments[id] != nil {
			for i := range seal.SegmentCount(l.bytes) {
				b = append(b, s.segments[id][i]...)
			}
			s.keys[c].XORAt(b, b, 0)
			return b
		}
	}
	return nil
}
