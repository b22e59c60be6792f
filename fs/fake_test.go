package fs

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastfs/holdfast/fs/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// fake is a Blocks in memory: some blocks are local, others come after a delay, or never. It is an ipld.DAGService
// as well, so that boxo can build into it.
type fake struct {
	// mu guards what follows.
	mu      sync.Mutex
	all     map[string]blocks.Block // by multihash
	remote  map[string]bool         // not local yet
	lost    map[string]bool         // never comes
	bodies  map[cid.Cid]string      // files of complete bodies
	delay   time.Duration
	fetched map[string]int // how often a block came from afar
	ahead   map[string]int // how often it was asked for ahead
	flights map[string]chan struct{}
	waiting int // Gets that wait
	panics  atomic.Bool
}

func newFake() *fake {
	return &fake{all: map[string]blocks.Block{}, remote: map[string]bool{}, lost: map[string]bool{},
		bodies: map[cid.Cid]string{}, fetched: map[string]int{}, ahead: map[string]int{}, flights: map[string]chan struct{}{}}
}

func key(c cid.Cid) string { return string(c.Hash()) }

func (f *fake) Add(_ context.Context, n ipld.Node) error {
	f.put(n)
	return nil
}

func (f *fake) AddMany(_ context.Context, ns []ipld.Node) error {
	for _, n := range ns {
		f.put(n)
	}
	return nil
}

func (f *fake) put(b blocks.Block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all[key(b.Cid())] = b
}

// away makes every block remote.
func (f *fake) away() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.all {
		f.remote[k] = true
	}
	clear(f.fetched)
	clear(f.ahead)
}

// near makes blocks local.
func (f *fake) near(cs ...cid.Cid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		delete(f.remote, key(c))
	}
}

// lose makes blocks that never come.
func (f *fake) lose(cs ...cid.Cid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		f.remote[key(c)], f.lost[key(c)] = true, true
	}
}

// find brings lost blocks back.
func (f *fake) find() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.lost)
}

func (f *fake) Local(_ context.Context, w unixfs.Want) (blocks.Block, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.all[key(w.CID)]
	if !ok || f.remote[key(w.CID)] {
		return nil, fmt.Errorf("get %s: %w", w.CID, unixfs.ErrNotLocal)
	}
	return b, nil
}

func (f *fake) Get(ctx context.Context, w unixfs.Want) (blocks.Block, error) {
	if f.panics.Load() {
		panic("a fault in the blocks")
	}
	if b, err := f.Local(ctx, w); err == nil {
		return b, nil
	}
	for {
		done, lost := f.fly(w.CID)
		f.mu.Lock()
		f.waiting++
		f.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		f.mu.Lock()
		f.waiting--
		f.mu.Unlock()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: nobody has %s: %w", ErrUnavailable, w.CID, ctx.Err())
		}
		if lost {
			continue
		}
		return f.Local(ctx, w)
	}
}

// fly begins the fetch of a block, or joins one. A lost block's never lands.
func (f *fake) fly(c cid.Cid) (done <-chan struct{}, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := key(c)
	if _, ok := f.all[k]; !ok || f.lost[k] {
		return nil, true
	}
	if !f.remote[k] {
		return closedChan, false
	}
	if ch := f.flights[k]; ch != nil {
		return ch, false
	}
	ch := make(chan struct{})
	f.flights[k] = ch
	f.fetched[k]++
	land := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.flights, k)
		delete(f.remote, k)
		close(ch)
	}
	if f.delay == 0 {
		go land()
	} else {
		time.AfterFunc(f.delay, land)
	}
	return ch, false
}

func (f *fake) Prefetch(ctx context.Context, ws []unixfs.Want) {
	for _, w := range ws {
		f.mu.Lock()
		f.ahead[key(w.CID)]++
		remote := f.remote[key(w.CID)]
		f.mu.Unlock()
		if remote && ctx.Err() == nil {
			f.fly(w.CID)
		}
	}
}

func (f *fake) Body(file cid.Cid) (*os.File, bool) {
	if f.panics.Load() {
		panic("a fault in the bodies")
	}
	f.mu.Lock()
	path, ok := f.bodies[file]
	f.mu.Unlock()
	if !ok {
		return nil, false
	}
	body, err := os.Open(path)
	return body, err == nil
}

func (f *fake) waiters() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting
}

func (f *fake) aheadCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ahead)
}

// mostFetched is how often the block that came most often did.
func (f *fake) mostFetched() (most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.fetched {
		most = max(most, n)
	}
	return most
}

// getter makes the fake an ipld.DAGService.
type dagService struct{ *fake }

func (d dagService) Get(_ context.Context, c cid.Cid) (ipld.Node, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.all[key(c)]
	if !ok {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	return b.(ipld.Node), nil
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

func (d dagService) Remove(context.Context, cid.Cid) error       { return nil }
func (d dagService) RemoveMany(context.Context, []cid.Cid) error { return nil }
