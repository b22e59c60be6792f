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

// TestRestaged: what nobody has any more is read from the staging tree again, all of it, and placed anew. What was in the
// tree before is in no way of that.
func TestRestaged(t *testing.T) {
	b := restageBox(t)
	b.tree.write("small", b.tree.randomBytes(1000)) // nobody has any more what it was before, nor directories
	b.check(b.sync())
	ids := b.loseAll()
	must(t, b.d.Restage(context.Background(), ids...))
	b.open() // it is not forgotten
	b.check(b.sync())
	slices.Sort(b.sink.restaged)
	if !slices.Equal(b.sink.restaged, ids) || b.sink.left {
		t.Errorf("the sink was told of %v, asked was for %v", b.sink.restaged, ids)
	}
	for id := range b.sink.groups {
		if slices.Contains(ids, id) {
			t.Errorf("group %d is still there", id)
		}
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
	f := b.file("large")
	if n := len(f.Groups); n == 0 || !b.sink.left {
		t.Errorf("the file that is away is %+v", f)
	}
	for _, id := range f.Groups {
		if !slices.Contains(ids, id) {
			t.Errorf("it is in group %d", id)
		}
	}
	for _, id := range b.file("d/middle").Groups {
		if slices.Contains(ids, id) {
			t.Errorf("another is in group %d", id)
		}
	}
}

// TestNoRoomToRestage goes on when there is room.
func TestNoRoomToRestage(t *testing.T) {
	b := restageBox(t)
	ctx := context.Background()
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
	b.check(b.sync())
	if len(b.sink.restaged) != len(ids) {
		t.Errorf("the sink was told of %v", b.sink.restaged)
	}
}
