package dataset

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

// TestChangesOnAFullDisk: nothing is written to the database while there is no room, and what happened to the tree
// meanwhile is found when there is.
func TestChangesOnAFullDisk(t *testing.T) {
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	ctx := context.Background()
	full := false
	b.cfg.Room = func() error {
		if full {
			return syscall.ENOSPC
		}
		return nil
	}
	b.open()
	b.tree.mkdir("d")
	b.tree.mkdir("gone")
	for _, p := range []string{"d/moved", "gone/f", "mode", "over", "removed"} {
		b.tree.write(p, b.tree.randomBytes(1000))
	}
	b.check(b.sync())

	tell, refused := b.tree.tell, 0
	b.tree.tell = func(c Change) {
		if err := b.d.Told(ctx, c); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("change %+v: %v", c, err)
		}
		refused++
	}
	full = true
	before := snapshot(t, db)
	b.tree.rename("d/moved", "here", false)
	b.tree.rename("here", "over", false)
	b.tree.remove("removed")
	b.tree.remove("gone")
	b.tree.chmod("mode", 0o600)
	b.tree.symlink("l", "mode")
	_, err := b.d.Work(ctx, b.now)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("work on a full disk: %v", err)
	}
	if after := snapshot(t, db); len(after) != len(before) || refused == 0 {
		t.Errorf("%d keys became %d on a full disk", len(before), len(after))
	}
	if s, err := b.d.State(ctx); err != nil || s.Synced {
		t.Errorf("it is %+v, %v", s, err)
	}
	full = false
	b.tree.tell = tell
	b.check(b.sync())
}

// TestOpenedWithAnotherCode is refused, and leaves the dataset as it is.
func TestOpenedWithAnotherCode(t *testing.T) {
	for _, noted := range []bool{true, false} {
		db := openDB(t, "")
		defer db.Close()
		b := newBox(t, db)
		b.tree.write("f", b.tree.randomBytes(20<<20))
		b.check(b.sync())
		if !noted { // as by an earlier release
			must(t, b.d.commit(func(x *tx) error { return x.del(b.d.key(keyCode)) }))
		}
		if k, m, err := Code(context.Background(), db, b.cfg.Prefix); err != nil || k != 4 || m != 2 {
			t.Errorf("the code is %d,%d, %v", k, m, err)
		}
		for _, code := range [][2]int{{2, 1}, {4, 1}, {3, 2}} {
			cfg := b.cfg
			cfg.Data, cfg.Parity = code[0], code[1]
			if _, err := Open(context.Background(), cfg); !errors.Is(err, ErrCode) {
				t.Errorf("opened with %v: %v", code, err)
			}
		}
		b.open()
		b.tree.write("g", b.tree.randomBytes(2000))
		b.check(b.sync())
	}
	db := openDB(t, "")
	defer db.Close()
	if k, m, err := Code(context.Background(), db, []byte("set/")); err != nil || k != 0 || m != 0 {
		t.Errorf("the code of nothing is %d,%d, %v", k, m, err)
	}
}
