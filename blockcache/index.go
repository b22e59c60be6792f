package blockcache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// The store's keys, below its prefix:
//
//	i <multihash>             → places of a block
//	l <body> <offset>         → leaf: what lies there
//	B <body>                  → a body's facts         V <body> → its spans, after a clean stop
//	P <pack>                  → a pack's facts
//	r <root>                  → a pin's facts
//	m <len> <root> <multihash>      → member of a pin  n <len> <multihash> <root> → the same, turned round
//	S                         → epoch                  C → the marker of a clean stop
//
// A pinned root is filed under its CID's bytes.
const (
	tagBlock     = 'i'
	tagLeaf      = 'l'
	tagBody      = 'B'
	tagSpans     = 'V'
	tagPack      = 'P'
	tagPin       = 'r'
	tagMember    = 'm'
	tagPinned    = 'n'
	tagEpoch     = 'S'
	tagCleanMark = 'C'
)

const stripeCount = 256

// index is the store's part of the database.
type index struct {
	db     *badger.DB
	prefix []byte
	seed   maphash.Seed

	room  func() (uint64, error) // bytes free where the database lies; nil if it has no files
	floor uint64                 // below that nothing is added

	flush   func(path string) error // makes a file of the database, or its folder, durable
	flushed []string                // names in the folder at its last flush; only one goroutine syncs

	roots rootSet // of all pins

	// A stripe guards read-modify-write of the entries of the blocks that fall to it. Several are
	// taken in ascending order. Held over an index commit, never over reads or writes of blocks.
	stripes [stripeCount]sync.Mutex
}

func (x *index) k(tag byte, rest string) []byte {
	b := make([]byte, 0, len(x.prefix)+1+len(rest))
	b = append(b, x.prefix...)
	b = append(b, tag)
	return append(b, rest...)
}

func (x *index) idKey(tag byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(x.k(tag, ""), id)
}

func (x *index) leafKey(id, off uint64) []byte {
	return binary.BigEndian.AppendUint64(x.idKey(tagLeaf, id), off)
}

// pairKey joins two names so that each first name is a prefix of its own.
func (x *index) pairKey(tag byte, a, b string) []byte {
	return append(append(append(x.k(tag, ""), byte(len(a))), a...), b...)
}

// stripe is where a block's entry is guarded.
func (x *index) stripe(key string) int {
	return int(maphash.String(x.seed, key) % stripeCount)
}

// lock takes the stripes of all keys; the result unlocks them.
func (x *index) lock(keys func(yield func(string) bool)) (unlock func()) {
	var set [stripeCount]bool
	for k := range keys {
		set[x.stripe(k)] = true
	}
	for i := range set {
		if set[i] {
			x.stripes[i].Lock()
		}
	}
	return func() {
		for i := range set {
			if set[i] {
				x.stripes[i].Unlock()
			}
		}
	}
}

// value reads one entry; missing entries give nil.
func (x *index) value(txn *badger.Txn, key []byte) ([]byte, error) {
	it, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	v, err := it.ValueCopy(nil)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return v, nil
}

// places reads where a block lies.
func (x *index) places(txn *badger.Txn, key string) ([]place, error) {
	it, err := txn.Get(x.k(tagBlock, key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	var ps []place
	err = it.Value(func(v []byte) error {
		ps = decodePlaces(v)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return ps, nil
}

// each calls fn for every entry below a key, in order. The key's rest and the value are only valid
// within fn. fn returns errStop to end early.
func (x *index) each(ctx context.Context, below, from []byte, values bool, fn func(rest, value []byte) error) error {
	txn := x.db.NewTransaction(false)
	defer txn.Discard()
	opt := badger.DefaultIteratorOptions
	opt.Prefix = below
	opt.PrefetchValues = false // values are small and lie in the tables
	it := txn.NewIterator(opt)
	defer it.Close()
	for it.Seek(from); it.ValidForPrefix(below); it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		item := it.Item()
		rest := item.Key()[len(below):]
		call := func(v []byte) error { return fn(rest, v) }
		var err error
		if values {
			err = item.Value(call)
		} else {
			err = call(nil)
		}
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errStop ends an iteration early.
var errStop = errors.New("stop")

// leaves returns up to max leaves of a body from an offset on.
func (x *index) leaves(ctx context.Context, id, from uint64, max int) ([]leaf, error) {
	out := make([]leaf, 0, min(max, 64))
	err := x.each(ctx, x.idKey(tagLeaf, id), x.leafKey(id, from), true, func(rest, v []byte) error {
		if len(rest) != 8 {
			return nil
		}
		if l, ok := decodeLeaf(binary.BigEndian.Uint64(rest), v); ok {
			out = append(out, l)
		}
		if len(out) >= max {
			return errStop
		}
		return nil
	})
	return out, err
}

// leafAt returns the leaf of a body that begins at an offset.
func (x *index) leafAt(txn *badger.Txn, id, off uint64) (leaf, bool, error) {
	v, err := x.value(txn, x.leafKey(id, off))
	if err != nil || v == nil {
		return leaf{}, false, err
	}
	l, ok := decodeLeaf(off, v)
	return l, ok, nil
}

// fewRoots is how many pins are asked one by one. A search in the order of blocks finds any number of
// pins, but it has to pass over everything that was unpinned and is not compacted away yet.
const fewRoots = 8

// pinView answers whether blocks are pinned, as of a transaction.
type pinView struct {
	x     *index
	txn   *badger.Txn
	roots []string
	it    *badger.Iterator // over tagPinned keys, if there are more roots
}

// pinIterator is what pinned needs; the caller closes it.
func (x *index) pinIterator(txn *badger.Txn) *pinView {
	v := &pinView{x: x, txn: txn}
	var few bool
	if v.roots, few = x.roots.upTo(fewRoots); !few {
		opt := badger.DefaultIteratorOptions
		opt.Prefix = x.k(tagPinned, "")
		opt.PrefetchValues = false
		v.it = txn.NewIterator(opt)
	}
	return v
}

func (v *pinView) Close() {
	if v.it != nil {
		v.it.Close()
	}
}

// pinned reports whether any pin holds the block. Where that cannot be read it is taken for pinned.
func (x *index) pinned(v *pinView, key string) bool {
	if v.it != nil {
		p := x.pairKey(tagPinned, key, "")
		v.it.Seek(p)
		return v.it.ValidForPrefix(p)
	}
	for _, root := range v.roots {
		if _, err := v.txn.Get(x.pairKey(tagMember, root, key)); !errors.Is(err, badger.ErrKeyNotFound) {
			return true
		}
	}
	return false
}

// What is kept free for the database, in bytes: at most maxFloor before something is added, and hardFloor
// before anything is written, so that the log of what makes room has its pages, too.
const (
	maxFloor  = 64 << 20
	hardFloor = 8 << 20
)

// keepRoom makes the index refuse additions when the disk is almost full. The database maps its logs
// and tables into memory; where the disk has no page for one, the program dies instead of getting an
// error. So there has to be room for every log that may be begun and for a table.
func (x *index) keepRoom() {
	opts := x.db.Opts()
	if opts.InMemory {
		return
	}
	x.floor = min(maxFloor, uint64(opts.NumMemtables+2)*uint64(opts.MemTableSize))
	x.room = osFiles{opts.Dir}.Free
}

// mayGrow returns an error that wraps ErrFull when nothing may be added. Removals go on a while longer: they make
// room.
func (x *index) mayGrow() error { return x.needs(x.floor) }

// needs returns an error that wraps ErrFull when the disk has fewer free bytes than floor.
func (x *index) needs(floor uint64) error {
	if x.room == nil {
		return nil
	}
	if free, err := x.room(); err == nil && free < floor {
		return fmt.Errorf("write index: %d bytes are free on the disk, %d are needed: %w", free, floor, ErrFull)
	}
	return nil
}

// batch runs fn on a write batch and commits it. What fn writes is split into as many transactions
// as the database needs.
func (x *index) batch(fn func(wb *badger.WriteBatch) error) error {
	if err := x.needs(hardFloor); err != nil {
		return err
	}
	wb := x.db.NewWriteBatch()
	defer wb.Cancel()
	if err := fn(wb); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if err := wb.Flush(); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// sync makes everything committed so far durable. The database's own Sync flushes only the log of
// the current memtable; a log that was just replaced and whose table is not written yet is left
// out. So all logs are flushed by name. One that vanishes meanwhile has become a synced table. Nor
// does the database flush its folder when it begins a log or a table.
func (x *index) sync() error {
	if err := x.db.Sync(); err != nil {
		return fmt.Errorf("sync index: %w", err)
	}
	opts := x.db.Opts()
	if opts.InMemory {
		return nil
	}
	entries, err := os.ReadDir(opts.Dir)
	if err != nil {
		return fmt.Errorf("sync index: %w", err)
	}
	var names, logs []string
	for _, e := range entries {
		names = append(names, e.Name())
		if strings.HasSuffix(e.Name(), ".mem") {
			logs = append(logs, e.Name())
		}
	}
	if len(logs) > 1 { // a single one is what Sync flushed
		for _, name := range logs {
			err := x.flush(filepath.Join(opts.Dir, name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("sync index: %w", err)
			}
		}
	}
	if slices.Equal(names, x.flushed) {
		return nil
	}
	if err := x.flush(opts.Dir); err != nil {
		return fmt.Errorf("sync index: %w", err)
	}
	x.flushed = names
	return nil
}
