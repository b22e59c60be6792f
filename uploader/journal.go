package uploader

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/exchange/payment/durable"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// journal keeps the machine's records. Load and commit are called from one goroutine, the rest from any.
type journal interface {
	// load reads all that was committed.
	load() (contents, error)
	// commit writes what a ready says. It is on the disk when commit returns without an error.
	commit(r *ready) error
	// room returns an error that wraps ENOSPC when a commit would fail.
	room() error
	// descriptor returns a chunk's descriptor.
	descriptor(chunk cid.Cid) ([]byte, error)
	// paid notes in a transaction of a payment that a link is paid with a voucher, unless it has no pledge.
	paid(txn *badger.Txn, id seal.LinkID, voucher []byte) error
}

// Tags of keys behind the prefix. Each is followed by what the record is of.
const (
	tagVersion    = 'v'
	tagFile       = 'f'
	tagGroup      = 'g'
	tagChunk      = 'c'
	tagDescriptor = 'd'
	tagLink       = 'l'
)

const journalVersion = 1

var (
	errJournal  = errors.New("journal is damaged")
	errNoPledge = errors.New("link has no pledge")
)

// badgerJournal is a journal in a database that others use too.
type badgerJournal struct {
	db     *badger.DB
	prefix []byte
	disk   *durable.Disk
}

// openJournal fails for one of a later version.
func openJournal(db *badger.DB, prefix []byte) (*badgerJournal, error) {
	j := &badgerJournal{db: db, prefix: append([]byte{}, prefix...), disk: durable.New(db)}
	err := db.Update(func(txn *badger.Txn) error {
		item, err := txn.Get(j.key(tagVersion))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return txn.Set(j.key(tagVersion), []byte{journalVersion})
		}
		if err != nil {
			return err
		}
		return item.Value(func(v []byte) error {
			if len(v) != 1 || v[0] != journalVersion {
				return fmt.Errorf("version %v, known is %d: %w", v, journalVersion, errJournal)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return j, nil
}

func (j *badgerJournal) key(tag byte, id ...byte) []byte {
	k := make([]byte, 0, len(j.prefix)+1+len(id))
	return append(append(append(k, j.prefix...), tag), id...)
}

func (j *badgerJournal) load() (c contents, err error) {
	err = j.db.View(func(txn *badger.Txn) error {
		return errors.Join(
			j.each(txn, tagGroup, func(id, v []byte) error { return take(&c.groups, id, v, parseGroup) }),
			j.each(txn, tagChunk, func(id, v []byte) error { return take(&c.chunks, id, v, parseChunk) }),
			j.each(txn, tagFile, func(id, v []byte) error { return take(&c.files, id, v, parseFile) }),
			j.each(txn, tagLink, func(id, v []byte) error { return take(&c.links, id, v, parseLink) }),
		)
	})
	if err != nil {
		return contents{}, fmt.Errorf("load journal: %w", err)
	}
	return c, nil
}

func take[T any](to *[]T, id, value []byte, parse func(id, value []byte) (T, error)) error {
	v, err := parse(id, value)
	if err == nil {
		*to = append(*to, v)
	}
	return err
}

func (j *badgerJournal) each(txn *badger.Txn, tag byte, fn func(id, value []byte) error) error {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = j.key(tag)
	it := txn.NewIterator(opts)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		id := it.Item().Key()[len(opts.Prefix):]
		if err := it.Item().Value(func(v []byte) error { return fn(id, v) }); err != nil {
			return fmt.Errorf("record %c%x: %w", tag, id, err)
		}
	}
	return nil
}

// commit writes in an order in which each record's references come before it, so that a commit in
// several transactions may stop between them.
func (j *badgerJournal) commit(r *ready) error {
	if !r.durable() {
		return nil
	}
	if err := durable.Room(j.db, durable.MinFree); err != nil {
		return fmt.Errorf("commit journal: %w", err)
	}
	b := &batch{db: j.db}
	defer b.discard()
	if err := j.write(b, r); err != nil {
		return fmt.Errorf("commit journal: %w", err)
	}
	if err := b.flush(); err != nil {
		return fmt.Errorf("commit journal: %w", err)
	}
	if err := j.disk.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	return nil
}

func (j *badgerJournal) room() error { return durable.Room(j.db, durable.MinFree) }

func (j *badgerJournal) write(b *batch, r *ready) error {
	for _, c := range r.chunks {
		if err := b.set(j.key(tagDescriptor, c.ID.Bytes()...), c.Descriptor); err != nil {
			return err
		}
		if err := b.setMessage(j.key(tagChunk, c.ID.Bytes()...), c.toPB()); err != nil {
			return err
		}
	}
	for _, g := range r.groups {
		if err := b.setMessage(j.key(tagGroup, g.ID[:]...), g.toPB()); err != nil {
			return err
		}
	}
	for i := range r.links {
		if err := b.setMessage(j.key(tagLink, r.links[i].ID[:]...), r.links[i].toPB()); err != nil {
			return err
		}
	}
	for i := range r.files {
		if err := b.setMessage(j.key(tagFile, r.files[i].ID[:]...), r.files[i].toPB()); err != nil {
			return err
		}
	}
	return j.erase(b, r)
}

func (j *badgerJournal) erase(b *batch, r *ready) error {
	var keys [][]byte
	for _, id := range r.goneFiles {
		keys = append(keys, j.key(tagFile, id[:]...))
	}
	for _, id := range r.goneLinks {
		keys = append(keys, j.key(tagLink, id[:]...))
	}
	for _, id := range r.goneGroups {
		keys = append(keys, j.key(tagGroup, id[:]...))
	}
	for _, id := range r.goneChunks {
		keys = append(keys, j.key(tagChunk, id.Bytes()...), j.key(tagDescriptor, id.Bytes()...))
	}
	for _, k := range keys {
		if err := b.delete(k); err != nil {
			return err
		}
	}
	return nil
}

func (j *badgerJournal) descriptor(chunk cid.Cid) (b []byte, err error) {
	err = j.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(j.key(tagDescriptor, chunk.Bytes()...))
		if err == nil {
			b, err = item.ValueCopy(nil)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read descriptor of chunk %s: %w", chunk, err)
	}
	return b, nil
}

func (j *badgerJournal) paid(txn *badger.Txn, id seal.LinkID, voucher []byte) error {
	key := j.key(tagLink, id[:]...)
	item, err := txn.Get(key)
	if err != nil {
		return fmt.Errorf("read link %s: %w", id, err)
	}
	v, err := item.ValueCopy(nil)
	if err != nil {
		return fmt.Errorf("read link %s: %w", id, err)
	}
	r, err := parseLink(id[:], v)
	if err != nil {
		return err
	}
	if r.State != LinkSigned || len(r.Pledge) == 0 {
		return fmt.Errorf("pay for link %s, %s: %w", id, r.State, errNoPledge)
	}
	if r.Paid {
		return nil
	}
	r.Paid, r.Voucher = true, voucher
	return setMessage(txn, key, r.toPB())
}
