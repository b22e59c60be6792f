package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

// fakeStore keeps blocks by marks, and drops those that no mark keeps. What is placed can be fetched.
type fakeStore struct {
	mu      sync.Mutex
	blocks  map[cid.Cid][]byte
	marks   map[Mark]map[cid.Cid]bool
	kept    map[cid.Cid]int
	network map[cid.Cid][]byte // with providers
	puts    int
	bytes   int64
	putting func() // nil, or called before blocks are put

	capacity int64            // bytes that it has room for; 0: any
	held     int64            // of blocks that take room
	lent     map[cid.Cid]bool // that lie in staged files, or were only fetched: they take none
	refusals int              // blocks that had no room
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		blocks: map[cid.Cid][]byte{}, marks: map[Mark]map[cid.Cid]bool{}, kept: map[cid.Cid]int{},
		network: map[cid.Cid][]byte{}, lent: map[cid.Cid]bool{},
	}
}

func (s *fakeStore) keepLocked(m Mark, c cid.Cid) {
	if s.marks[m] == nil {
		s.marks[m] = map[cid.Cid]bool{}
	}
	if !s.marks[m][c] {
		s.marks[m][c] = true
		s.kept[c]++
	}
}

func (s *fakeStore) Put(_ context.Context, m Mark, blks []blocks.Block) error {
	if s.putting != nil {
		s.putting()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blks {
		s.puts++
		s.bytes += int64(len(b.RawData()))
		if n := int64(len(b.RawData())); s.blocks[b.Cid()] == nil {
			if s.capacity > 0 && s.held+n > s.capacity {
				s.refusals++
				return fmt.Errorf("put %d bytes: %w", n, ErrFull)
			}
			s.held += n
		}
		s.blocks[b.Cid()] = b.RawData()
		s.keepLocked(m, b.Cid())
	}
	return nil
}

// fakeBody is readable when it is committed, and leaves nothing otherwise.
type fakeBody struct {
	s *fakeStore
	m Mark

	mu     sync.Mutex
	leaves []blocks.Block
}

func (s *fakeStore) Body(_ context.Context, m Mark, _ FileID, _ uint64) (dag.Body, error) {
	return &fakeBody{s: s, m: m}, nil
}

func (b *fakeBody) Put(_ context.Context, _ uint64, blks []blocks.Block) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, blk := range blks {
		kept, err := blocks.NewBlockWithCid(bytes.Clone(blk.RawData()), blk.Cid())
		if err != nil {
			return err
		}
		b.leaves = append(b.leaves, kept)
	}
	return nil
}

func (b *fakeBody) Commit(context.Context, cid.Cid) error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for _, blk := range b.leaves {
		b.s.puts++
		b.s.bytes += int64(len(blk.RawData()))
		b.s.lendLocked(blk.Cid(), blk.RawData())
		b.s.keepLocked(b.m, blk.Cid())
	}
	return nil
}

func (b *fakeBody) Abort() {}

// lendLocked has a block that takes no room.
func (s *fakeStore) lendLocked(c cid.Cid, data []byte) {
	if s.blocks[c] == nil {
		s.blocks[c], s.lent[c] = data, true
	}
}

func (s *fakeStore) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.blocks[c]; ok {
		return b, nil
	}
	if b, ok := s.network[c]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("block %s: not kept and not placed", c)
}

func (s *fakeStore) Keep(_ context.Context, m Mark, cids []cid.Cid) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range cids {
		if s.blocks[c] == nil {
			b, ok := s.network[c]
			if !ok {
				return fmt.Errorf("keep %s: it is not here", c)
			}
			s.lendLocked(c, b)
		}
		s.keepLocked(m, c)
	}
	return nil
}

func (s *fakeStore) Release(_ context.Context, m Mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.marks[m] {
		if s.kept[c]--; s.kept[c] == 0 {
			if !s.lent[c] {
				s.held -= int64(len(s.blocks[c]))
			}
			delete(s.kept, c)
			delete(s.blocks, c)
			delete(s.lent, c)
		}
	}
	delete(s.marks, m)
	return nil
}

// fakeSink is an uploader with durable memory.
type fakeSink struct {
	t        testing.TB
	store    *fakeStore
	mu       sync.Mutex
	groups   map[GroupID]Group
	placed   map[GroupID]bool
	lost     map[GroupID]bool // that nobody uploads
	restaged []GroupID
	left     bool // something of them was not found
	parts    map[cid.Cid]bool
	manifest Manifest
	final    Manifest // placed last
	told     int
}

func newFakeSink(t testing.TB, s *fakeStore) *fakeSink {
	return &fakeSink{t: t, store: s, groups: map[GroupID]Group{}, placed: map[GroupID]bool{}, lost: map[GroupID]bool{}, parts: map[cid.Cid]bool{}}
}

func (s *fakeSink) Group(_ context.Context, g Group) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told++
	if old, ok := s.groups[g.ID]; ok && fmt.Sprint(old) != fmt.Sprint(g) {
		return errors.New("a group has changed")
	}
	for _, c := range g.Columns {
		id, descriptor, err := c.Shards.Encode()
		if err != nil || id != c.ID || !bytes.Equal(descriptor, c.Descriptor) {
			return fmt.Errorf("column of group %d: %v", g.ID, err)
		}
	}
	s.groups[g.ID] = g
	return nil
}

func (s *fakeSink) Released(_ context.Context, id GroupID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.groups, id)
	delete(s.placed, id)
	return nil
}

func (s *fakeSink) Restaged(_ context.Context, id GroupID, all bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restaged = append(s.restaged, id)
	s.left = s.left || !all
	return nil
}

func (s *fakeSink) Part(_ context.Context, _ ManifestID, p erasure.Part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[p.CID] = true
	return nil
}

func (s *fakeSink) Manifest(_ context.Context, m Manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.ID < s.manifest.ID {
		return errors.New("an older manifest")
	}
	s.manifest = m
	return nil
}

func (s *fakeSink) PartsReleased(_ context.Context, parts []cid.Cid) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range parts {
		delete(s.parts, c)
	}
	return nil
}

// stored is the bytes of all groups.
func (s *fakeSink) stored() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		for _, c := range g.Columns {
			n += c.Shards.Bytes()
		}
	}
	return n
}

// upload reads the shards of groups that are not placed, as an uploader does.
func (s *fakeSink) upload() (ids []GroupID) {
	s.t.Helper()
	return s.uploadSome(math.MaxInt)
}

// uploadSome is upload of at most most groups.
func (s *fakeSink) uploadSome(most int) (ids []GroupID) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, g := range s.groups {
		if s.placed[id] || s.lost[id] || len(ids) == most {
			continue
		}
		for _, c := range g.Columns {
			for _, shard := range c.Shards {
				b, err := s.store.Get(context.Background(), shard.CID)
				must(s.t, err)
				if len(b) != shard.Bytes {
					s.t.Fatalf("shard %s has %d bytes, not %d", shard.CID, len(b), shard.Bytes)
				}
			}
		}
		s.placed[id] = true
		ids = append(ids, id)
	}
	slices.Sort(ids)
	network := map[cid.Cid][]byte{}
	for id, g := range s.groups {
		for _, c := range g.Columns {
			for _, shard := range c.Shards {
				if !s.placed[id] {
					continue
				}
				b, err := s.store.Get(context.Background(), shard.CID)
				must(s.t, err)
				network[shard.CID] = b
			}
		}
	}
	s.store.mu.Lock()
	s.store.network = network
	s.store.mu.Unlock()
	return ids
}
