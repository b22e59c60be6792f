package node

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"github.com/holdfastfs/holdfast/fs"
)

// withheld are the files of an upload directory whose upload was cancelled, with the versions that were. They are left
// out of the dataset until they are retried or written again.
type withheld struct {
	store ds.Datastore
	key   ds.Key // each file's is below it

	mu    sync.Mutex // guards what follows; held while it is written down
	files map[fs.FileID]fs.Version
	seen  map[fs.FileID]bool // that a scan has told of; nil: there was none
}

func openWithheld(ctx context.Context, store ds.Datastore, key ds.Key) (*withheld, error) {
	w := &withheld{store: store, key: key, files: make(map[fs.FileID]fs.Version)}
	results, err := store.Query(ctx, query.Query{Prefix: key.String()})
	if err != nil {
		return nil, fmt.Errorf("read cancelled uploads: %w", err)
	}
	defer results.Close()
	for r := range results.Next() {
		if r.Error != nil {
			return nil, fmt.Errorf("read cancelled uploads: %w", r.Error)
		}
		id, err := fs.ParseFileID(ds.RawKey(r.Key).Name())
		var v fs.Version
		if err == nil {
			err = json.Unmarshal(r.Value, &v)
		}
		if err != nil {
			return nil, fmt.Errorf("read cancelled uploads: %w", err)
		}
		w.files[id] = v
	}
	return w, nil
}

// has says whether a file is withheld.
func (w *withheld) has(id fs.FileID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.files[id]
	return ok
}

// recorded is has for a scan, with the version that is withheld.
func (w *withheld) recorded(id fs.FileID) (v fs.Version, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = make(map[fs.FileID]bool)
	}
	v, ok = w.files[id]
	if ok {
		w.seen[id] = true
	}
	return v, ok
}

// scanned forgets the files that a scan did not come across.
func (w *withheld) scanned(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.files {
		if !w.seen[id] {
			if err := w.dropLocked(ctx, id); err != nil {
				return err
			}
		}
	}
	w.seen = nil
	return nil
}

// closed says whether a file stays withheld: other content than that which was ends it, another mode or name does not.
func (w *withheld) closed(ctx context.Context, f fs.File) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.files[f.ID]
	switch {
	case !ok || v == f.Version:
		return ok, nil
	case v.Bytes == f.Version.Bytes && v.ModTime == f.Version.ModTime:
		return true, w.putLocked(ctx, f.ID, f.Version)
	}
	return false, w.dropLocked(ctx, f.ID)
}

// altered notes that a file which is withheld has another version, and the same content. Others are left alone.
func (w *withheld) altered(ctx context.Context, id fs.FileID, v fs.Version) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.files[id]; !ok {
		return false, nil
	}
	return true, w.putLocked(ctx, id, v)
}

// add withholds a file. It is durable after sync.
func (w *withheld) add(ctx context.Context, id fs.FileID, v fs.Version) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.putLocked(ctx, id, v)
}

// drop ends that, and says whether the file was withheld.
func (w *withheld) drop(ctx context.Context, id fs.FileID) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.files[id]; !ok {
		return false, nil
	}
	return true, w.dropLocked(ctx, id)
}

// sync makes all of it durable.
func (w *withheld) sync(ctx context.Context) error { return w.store.Sync(ctx, w.key) }

func (w *withheld) putLocked(ctx context.Context, id fs.FileID, v fs.Version) error {
	b, err := json.Marshal(v)
	if err == nil {
		err = w.store.Put(ctx, w.key.ChildString(id.String()), b)
	}
	if err != nil {
		return fmt.Errorf("remember a cancelled upload: %w", err)
	}
	w.files[id] = v
	return nil
}

func (w *withheld) dropLocked(ctx context.Context, id fs.FileID) error {
	if err := w.store.Delete(ctx, w.key.ChildString(id.String())); err != nil {
		return fmt.Errorf("forget a cancelled upload: %w", err)
	}
	delete(w.files, id)
	return nil
}
