package uploader

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"
)

// batch writes in as few transactions as the database takes.
type batch struct {
	db  *badger.DB
	txn *badger.Txn
}

func (b *batch) setMessage(key []byte, m proto.Message) error {
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("marshal record: %w", err)
	}
	return b.set(key, v)
}

func setMessage(txn *badger.Txn, key []byte, m proto.Message) error {
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("marshal record: %w", err)
	}
	return txn.Set(key, v)
}

func (b *batch) set(key, value []byte) error {
	return b.do(func(txn *badger.Txn) error { return txn.Set(key, value) })
}

func (b *batch) delete(key []byte) error {
	return b.do(func(txn *badger.Txn) error { return txn.Delete(key) })
}

func (b *batch) do(fn func(txn *badger.Txn) error) error {
	if b.txn == nil {
		b.begin()
	}
	err := fn(b.txn)
	if !errors.Is(err, badger.ErrTxnTooBig) {
		return err
	}
	if err := b.flush(); err != nil {
		return err
	}
	return fn(b.begin())
}

func (b *batch) begin() *badger.Txn {
	b.txn = b.db.NewTransaction(true)
	return b.txn
}

// flush commits what was written since the last one.
func (b *batch) flush() error {
	if b.txn == nil {
		return nil
	}
	txn := b.txn
	b.txn = nil
	return txn.Commit()
}

func (b *batch) discard() {
	if b.txn != nil {
		b.txn.Discard()
		b.txn = nil
	}
}
