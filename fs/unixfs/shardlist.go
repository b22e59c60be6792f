package unixfs

import (
	"context"
	"errors"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
)

// errStopped: whoever iterates wants no more.
var errStopped = errors.New("stopped")

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

// loadShard returns the shard that l points to.
func (d *Dir) loadShard(ctx context.Context, l pbLink) (*dagNode, error) {
	n := get(d.r.nodes, l.cid)
	if n == nil {
		var err error
		if n, err = d.fetchShard(ctx, l); err != nil {
			return nil, err
		}
	}
	return n, checkShard(n)
}

// fetchShard fetches the node that l points to.
func (d *Dir) fetchShard(ctx context.Context, l pbLink) (*dagNode, error) {
	c, err := castCID(l.cid)
	if err != nil {
		return nil, corrupt(err)
	}
	return d.r.load(ctx, Want{CID: c, Dataset: d.root.Dataset}, d.r.get)
}

func checkShard(n *dagNode) error {
	if n.kind != pb.Data_HAMTShard {
		return corruptf("%s node inside a hamt", n.kind)
	}
	return nil
}

// shardLister goes through a HAMT in the order of the names' hashes.
type shardLister struct {
	d     *Dir
	ahead *frontier
	stack []*shardFrame // the shards that the reader is in
	at    Cursor        // behind the last name
	yield func(EntryAt, error) bool
}

// listShards lists the HAMT. A cursor is the upper 63 bits of the last name's hash, plus one: names are in the order of
// their hashes, so that a listing resumes by descending to where it was. (Should two names share 63 bits and a page end
// between them, the second is not listed again: one in 10^8 directories of a million names has such a pair.)
func (d *Dir) listShards(ctx context.Context, root *dagNode, after Cursor, yield func(EntryAt, error) bool) error {
	if after >= 1<<63 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	ahead := newFrontier(ctx, d, uint64(after)<<1)
	defer ahead.loads.Wait()
	defer cancel()
	if after > 0 {
		ahead.taken = d.r.paces.resume(d.root.CID, after)
	}
	if err := ahead.start(root); err != nil {
		return err
	}
	l := &shardLister{d: d, ahead: ahead, stack: []*shardFrame{ahead.root}, at: after, yield: yield}
	err := l.run(ctx)
	if err != nil && l.at > 0 {
		d.r.paces.leave(d.root.CID, l.at, l.ahead.taken)
	}
	return err
}

func (l *shardLister) run(ctx context.Context) error {
	for len(l.stack) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.step(l.stack[len(l.stack)-1]); err != nil {
			return err
		}
	}
	return nil
}

// step lists the next link of the shard on top, or goes into it.
func (l *shardLister) step(f *shardFrame) error {
	if f.next == len(f.node.links) {
		l.stack = l.stack[:len(l.stack)-1]
		return nil
	}
	link, shape := f.node.link(f.next), &f.node.shard
	f.next++
	if digits := int(shape.digits); len(link.name) > digits {
		return l.list(link, digits, f.below(link), f.used+shape.lg2)
	}
	sub, err := l.ahead.take(f)
	if err != nil {
		return err
	}
	l.stack = append(l.stack, sub)
	return nil
}

// list yields one entry, if its name belongs where it is.
func (l *shardLister) list(link pbLink, digits int, path uint64, used uint8) error {
	name := link.name[digits:]
	h := nameHash(name)
	if !validName(name) || h>>(hashBits-used) != path>>(hashBits-used) {
		l.d.skip(name)
		return nil
	}
	if h < l.ahead.from {
		return nil
	}
	e, err := entryOf(link, digits)
	if err != nil {
		return err
	}
	l.at = Cursor(h>>1 + 1)
	if !l.yield(EntryAt{Entry: e, Next: l.at}, nil) {
		return errStopped
	}
	return nil
}
