package unixfs

import (
	"container/heap"
	"context"
	"sync"
)

const (
	aheadShards = 4       // shards of one subtree that are begun and not listed, for each that may be fetched at once
	aheadBytes  = 4 << 20 // of decoded shards that wait to be listed; at this no more are begun
	hashBits    = 64
)

// frontier is the part of a HAMT that a listing knows of and has not come to: shards that are here and wait, shards
// being fetched, and shards that are only linked to. It begins these in the order of the listing, whatever their
// level. How many depends on how far the reader has come, so that one who wants but a few names has few shards fetched.
// Its methods are for the listing's goroutine.
type frontier struct {
	d     *Dir
	ctx   context.Context // of the fetches
	from  uint64          // the lowest hash to list
	most  int             // shards fetched at once
	loads sync.WaitGroup
	done  chan *shardLoad // has room for all fetches

	root   *shardFrame
	open   frameHeap
	flying int   // shards being fetched
	bytes  int64 // of the shards held, begun and not taken, that are here
	taken  int   // shards the reader has come to
}

// shardFrame is a shard of a listing.
type shardFrame struct {
	parent *shardFrame
	node   *dagNode
	path   uint64       // the bits of the hash that led here, at the high end
	used   uint8        // how many
	depth  uint8        // shards above
	inside bool         // the reader has come to it
	next   int          // the link to list next
	scan   int          // the next sub-shard to begin; the number of links if there is none
	first  uint64       // path of the sub-shard at scan
	begun  []*shardLoad // sub-shards from next on, up to scan
	held   int          // of the shards held, how many are below
}

// shardLoad is a sub-shard that is here or being fetched.
type shardLoad struct {
	parent *shardFrame
	path   uint64
	node   *dagNode
	frame  *shardFrame
	err    error
	here   bool // node and frame, or err, are set
}

func newFrontier(ctx context.Context, d *Dir, from uint64) *frontier {
	most := 2 * d.r.parallel
	return &frontier{d: d, ctx: ctx, from: from, most: most, done: make(chan *shardLoad, most)}
}

// start begins with the root.
func (a *frontier) start(root *dagNode) (err error) {
	if a.root, err = a.enter(root, nil, 0); err == nil {
		a.root.inside = true
	}
	return err
}

// enter makes the frame of a shard, without what lies before from, and opens it if there are shards below. The root has
// no parent.
func (a *frontier) enter(n *dagNode, parent *shardFrame, path uint64) (*shardFrame, error) {
	f := &shardFrame{node: n, parent: parent, path: path}
	if parent != nil {
		f.used, f.depth = parent.used+parent.node.shard.lg2, parent.depth+1
	}
	if f.depth >= maxShardDepth || f.used+n.shard.lg2 > hashBits {
		return nil, corruptf("hamt is deeper than its hash")
	}
	if a.from>>(hashBits-f.used) == path>>(hashBits-f.used) { // both 0 at the root
		first := bitsOf(a.from, f.used, n.shard.lg2)
		for f.next < len(n.links) && n.shard.indexOf(n.link(f.next).name) < first {
			f.next++
		}
	}
	if f.seek(f.next) {
		heap.Push(&a.open, f)
	}
	return f, nil
}

// seek moves scan to the first sub-shard from link i on, if there is one.
func (f *shardFrame) seek(i int) bool {
	for ; i < len(f.node.links); i++ {
		if l := f.node.link(i); len(l.name) == int(f.node.shard.digits) {
			f.scan, f.first = i, f.below(l)
			return true
		}
	}
	f.scan = i
	return false
}

// below returns the path of what link l of f leads to.
func (f *shardFrame) below(l pbLink) uint64 {
	shape := &f.node.shard
	return f.path | uint64(shape.indexOf(l.name))<<(hashBits-f.used-shape.lg2)
}

// hold counts n more shards held below f.
func (f *shardFrame) hold(n int) {
	for ; f != nil; f = f.parent {
		f.held += n
	}
}

// take returns the next sub-shard of f, on which the reader waits, and keeps the fetches ahead going. f must be the
// deepest shard that the reader is in, and the link it has come to a sub-shard.
func (a *frontier) take(f *shardFrame) (*shardFrame, error) {
	a.collect()
	if len(f.begun) == 0 {
		a.begin() // f is first in a.open: what is left of it comes before all else
	}
	load := f.begun[0]
	f.begun[0], f.begun = nil, f.begun[1:]
	for a.fill(); !load.here; a.fill() {
		a.arrive(<-a.done)
		a.collect()
	}
	f.hold(-1)
	a.taken++
	if load.err != nil {
		return nil, load.err
	}
	a.bytes -= load.node.cost()
	load.frame.inside = true
	return load.frame, nil
}

// fill begins what may be fetched now. With two shards ahead for each that the reader has come to, the fetches at once
// double and double again, and little is to be withdrawn when it stops. One fetch is kept free for the shard that it
// comes to next.
func (a *frontier) fill() {
	for len(a.open) > 0 && a.flying < a.most-1 && a.bytes < aheadBytes && a.root.held < 2*a.taken {
		// Held shards bar the way of what lies behind them, not of what lies before: a slow shard, when it is here at
		// last, finds no room taken for those below it.
		f := a.open[0]
		for !f.inside {
			f = f.parent
		}
		if f.held >= aheadShards*a.most {
			return
		}
		a.begin()
	}
}

// begin gets the first shard of the frontier that is only linked to.
func (a *frontier) begin() {
	f := a.open[0]
	link := f.node.link(f.scan)
	load := &shardLoad{parent: f, path: f.first}
	f.begun = append(f.begun, load)
	if f.seek(f.scan + 1) {
		heap.Fix(&a.open, 0)
	} else {
		heap.Pop(&a.open)
	}
	f.hold(1)
	if load.node = get(a.d.r.nodes, link.cid); load.node != nil {
		a.settle(load)
		return
	}
	a.flying++
	a.loads.Go(func() {
		load.node, load.err = a.d.fetchShard(a.ctx, link)
		a.done <- load
	})
}

// collect takes in what has arrived.
func (a *frontier) collect() {
	for {
		select {
		case load := <-a.done:
			a.arrive(load)
		default:
			return
		}
	}
}

func (a *frontier) arrive(load *shardLoad) {
	a.flying--
	a.settle(load)
}

// settle makes a load's frame.
func (a *frontier) settle(load *shardLoad) {
	load.here = true
	if load.err == nil {
		load.err = checkShard(load.node)
	}
	if load.err == nil {
		load.frame, load.err = a.enter(load.node, load.parent, load.path)
	}
	if load.err == nil {
		a.bytes += load.node.cost()
	}
}

// frameHeap orders the frames that have sub-shards to begin. No two are equal: paths are of disjoint parts of the HAMT.
type frameHeap []*shardFrame

func (h frameHeap) Len() int           { return len(h) }
func (h frameHeap) Less(i, j int) bool { return h[i].first < h[j].first }
func (h frameHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *frameHeap) Push(x any)        { *h = append(*h, x.(*shardFrame)) }

func (h *frameHeap) Pop() any {
	last := len(*h) - 1
	f := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return f
}
