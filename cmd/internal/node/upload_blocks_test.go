package node

import (
	"context"
	"testing"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
)

// TestKeeps: a name that was made to stay does, over a restart, and no other that looks temporary.
func TestKeeps(t *testing.T) {
	ctx := context.Background()
	store, key := dssync.MutexWrap(ds.NewMapDatastore()), ds.NewKey("work").ChildString("kept")
	k, err := openKeeps(ctx, store, key)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"d~", "\xff/~", ".a.swp"}
	for _, name := range names[:2] {
		if err := k.add(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if k, err = openKeeps(ctx, store, key); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if got := k.temporary(name); got != (i == 2) {
			t.Errorf("temporary(%q) = %v", name, got)
		}
	}
	if k.temporary("plain") || !k.temporary("e~") {
		t.Error("other names are taken for what they are not")
	}
}
