package repo

import (
	"context"
	"errors"

	"github.com/dgraph-io/badger/v4"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// Datastore is the part of the database below one prefix in go-datastore's words, for the DHT's
// provider records and the queue of announcements. Close does nothing: the database is the repo's.
type Datastore struct {
	db     *badger.DB
	prefix []byte
}

var _ ds.Batching = (*Datastore)(nil)

// Datastore returns the datastore below a prefix of the table.
func (r *Repo) Datastore(prefix []byte) *Datastore {
	return &Datastore{db: r.DB, prefix: prefix}
}

func (d *Datastore) key(k ds.Key) []byte {
	return append(append([]byte{}, d.prefix...), k.String()...)
}

// Get returns the value of k or ds.ErrNotFound.
func (d *Datastore) Get(_ context.Context, k ds.Key) (value []byte, err error) {
	err = d.view(k, func(item *badger.Item) error {
		value, err = item.ValueCopy(nil)
		return err
	})
	return value, err
}

// Has says whether k has a value.
func (d *Datastore) Has(_ context.Context, k ds.Key) (bool, error) {
	err := d.view(k, func(*badger.Item) error { return nil })
	if errors.Is(err, ds.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// GetSize returns the length of k's value in bytes, or -1 and ds.ErrNotFound.
func (d *Datastore) GetSize(_ context.Context, k ds.Key) (size int, err error) {
	size = -1
	err = d.view(k, func(item *badger.Item) error {
		size = int(item.ValueSize())
		return nil
	})
	return size, err
}

func (d *Datastore) view(k ds.Key, f func(*badger.Item) error) error {
	err := d.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(d.key(k))
		if err != nil {
			return err
		}
		return f(item)
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return ds.ErrNotFound
	}
	return err
}

// Put stores value under k; it is durable after Sync.
func (d *Datastore) Put(_ context.Context, k ds.Key, value []byte) error {
	return update(d.db, func(txn *badger.Txn) error { return txn.Set(d.key(k), value) })
}

// Delete removes k; a missing one is no error.
func (d *Datastore) Delete(_ context.Context, k ds.Key) error {
	return update(d.db, func(txn *badger.Txn) error { return txn.Delete(d.key(k)) })
}

// Sync makes every Put and Delete that has returned durable.
func (d *Datastore) Sync(context.Context, ds.Key) error { return d.db.Sync() }

// Close does nothing.
func (d *Datastore) Close() error { return nil }

// Query answers q from a snapshot; the caller closes the results.
func (d *Datastore) Query(ctx context.Context, q query.Query) (query.Results, error) {
	txn := d.db.NewTransaction(false)
	opts := badger.DefaultIteratorOptions
	opts.PrefetchValues = !q.KeysOnly
	opts.Prefix = append(append([]byte{}, d.prefix...), ds.NewKey(q.Prefix).String()...)
	it := txn.NewIterator(opts)
	it.Rewind()
	next := func() (query.Result, bool) {
		if !it.Valid() || ctx.Err() != nil {
			return query.Result{Error: ctx.Err()}, ctx.Err() != nil && it.Valid()
		}
		item := it.Item()
		e := query.Entry{Key: string(item.Key()[len(d.prefix):]), Size: int(item.ValueSize())}
		var err error
		if !q.KeysOnly {
			e.Value, err = item.ValueCopy(nil)
		}
		it.Next()
		return query.Result{Entry: e, Error: err}, true
	}
	done := func() error {
		it.Close()
		txn.Discard()
		return nil
	}
	return query.NaiveQueryApply(q, query.ResultsFromIterator(q, query.Iterator{Next: next, Close: done})), nil
}

// Batch collects writes; Commit stores them all or, beyond badger's size of a transaction, in order.
func (d *Datastore) Batch(context.Context) (ds.Batch, error) {
	return &batch{d: d, wb: d.db.NewWriteBatch()}, nil
}

type batch struct {
	d  *Datastore
	wb *badger.WriteBatch
}

func (b *batch) Put(_ context.Context, k ds.Key, value []byte) error {
	return b.wb.Set(b.d.key(k), append([]byte{}, value...))
}

func (b *batch) Delete(_ context.Context, k ds.Key) error { return b.wb.Delete(b.d.key(k)) }

func (b *batch) Commit(context.Context) error {
	if err := mayWrite(b.d.db); err != nil {
		b.wb.Cancel()
		return err
	}
	return b.wb.Flush()
}
