package node

import (
	"context"
	"testing"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/holdfastfs/holdfast/fs"
)

// TestWithheld goes through what ends a cancelled file's state, and what does not.
func TestWithheld(t *testing.T) {
	ctx := context.Background()
	store, key := dssync.MutexWrap(ds.NewMapDatastore()), ds.NewKey("work").ChildString("cancelled")
	open := func() *withheld {
		t.Helper()
		w, err := openWithheld(ctx, store, key)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	ids := []fs.FileID{{1}, {2}, {3}, {4}, {5}}
	v := fs.Version{Bytes: 7, ModTime: 8, ChangeTime: 9}
	w := open()
	for _, id := range ids {
		if err := w.add(ctx, id, v); err != nil {
			t.Fatal(err)
		}
	}
	if held, err := w.closed(ctx, fs.File{ID: ids[0], Version: v}); !held || err != nil {
		t.Errorf("the same version again: %v, %v", held, err)
	}
	if held, err := w.closed(ctx, fs.File{ID: ids[1], Version: fs.Version{Bytes: 8}}); held || err != nil {
		t.Errorf("another version: %v, %v", held, err)
	}
	other := fs.Version{Bytes: 7, ModTime: 8, ChangeTime: 10}
	if held, err := w.altered(ctx, ids[2], other); !held || err != nil {
		t.Errorf("another mode: %v, %v", held, err)
	}
	if held, err := w.altered(ctx, fs.FileID{9}, other); held || err != nil {
		t.Errorf("another file: %v, %v", held, err)
	}
	if was, err := w.drop(ctx, ids[3]); !was || err != nil {
		t.Errorf("drop: %v, %v", was, err)
	}

	w = open() // the fifth is gone from staging meanwhile
	for i, want := range []fs.Version{v, {}, other, {}} {
		if got, ok := w.recorded(ids[i]); ok != (want != fs.Version{}) || got != want {
			t.Errorf("file %d after a restart: %+v, %v", i, got, ok)
		}
	}
	if err := w.scanned(ctx); err != nil {
		t.Fatal(err)
	}
	w = open()
	for i, want := range []bool{true, false, true, false, false} {
		if w.has(ids[i]) != want {
			t.Errorf("file %d after the scan: %v", i, !want)
		}
	}
}
