package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
)

const (
	// maxManifests is how many manifests of one dataset are remembered; the oldest goes.
	maxManifests = 8
	// maxDatasets is how many datasets' manifests are remembered.
	maxDatasets = 1 << 16
)

// ErrRegisterFull says that the manifests of too many datasets are remembered.
var ErrRegisterFull = errors.New("manifests of too many datasets are known")

// Register remembers which manifests protect which datasets, durably. It is safe for concurrent use.
type Register struct {
	store ds.Datastore

	mu    sync.Mutex // guards what follows
	known map[cid.Cid][]cid.Cid
}

// OpenRegister reads what was remembered. Every key of store is the register's own.
func OpenRegister(ctx context.Context, store ds.Datastore) (*Register, error) {
	r := &Register{store: store, known: make(map[cid.Cid][]cid.Cid)}
	results, err := store.Query(ctx, dsq.Query{})
	if err != nil {
		return nil, fmt.Errorf("read known manifests: %w", err)
	}
	defer results.Close()
	for e := range results.Next() {
		if e.Error != nil {
			return nil, fmt.Errorf("read known manifests: %w", e.Error)
		}
		root, err := cid.Decode(ds.RawKey(e.Key).BaseNamespace())
		if err != nil {
			continue // of another version: as good as unknown
		}
		list, err := decodeList(e.Value)
		if err != nil {
			continue
		}
		r.known[root] = list
	}
	return r, nil
}

// Of lists the manifests that are known for a dataset, those learned last first.
func (r *Register) Of(_ context.Context, root cid.Cid) ([]cid.Cid, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.known[root])
	slices.Reverse(out)
	return out, nil
}

// Roots lists all datasets that a manifest is known for, in no order.
func (r *Register) Roots() (out []cid.Cid) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.known {
		out = append(out, c)
	}
	return out
}

// Add remembers that a manifest protects a dataset. It is durable when Add returns.
func (r *Register) Add(ctx context.Context, root, manifest cid.Cid) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.known[root]
	if slices.Contains(old, manifest) {
		return nil
	}
	if len(old) == 0 && len(r.known) >= maxDatasets {
		return ErrRegisterFull
	}
	list := append(slices.Clone(old[max(0, len(old)-maxManifests+1):]), manifest)
	key := ds.NewKey(root.String())
	if err := r.store.Put(ctx, key, encodeList(list)); err != nil {
		return fmt.Errorf("remember manifest %s: %w", manifest, err)
	}
	if err := r.store.Sync(ctx, key); err != nil {
		return fmt.Errorf("remember manifest %s: %w", manifest, err)
	}
	r.known[root] = list
	return nil
}

func encodeList(list []cid.Cid) (b []byte) {
	for _, c := range list {
		b = append(b, byte(c.ByteLen()))
		b = append(b, c.Bytes()...)
	}
	return b
}

func decodeList(b []byte) (list []cid.Cid, err error) {
	for len(b) > 0 {
		n := int(b[0])
		if n == 0 || n > len(b)-1 {
			return nil, errors.New("torn list")
		}
		c, err := cid.Cast(b[1 : n+1])
		if err != nil {
			return nil, err
		}
		list, b = append(list, c), b[n+1:]
	}
	return list, nil
}
