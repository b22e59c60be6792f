package dataset

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/holdfastfs/holdfast/erasure"
)

// ErrCode says that a dataset is protected by another code than it is opened with.
var ErrCode = errors.New("protected by another code")

// Code tells by how many blocks of data and of parity the stripes of the dataset are protected that is kept below a
// prefix; 0, 0 where there is none.
func Code(ctx context.Context, db *badger.DB, prefix []byte) (data, parity int, err error) {
	d := &Dataset{cfg: Config{DB: db, Prefix: prefix}}
	err = d.view(func(x *tx) (err error) {
		data, parity, err = x.code()
		return err
	})
	if err == nil && data == 0 {
		data, parity, err = d.codeOfGroups(ctx)
	}
	return data, parity, err
}

func (x *tx) code() (data, parity int, err error) {
	v, err := x.get(x.d.key(keyCode))
	if v == nil || err != nil {
		return 0, 0, err
	}
	r := decoder{rest: v}
	data, parity = int(r.num()), int(r.num())
	return data, parity, r.end("code")
}

// codeOfGroups tells by the stripes what the code is of a dataset for which it is not noted, at least.
func (d *Dataset) codeOfGroups(ctx context.Context) (data, parity int, err error) {
	err = d.scan(d.key(keyStripes), func(_, value []byte) error {
		stripes, err := decodeStripes(value)
		for _, s := range stripes {
			data, parity = max(data, len(s.Data)), max(parity, len(s.Parity))
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		return err
	})
	return data, parity, err
}

// checkCode compares the code with the one that all stripes of the dataset have, and notes that of a new one.
func (d *Dataset) checkCode(ctx context.Context) error {
	var data, parity int
	err := d.view(func(x *tx) (err error) {
		data, parity, err = x.code()
		return err
	})
	if err != nil {
		return err
	}
	if data > 0 {
		return d.sameCode(data, parity, data == d.cfg.Data)
	}
	// A dataset that nobody noted it for: a stripe may have fewer blocks than there may be, and none has more.
	if data, parity, err = d.codeOfGroups(ctx); err == nil && data > 0 {
		err = d.sameCode(data, parity, data <= d.cfg.Data)
	}
	if err != nil {
		return err
	}
	return d.commit(func(x *tx) error {
		var e encoder
		e.num(uint64(d.cfg.Data))
		e.num(uint64(d.cfg.Parity))
		return x.set(d.key(keyCode), e)
	})
}

func (d *Dataset) sameCode(data, parity int, fits bool) error {
	if fits && parity == d.cfg.Parity && erasure.CheckCode(data, parity) == nil {
		return nil
	}
	return fmt.Errorf("asked for %d,%d of what is in stripes of %d,%d: %w", d.cfg.Data, d.cfg.Parity, data, parity, ErrCode)
}
