package repo

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/dgraph-io/badger/v4"
	ds "github.com/ipfs/go-datastore"
	dstest "github.com/ipfs/go-datastore/test"
)

func TestDatastoreSuite(t *testing.T) {
	suite := map[string]func(*testing.T, ds.Datastore){
		"put and get": dstest.SubtestBasicPutGet,
		"not found":   dstest.SubtestNotFounds,
		"prefix":      dstest.SubtestPrefix,
		"order":       dstest.SubtestOrder,
		"limit":       dstest.SubtestLimit,
		"filter":      dstest.SubtestFilter,
		"many keys":   dstest.SubtestManyKeysAndQuery,
		"sizes":       dstest.SubtestReturnSizes,
		"sync":        dstest.SubtestBasicSync,
	}
	for name, test := range suite {
		t.Run(name, func(t *testing.T) { test(t, open(t, t.TempDir()).Datastore(PrefixRouting)) })
	}
	d := open(t, t.TempDir()).Datastore(PrefixRouting)
	dstest.RunBatchTest(t, d)
	dstest.RunBatchDeleteTest(t, d)
}

func TestDatastoreStaysBelowItsPrefix(t *testing.T) {
	r := open(t, t.TempDir())
	d := r.Datastore(PrefixRouting)
	ctx := context.Background()
	if err := d.Put(ctx, ds.NewKey("/x"), []byte("1")); err != nil {
		t.Fatal(err)
	}
	b, err := d.Batch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Put(ctx, ds.NewKey("/y"), []byte("2")), b.Delete(ctx, ds.NewKey("/x")), b.Commit(ctx), d.Sync(ctx, ds.Key{})); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.Has(ctx, ds.NewKey("/x")); ok || err != nil {
		t.Errorf("deleted key: %v, %v", ok, err)
	}
	err = r.DB.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if !bytes.HasPrefix(it.Item().Key(), PrefixRouting) {
				t.Errorf("key %q lies elsewhere", it.Item().Key())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
