package unixfs

import (
	"context"
	"errors"
	"sync"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
)

// errStopped: whoever iterates wants no more.
var errStopped = errors.New("stopped")

const (
	minAhead = 4 // shards fetched ahead below one shard, before its children prove to be leaves
	hashBits = 64
)

// lookupShard descends the HAMT below root along name's hash.
func (d *Dir) lookupShard(ctx context.Context, root *dagNode, name string) (Entry, error) {
	h, used, n := nameHash([]byte(name)), uint8(0), root
	for depth := 0; depth < maxShardDepth && used+n.shard.lg2 <= hashBits; depth++ {
		i, ok := n.shard.find(bitsOf(h, used, n.shard.lg2))
		if !ok {
			return Entry{}, ErrNotFound
		}
		l, digits := n.link(i), int(n.shard.digits)
		if len(l.name) > digits {
			if string(l.name[digits:]) != name {
				return Entry{}, ErrNotFound
			}
			return entryOf(l, digits)
		}
		used += n.shard.lg2
		var err error
		if n, err = d.loadShard(ctx, l); err != nil {
			return Entry{}, err
		}
	}
	return Entry{}, corruptf("hamt is deeper than its hash")
}

// loadShard fetches the shard that l points to.
func (d *Dir) loadShard(ctx context.Context, l pbLink) (*dagNode, error) {
	n := get(d.r.nodes, l.cid)
	if n == nil {
		c, err := castCID(l.cid)
		if err != nil {
			return nil, corrupt(err)
		}
		if n, err = d.r.load(ctx, Want{CID: c, Dataset: d.root.Dataset}, d.r.get); err != nil {
			return nil, err
		}
	}
	if n.kind != pb.Data_HAMTShard {
		return nil, corruptf("%s node inside a hamt", n.kind)
	}
	return n, nil
}

// shardLister goes through a HAMT in the order of the names' hashes. One goroutine drives it; others fetch ahead.
type shardLister struct {
	d     *Dir
	ctx   context.Context // of the loads ahead
	loads sync.WaitGroup
	ahead int                    // loads started and not taken
	width [maxShardDepth + 1]int // how far to look ahead, by level
	from  uint64                 // the lowest hash to list
	yield func(EntryAt, error) bool
	stack []shardFrame
}

// shardFrame is a shard on the lister's path.
type shardFrame struct {
	node   *dagNode
	path   uint64      // the bits of the hash that led here, at the high end
	used   uint8       // how many
	next   int         // the link to list next
	scan   int         // the link to look at next for loading ahead
	queued []shardLoad // loads ahead, by link
}

// shardLoad is a sub-shard being fetched.
type shardLoad struct {
	link int
	done chan struct{} // closed when node and err are there
	res  *shardResult
}

type shardResult struct {
	node *dagNode
	err  error
}

// listShards lists the HAMT. A cursor is the upper 63 bits of the last name's hash, plus one: names are in the order of
// their hashes, so that a listing resumes by descending to where it was. (Should two names share 63 bits and a page end
// between them, the second is not listed again: one in 10^8 directories of a million names has such a pair.)
func (d *Dir) listShards(ctx context.Context, root *dagNode, after Cursor, yield func(EntryAt, error) bool) error {
	if after >= 1<<63 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &shardLister{d: d, ctx: ctx, from: uint64(after) << 1, yield: yield}
	defer l.loads.Wait()
	defer cancel()
	if err := l.enter(root, 0, 0); err != nil {
		return err
	}
	for len(l.stack) > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := l.step(&l.stack[len(l.stack)-1]); err != nil {
			return err
		}
	}
	return nil
}

// enter puts a shard on the path and skips what lies before from.
func (l *shardLister) enter(n *dagNode, path uint64, used uint8) error {
	if len(l.stack) >= maxShardDepth || used+n.shard.lg2 > hashBits {
		return corruptf("hamt is deeper than its hash")
	}
	f := shardFrame{node: n, path: path, used: used}
	if used == 0 || l.from>>(hashBits-used) == path>>(hashBits-used) {
		first := bitsOf(l.from, used, n.shard.lg2)
		for f.next < len(n.links) && n.shard.indexOf(n.link(f.next).name) < first {
			f.next++
		}
	}
	f.scan = f.next
	l.stack = append(l.stack, f)
	return nil
}

// step lists the next link of the shard on top, or goes into it.
func (l *shardLister) step(f *shardFrame) error {
	if f.next == len(f.node.links) {
		l.stack = l.stack[:len(l.stack)-1]
		return nil
	}
	i := f.next
	f.next++
	link, shape := f.node.link(i), &f.node.shard
	path := f.path | uint64(shape.indexOf(link.name))<<(hashBits-f.used-shape.lg2)
	if digits := int(shape.digits); len(link.name) > digits {
		return l.list(link, digits, path, f.used+shape.lg2)
	}
	n, err := l.take(f, i)
	if err != nil {
		return err
	}
	return l.enter(n, path, f.used+shape.lg2)
}

// list yields one entry, if its name belongs where it is.
func (l *shardLister) list(link pbLink, digits int, path uint64, used uint8) error {
	name := link.name[digits:]
	h := nameHash(name)
	if !validName(name) || h>>(hashBits-used) != path>>(hashBits-used) {
		l.d.skip(name)
		return nil
	}
	if h < l.from {
		return nil
	}
	e, err := entryOf(link, digits)
	if err != nil {
		return err
	}
	if !l.yield(EntryAt{Entry: e, Next: Cursor(h>>1 + 1)}, nil) {
		return errStopped
	}
	return nil
}

// take returns the sub-shard at link i of f and keeps the loads ahead going.
func (l *shardLister) take(f *shardFrame, i int) (*dagNode, error) {
	level := len(l.stack) - 1
	var n *dagNode
	var err error
	if len(f.queued) > 0 && f.queued[0].link == i {
		load := f.queued[0]
		f.queued = f.queued[1:]
		l.lookAhead(f, level)
		<-load.done
		l.ahead--
		n, err = load.res.node, load.res.err
	} else {
		f.scan = max(f.scan, i+1)
		l.lookAhead(f, level)
		n, err = l.d.loadShard(l.ctx, f.node.link(i))
	}
	if err == nil && !n.hasSubShards() {
		l.width[level] = min(max(l.width[level], 1)*2, l.d.r.parallel)
	}
	return n, err
}

// lookAhead starts loads of the sub-shards that come next below f.
func (l *shardLister) lookAhead(f *shardFrame, level int) {
	width := min(max(l.width[level], 1), l.d.r.parallel)
	if l.width[level] == 0 {
		l.width[level] = min(minAhead, l.d.r.parallel) // a reader that comes back means to go on
	}
	for len(f.queued) < width && l.ahead < 2*l.d.r.parallel && f.scan < len(f.node.links) {
		link := f.node.link(f.scan)
		if len(link.name) == int(f.node.shard.digits) && get(l.d.r.nodes, link.cid) == nil {
			load := shardLoad{link: f.scan, done: make(chan struct{}), res: new(shardResult)}
			f.queued = append(f.queued, load)
			l.ahead++
			l.loads.Go(func() {
				defer close(load.done)
				load.res.node, load.res.err = l.d.loadShard(l.ctx, link)
			})
		}
		f.scan++
	}
}

// hasSubShards reports whether a shard has shards below it.
func (n *dagNode) hasSubShards() bool {
	for i := range n.links {
		if len(n.link(i).name) == int(n.shard.digits) {
			return true
		}
	}
	return false
}
