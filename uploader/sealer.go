package uploader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/semaphore"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

var (
	errUnsealed = errors.New("sealed bytes are not in memory")
	errShard    = errors.New("shard is not what its CID says")
)

// sealer reads and seals chunks, a few at once, and holds what is sealed until it is dropped. How much
// that may be is decided by who calls it.
type sealer struct {
	secret  []byte
	chunks  Chunks
	journal journal
	slots   chan struct{}
	memory  *semaphore.Weighted // bytes of stripes that are being rebuilt
	most    time.Duration       // that reading a chunk may take
	buffers sync.Pool           // of *[seal.MaxChunkBytes]byte: making and clearing one costs as much as sealing it

	mu   sync.Mutex // guards held, and who uses what is in it
	held map[seal.LinkID]*sealed
}

// sealed is a sealed chunk. It does not change once its bytes are there.
type sealed struct {
	key      seal.Key
	segments seal.Map
	bytes    []byte // nil: not yet
	users    int    // who got it and is not done, and one while it is held; guarded by the sealer's mu
}

// segment returns the bytes of segment i.
func (s *sealed) segment(i int) []byte {
	from := i * seal.SegmentBytes
	return s.bytes[from : from+seal.SegmentLen(int64(len(s.bytes)), i)]
}

func newSealer(cfg Config, j journal) *sealer {
	return &sealer{
		secret: cfg.Secret, chunks: cfg.Chunks, journal: j,
		slots: make(chan struct{}, cfg.Limits.Sealers), memory: semaphore.NewWeighted(rebuildBytes), most: cfg.Limits.TransferFor, held: make(map[seal.LinkID]*sealed),
	}
}

// expect makes room for a link's sealed bytes, before seal is called.
func (s *sealer) expect(id seal.LinkID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[id] = &sealed{users: 1}
}

// drop lets go of a link's sealed bytes, also of those that are being made.
func (s *sealer) drop(id seal.LinkID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.held[id]; k != nil {
		delete(s.held, id)
		s.leave(k)
	}
}

// get returns a link's sealed bytes, or nil. They stay until done is called.
func (s *sealer) get(id seal.LinkID) *sealed {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.held[id]; k != nil && k.bytes != nil {
		k.users++
		return k
	}
	return nil
}

// done ends the use of what get returned.
func (s *sealer) done(k *sealed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(k)
}

// leave gives the bytes back after their last user. mu is held.
func (s *sealer) leave(k *sealed) {
	if k.users--; k.users == 0 {
		s.release(k.bytes)
		k.bytes = nil
	}
}

// buffer returns n bytes to be filled.
func (s *sealer) buffer(n int64) []byte {
	if n <= seal.MaxChunkBytes/2 {
		return make([]byte, n)
	}
	b, _ := s.buffers.Get().(*[seal.MaxChunkBytes]byte)
	if b == nil {
		b = new([seal.MaxChunkBytes]byte)
	}
	return b[:n]
}

// release takes bytes back that nobody uses any more.
func (s *sealer) release(b []byte) {
	if cap(b) == seal.MaxChunkBytes {
		s.buffers.Put((*[seal.MaxChunkBytes]byte)(b[:seal.MaxChunkBytes]))
	}
}

// seal reads a link's chunk, of which lost shards are rebuilt from groups, seals it and returns its root. All
// errors are local.
func (s *sealer) seal(ctx context.Context, r *record, groups []groupRecord) ([32]byte, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return [32]byte{}, errLocal{context.Cause(ctx)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.most, errDeadline)
	defer cancel()
	key, b := seal.KeyFor(s.secret, r.Provider, r.Chunk), s.buffer(r.Bytes)
	err := s.read(ctx, r, groups, b)
	var segments seal.Map
	if err == nil {
		segments, err = key.Seal(b, b)
	}
	if err != nil {
		s.release(b)
		return [32]byte{}, errLocal{fmt.Errorf("seal chunk %s: %w", r.Chunk, err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.held[r.ID]; k != nil && k.bytes == nil {
		k.key, k.segments, k.bytes = key, segments, b
	} else {
		s.release(b)
	}
	return segments.Root(), nil
}

// read fills b with a chunk's bytes, each shard checked against its CID, so that nobody else is blamed for it.
func (s *sealer) read(ctx context.Context, r *record, groups []groupRecord, b []byte) error {
	shards, err := s.shards(r.Chunk)
	if err != nil {
		return err
	}
	if n := shards.Bytes(); n != int64(len(b)) {
		return fmt.Errorf("chunk %s has %d bytes, not %d", r.Chunk, n, len(b))
	}
	return (&rebuilder{chunks: s.chunks, shards: s.shards, groups: groups, memory: s.memory}).read(ctx, r.Chunk, shards, b)
}

// shards lists a chunk's shards.
func (s *sealer) shards(chunk cid.Cid) (erasure.Chunk, error) {
	descriptor, err := s.journal.descriptor(chunk)
	if err != nil {
		return nil, err
	}
	return erasure.DecodeChunk(descriptor)
}

func check(shard erasure.Shard, b []byte) error {
	var is cid.Cid
	if len(b) == shard.Bytes {
		var err error
		if is, err = shard.CID.Prefix().Sum(b); err != nil {
			return fmt.Errorf("check shard %s: %w", shard.CID, err)
		}
	}
	if !is.Equals(shard.CID) {
		return fmt.Errorf("shard %s of %d bytes: %w", shard.CID, len(b), errShard)
	}
	return nil
}
