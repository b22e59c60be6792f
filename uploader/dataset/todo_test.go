package dataset

import (
	"context"
	"fmt"
	"testing"
)

// checkTodo compares what is remembered of work with the database.
func (b *box) checkTodo() {
	b.t.Helper()
	d := b.d
	for kind, is := range numbered {
		if !is {
			continue
		}
		rest, err := d.first(d.key(byte(kind)))
		must(b.t, err)
		if low := d.todo.starts[kind].low; rest != nil && number(rest, 0) < low {
			b.t.Fatalf("keys of kind %c begin at %d, remembered is %d", kind, number(rest, 0), low)
		}
	}
	for kind, is := range named {
		if !is || !d.todo.files[kind].whole {
			continue
		}
		n := 0
		must(b.t, d.scan(d.key(byte(kind)), func(rest, _ []byte) error {
			if _, ok := d.todo.files[kind].ids[FileID(rest)]; !ok {
				b.t.Errorf("file %x has a key of kind %c that is not remembered", rest, kind)
			}
			n++
			return nil
		}))
		if n != len(d.todo.files[kind].ids) {
			b.t.Fatalf("%d keys of kind %c are remembered, %d are there", len(d.todo.files[kind].ids), kind, n)
		}
	}
}

// TestMoreFilesThanAreRemembered are found in the database, until they are few enough again.
func TestMoreFilesThanAreRemembered(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.settle()
	b.d.todo.most = 5
	const files = 40
	for i := range files {
		b.tree.write(fmt.Sprint(i), b.tree.randomBytes(100))
		b.tree.find(fmt.Sprint(i)).busy = true
	}
	_, err := b.d.Work(context.Background(), b.now)
	must(t, err)
	if ids, more, err := b.d.filesOf(keyClosed); err != nil || !more || len(ids) != 5 || b.d.todo.files[keyClosed].whole {
		t.Fatalf("%d files are told, more %v, %v", len(ids), more, err)
	}
	if s, err := b.d.State(context.Background()); err != nil || s.Busy != files {
		t.Fatalf("%d files are busy, %v", s.Busy, err)
	}
	for i := range files {
		b.tree.find(fmt.Sprint(i)).busy = false
	}
	b.check(b.sync())
	if f := b.d.todo.files[keyClosed]; !f.whole || len(f.ids) != 0 {
		t.Errorf("closed files are remembered as %v, whole %v", f.ids, f.whole)
	}
}
