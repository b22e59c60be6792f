package dataset

import (
	"errors"
	"testing"
)

// TestBacklog counts what is closed and not imported, tells what can't be read, and is empty in the end.
func TestBacklog(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	for _, name := range []string{"a", "b", "c"} {
		b.tree.write(name, b.tree.randomBytes(1000))
	}
	check := func(when string, files int, bytes int64, unread int) {
		t.Helper()
		got, err := b.d.Backlog()
		if err != nil || got.Files != files || got.Bytes != bytes || got.Unread != unread || (got.Err != nil) != (unread > 0) {
			t.Errorf("%s: %+v, %v", when, got, err)
		}
	}
	check("before it is known what was told", 0, 0, 0)
	must(t, b.d.takeIn(t.Context()))
	b.settle()
	check("when all is imported", 0, 0, 0)
	b.tree.write("a", b.tree.randomBytes(3000))
	b.tree.write("b", b.tree.randomBytes(5000))
	must(t, b.d.workOff(t.Context()))
	check("when two are closed again", 2, 8000, 0)
	b.d.unreadable(b.tree.find("a").id, errors.New("boom"))
	b.d.unreadable(b.tree.find("c").id, errors.New("boom, but it was imported before"))
	check("when one of them can't be read", 2, 8000, 1)
	b.settle()
	check("in the end", 0, 0, 0)
}
