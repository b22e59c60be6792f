package blockcache

import (
	"container/list"
	"fmt"
	"sync"

	"github.com/dgraph-io/ristretto/v2"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// blockOverhead is what a block in memory costs beside its bytes.
const blockOverhead = 256

// memory is the tier in memory: a small window of the newest blocks in front of ristretto, which
// keeps what is used often. Without the window a block that ristretto does not admit would be read
// from the disk again for each of the small reads that follow one another in it.
type memory struct {
	main *ristretto.Cache[string, blocks.Block]
	room int64 // of the window, in bytes

	mu     sync.Mutex // guards the window
	window map[string]*list.Element
	order  *list.List // of blocks.Block, newest first
	used   int64
}

// newMemory makes a tier of the given size in bytes.
func newMemory(bytes int64) (*memory, error) {
	window := bytes / 4
	main, err := ristretto.NewCache(&ristretto.Config[string, blocks.Block]{
		NumCounters:        max(1024, bytes/1024),
		MaxCost:            max(1, bytes-window),
		BufferItems:        64,
		IgnoreInternalCost: true, // it is part of blockOverhead
	})
	if err != nil {
		return nil, fmt.Errorf("make memory tier: %w", err)
	}
	return &memory{main: main, room: window, window: make(map[string]*list.Element), order: list.New()}, nil
}

func cost(b blocks.Block) int64 { return int64(len(b.RawData())) + blockOverhead }

// get returns a block under the CID that is asked for.
func (m *memory) get(c cid.Cid) (blocks.Block, bool) {
	k := key(c)
	m.mu.Lock()
	e := m.window[k]
	var b blocks.Block
	if e != nil {
		m.order.MoveToFront(e)
		b = e.Value.(blocks.Block)
	}
	m.mu.Unlock()
	if e == nil {
		var ok bool
		if b, ok = m.main.Get(k); !ok || key(b.Cid()) != k {
			return nil, false
		}
	}
	if b.Cid().Equals(c) {
		return b, true
	}
	return withCID(b.RawData(), c), true
}

// put keeps a block; its bytes must not change any more.
func (m *memory) put(b blocks.Block) {
	k := key(b.Cid())
	if cost(b) > m.room {
		m.main.Set(k, b, cost(b))
		return
	}
	for _, old := range m.insert(k, b) {
		m.main.Set(key(old.Cid()), old, cost(old))
	}
}

// insert puts a block into the window and returns those that had to leave it.
func (m *memory) insert(k string, b blocks.Block) (out []blocks.Block) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.window[k]; e != nil {
		m.order.MoveToFront(e)
		return nil
	}
	m.window[k] = m.order.PushFront(b)
	m.used += cost(b)
	for m.used > m.room {
		e := m.order.Back()
		old := e.Value.(blocks.Block)
		m.removeLocked(key(old.Cid()), e)
		out = append(out, old)
	}
	return out
}

func (m *memory) removeLocked(k string, e *list.Element) {
	m.order.Remove(e)
	delete(m.window, k)
	m.used -= cost(e.Value.(blocks.Block))
}

// delete forgets a block.
func (m *memory) delete(c cid.Cid) {
	k := key(c)
	m.mu.Lock()
	if e := m.window[k]; e != nil {
		m.removeLocked(k, e)
	}
	m.mu.Unlock()
	m.main.Del(k)
}

// bytes is what the tier holds.
func (m *memory) bytes() int64 {
	m.mu.Lock()
	used := m.used
	m.mu.Unlock()
	return used + m.main.MaxCost() - m.main.RemainingCost()
}

func (m *memory) close() { m.main.Close() }
