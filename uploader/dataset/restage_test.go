package dataset

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

// restageBox has a tree with blocks of all kinds, all of it placed and synced.
func restageBox(t *testing.T) *box {
	db := openDB(t, "")
	t.Cleanup(func() { must(t, db.Close()) })
	b := newBox(t, db)
	b.tree.mkdir("d")
	b.tree.write("small", b.tree.randomBytes(1000))
	b.tree.write("d/middle", b.tree.randomBytes(3<<20))
	b.tree.write("large", b.tree.randomBytes(9<<20))
	b.tree.symlink("d/l", "../large")
	b.tree.mkdir("many")
	for i := range 1500 { // beyond what one block holds
		b.tree.symlink(fmt.Sprintf("many/%s-%d", strings.Repeat("n", 200), i), fmt.Sprint(i))
	}
	b.check(b.sync())
	return b
}

// loseAll has no provider keep anything, and the store neither.
func (b *box) loseAll() (ids []GroupID) {
	b.t.Helper()
	for id := range b.sink.groups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	b.lose(ids...)
	b.store.mu.Lock()
	b.store.network = map[cid.Cid][]byte{}
	b.store.mu.Unlock()
	return ids
}

// absent counts the blocks of groups that are not in the store.
func (b *box) absent(ids []GroupID) (n int) {
	for _, id := range ids {
		g, err := b.d.group(id)
		must(b.t, err)
		for _, s := range g.Stripes {
			for _, shard := range s.Data {
				if _, err := b.store.Get(context.Background(), shard.CID); err != nil {
					n++
				}
			}
		}
	}
	return n
}

// TestRestaged: what nobody has any more is read from the staging tree again, all of it, and kept until it is placed.
func TestRestaged(t *testing.T) {
	b := restageBox(t)
	ctx := context.Background()
	root := b.state().Root
	ids := b.loseAll()
	must(t, b.d.Restage(ctx, ids...))
	b.open() // it is not forgotten
	b.settle()
	for c := range b.reach(root) {
		if _, err := b.store.Get(ctx, c); err != nil {
			t.Errorf("block %s of the tree: %v", c, err)
		}
	}
	slices.Sort(b.sink.restaged)
	if !slices.Equal(b.sink.restaged, ids) {
		t.Errorf("the sink was told of %v, asked was for %v", b.sink.restaged, ids)
	}
	for _, id := range ids {
		must(t, b.d.Placed(ctx, id))
	}
	b.settle()
	for _, id := range ids {
		if len(b.store.marks[groupMark(id)]) > 0 {
			t.Errorf("blocks of group %d are kept after it was placed", id)
		}
	}
	if s := b.state(); s.Lost != 0 {
		t.Errorf("it is %+v", s)
	}
}

// TestRestagedAsFarAsItIsThere leaves out what has changed, or is with providers alone, and what is placed.
func TestRestagedAsFarAsItIsThere(t *testing.T) {
	b := restageBox(t)
	ctx := context.Background()
	placed := b.file("small").Groups[0]
	must(t, b.d.Restage(ctx, placed, 1<<40))
	puts := b.store.puts
	b.settle()
	if b.store.puts != puts || len(b.sink.restaged) > 0 {
		t.Error("what is placed was read again")
	}
	b.tree.find("large").away = true
	ids := b.loseAll()
	must(t, b.d.Restage(ctx, ids...))
	b.settle()
	if n := b.absent(ids); n < 9 || n > 16 {
		t.Errorf("%d blocks are absent; of the large file there are 10, and there may be some of shards", n)
	}
}

// TestNoRoomToRestage goes on when there is room.
func TestNoRoomToRestage(t *testing.T) {
	b := restageBox(t)
	ctx := context.Background()
	root := b.state().Root
	ids := b.loseAll()
	b.store.capacity = 1
	must(t, b.d.Restage(ctx, ids...))
	for range 3 {
		next, err := b.d.Work(ctx, b.now)
		must(t, err)
		if len(b.sink.restaged) > 0 || next.IsZero() {
			t.Fatalf("the sink was told of %v, work goes on at %v", b.sink.restaged, next)
		}
		b.now = next
	}
	b.store.capacity = 0
	b.settle()
	b.reach(root)
	if len(b.sink.restaged) != len(ids) {
		t.Errorf("the sink was told of %v", b.sink.restaged)
	}
}
