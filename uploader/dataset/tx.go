package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

const (
	pieceBlocks = 256     // blocks of a list's piece, and counted in one transaction
	seqLease    = 1 << 12 // numbers lent out at a time; those not used are lost at a stop
)

// tx is a transaction: reading, or the only writing one.
type tx struct {
	d     *Dataset
	t     *badger.Txn
	heads map[GroupID]*groupHead // read, and written at the end if they differ
	was   map[GroupID]groupHead
	tally tally // what the totals change by

	wrote   bool
	touched []touched // keys that are remembered

	news, done []noted // that came to the journal, and left it
}

// commit runs do in a writing transaction. It is short: what is long is cut into several.
func (d *Dataset) commit(do func(x *tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := &tx{d: d, t: d.cfg.DB.NewTransaction(true)}
	defer x.t.Discard()
	seq, lent := d.seq, d.lent
	err := do(x)
	if err == nil {
		err = x.writeHeads()
	}
	if err == nil && x.wrote {
		err = d.cfg.Room() // a full disk ends the process that writes to the database's logs
	}
	if err == nil && d.beforeCommit != nil {
		err = d.beforeCommit()
	}
	if err == nil {
		if err = x.t.Commit(); err != nil {
			err = fmt.Errorf("write dataset: %w", err)
		}
	}
	if err != nil {
		d.seq, d.lent = seq, lent
		return err
	}
	d.totals.add(x.tally)
	d.todo.take(x.touched)
	d.standing.take(x.news, x.done)
	return nil
}

// view runs do in a reading transaction.
func (d *Dataset) view(do func(x *tx) error) error {
	x := &tx{d: d, t: d.cfg.DB.NewTransaction(false)}
	defer x.t.Discard()
	return do(x)
}

// get returns a key's value, or nil: no value here is empty.
func (x *tx) get(key []byte) ([]byte, error) {
	item, err := x.t.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err == nil {
		var v []byte
		if v, err = item.ValueCopy(nil); err == nil {
			return v, nil
		}
	}
	return nil, fmt.Errorf("read dataset: %w", err)
}

func (x *tx) set(key, value []byte) error {
	if err := x.t.Set(key, value); err != nil {
		return fmt.Errorf("write dataset: %w", err)
	}
	x.wrote = true
	x.remember(key, false)
	return nil
}

var flag = []byte{1} // the value of a key that says all

func (x *tx) flag(key []byte) error { return x.set(key, flag) }

func (x *tx) del(key []byte) error {
	if err := x.t.Delete(key); err != nil {
		return fmt.Errorf("write dataset: %w", err)
	}
	x.wrote = true
	x.remember(key, true)
	return nil
}

// next lends a number that was never lent before. In a commit only.
func (x *tx) next() (uint64, error) {
	d := x.d
	if d.seq == d.lent {
		lent := d.lent + seqLease
		if err := x.set(d.key(keySeq), binary.BigEndian.AppendUint64(nil, lent)); err != nil {
			return 0, err
		}
		d.lent = lent
	}
	d.seq++
	return d.seq - 1, nil
}

// journal notes a change that is to be worked off. In a commit only.
func (x *tx) journal(c Change) error {
	n, err := x.next()
	if err != nil {
		return err
	}
	x.news = append(x.news, noted{c, n})
	return x.set(x.d.key(keyJournal, n), c.encode())
}

// errStop ends a scan without an error.
var errStop = errors.New("stop")

// scan calls do with what follows the prefix of each key below it, in order, and the value; both are valid until do
// returns. do may commit: the scan does not see it.
func (d *Dataset) scan(prefix []byte, do func(rest, value []byte) error) error {
	return d.view(func(x *tx) error { return x.scan(prefix, do) })
}

func (x *tx) scan(prefix []byte, do func(rest, value []byte) error) error {
	return x.scanFrom(prefix, prefix, do)
}

// scanFrom is scan from a key on: where many keys were deleted before, it is cheaper to know where the others begin.
func (x *tx) scanFrom(prefix, from []byte, do func(rest, value []byte) error) error {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = prefix
	opts.PrefetchSize = 64
	it := x.t.NewIterator(opts)
	defer it.Close()
	for it.Seek(from); it.ValidForPrefix(prefix); it.Next() {
		item := it.Item()
		err := item.Value(func(v []byte) error { return do(item.Key()[len(prefix):], v) })
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// first returns the first key below a prefix, without it; nil if there is none.
func (d *Dataset) first(prefix []byte) (rest []byte, err error) {
	err = d.view(func(x *tx) error {
		it := x.t.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		if it.Seek(prefix); it.ValidForPrefix(prefix) {
			rest = append([]byte{}, it.Item().Key()[len(prefix):]...)
		}
		return nil
	})
	return rest, err
}

// drain deletes all keys below a prefix, at most most in a commit, and calls do with each before. It may be interrupted
// anywhere, and then goes on with what is left.
func (d *Dataset) drain(prefix []byte, most int, do func(x *tx, rest, value []byte) error) error {
	for {
		var keys, values [][]byte
		err := d.scan(prefix, func(rest, value []byte) error {
			if len(keys) == most {
				return errStop
			}
			keys, values = append(keys, bytes.Clone(rest)), append(values, bytes.Clone(value))
			return nil
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		err = d.commit(func(x *tx) error {
			for i, k := range keys {
				if do != nil {
					if err := do(x, k, values[i]); err != nil {
						return err
					}
				}
				if err := x.del(append(bytes.Clone(prefix), k...)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// head returns a group's head, to be changed in place; nil if there is none.
func (x *tx) head(id GroupID) (*groupHead, error) {
	if h := x.heads[id]; h != nil {
		return h, nil
	}
	v, err := x.get(x.d.key(keyGroup, uint64(id)))
	if v == nil || err != nil {
		return nil, err
	}
	h, err := decodeHead(v)
	if err != nil {
		return nil, err
	}
	x.keepHead(id, &h, h)
	return &h, nil
}

func (x *tx) keepHead(id GroupID, h *groupHead, was groupHead) {
	if x.heads == nil {
		x.heads, x.was = make(map[GroupID]*groupHead), make(map[GroupID]groupHead)
	}
	x.heads[id], x.was[id] = h, was
}
