package blockcache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
)

// Pin is a set of blocks, named by a root, that eviction and garbage collection leave alone.
type Pin struct {
	Root     cid.Cid
	Blocks   int  // members, here or not
	Complete bool // FinishPin was called
}

// pinCheck remembers how many bytes of a file are pinned. Pins that come, and blocks that come to the
// file, only make them more, so as long as nothing is unpinned there are at least so many: else every
// Pin would have all files counted anew.
type pinCheck struct {
	mu    sync.Mutex
	exact bool // nothing came to the file since
	gen   pinGen
	bytes int64
}

// pinGen counts the changes of pins.
type pinGen struct {
	all     uint64
	removed uint64 // those that took something away
}

// reset notes that something came to the file.
func (c *pinCheck) reset() {
	c.mu.Lock()
	c.exact = false
	c.mu.Unlock()
}

// forget notes that something left the file.
func (c *pinCheck) forget() {
	c.mu.Lock()
	c.exact, c.bytes = false, 0
	c.mu.Unlock()
}

// get returns how many bytes are pinned, or a lower bound above zero.
func (c *pinCheck) get(gen pinGen) (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes, c.exact && c.gen == gen || c.bytes > 0 && c.gen.removed == gen.removed
}

func (c *pinCheck) set(gen pinGen, n int64) {
	c.mu.Lock()
	c.exact, c.gen, c.bytes = true, gen, n
	c.mu.Unlock()
}

func (s *Store) pinsNow() pinGen { return pinGen{all: s.pinGen.Load(), removed: s.unpinGen.Load()} }

// pinKey is where the facts of a pin are.
func (s *Store) pinKey(root cid.Cid) []byte { return s.ix.k(tagPin, string(root.Bytes())) }

// Pin adds blocks to the pin of a root. It may be called in parts and repeated; a block counts once
// a root. A block may be pinned before it is here.
func (s *Store) Pin(ctx context.Context, root cid.Cid, blocks []cid.Cid) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkCID(root); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	keys := make([]string, 0, len(blocks))
	for _, c := range blocks {
		if _, ok := inline(c); ok {
			continue
		}
		if err := checkCID(c); err != nil {
			return fmt.Errorf("pin %s: %w", root, err)
		}
		keys = append(keys, key(c))
	}
	s.pinMu.Lock() // held over index commits; pins change one after another
	defer s.pinMu.Unlock()
	defer s.pinGen.Add(1)
	if len(keys) == 0 {
		if err := s.pinPart(root, nil); err != nil {
			return fmt.Errorf("pin %s: %w", root, err)
		}
	}
	for part := range slices.Chunk(keys, maxChanges) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.pinPart(root, part); err != nil {
			return fmt.Errorf("pin %s: %w", root, err)
		}
	}
	return nil
}

// pinPart adds members under their stripes, so that the figure of pinned bytes stays exact.
func (s *Store) pinPart(root cid.Cid, keys []string) error {
	if err := s.ix.mayGrow(); err != nil {
		return err
	}
	defer s.ix.lock(slices.Values(keys))()
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	fact, err := s.ix.value(txn, s.pinKey(root))
	if err != nil {
		return err
	}
	count, complete := decodePin(fact)
	isNew := s.ix.roots.add(string(root.Bytes()))
	it := s.ix.pinIterator(txn)
	defer it.Close()
	var grown int64
	seen := make(map[string]bool, len(keys))
	err = s.ix.batch(func(wb *badger.WriteBatch) error {
		for _, k := range keys {
			member := s.ix.pairKey(tagMember, string(root.Bytes()), k)
			old, err := s.ix.value(txn, member)
			if err != nil || old != nil || seen[k] {
				if err != nil {
					return err
				}
				continue
			}
			seen[k] = true
			count++
			n, err := s.sizeIn(txn, k)
			if err != nil {
				return err
			}
			if !s.ix.pinned(it, k) {
				grown += n
			}
			if err := wb.Set(member, []byte{1}); err != nil {
				return err
			}
			if err := wb.Set(s.ix.pairKey(tagPinned, k, string(root.Bytes())), []byte{1}); err != nil {
				return err
			}
		}
		return wb.Set(s.pinKey(root), encodePin(count, complete))
	})
	if err != nil {
		if isNew {
			s.ix.roots.remove(string(root.Bytes()))
		}
		return err
	}
	s.pinnedBytes.Add(grown)
	return nil
}

// sizeIn returns the length of a block that is here, zero for others.
func (s *Store) sizeIn(txn *badger.Txn, key string) (int64, error) {
	ps, err := s.ix.places(txn, key)
	if err != nil {
		return 0, err
	}
	for _, p := range ps {
		if s.exists(p) {
			return int64(p.n), nil
		}
	}
	return 0, nil
}

func encodePin(count uint64, complete bool) []byte {
	var done uint64
	if complete {
		done = 1
	}
	return encodeUints(count, done)
}

func decodePin(v []byte) (count uint64, complete bool) {
	nums, _, ok := decodeUints(v, 2)
	if !ok {
		return 0, false
	}
	return nums[0], nums[1] == 1
}

// FinishPin marks a pin as complete and makes it durable. The error wraps ErrNotFound if there is none.
func (s *Store) FinishPin(ctx context.Context, root cid.Cid) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	if err := s.finishPin(root); err != nil {
		return fmt.Errorf("finish pin %s: %w", root, err)
	}
	return s.syncShared(ctx)
}

func (s *Store) finishPin(root cid.Cid) error {
	if err := checkCID(root); err != nil {
		return err
	}
	s.pinMu.Lock()
	defer s.pinMu.Unlock()
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	fact, err := s.ix.value(txn, s.pinKey(root))
	if err != nil {
		return err
	}
	if fact == nil {
		return ErrNotFound
	}
	count, _ := decodePin(fact)
	return s.ix.batch(func(wb *badger.WriteBatch) error { return wb.Set(s.pinKey(root), encodePin(count, true)) })
}

// Unpin removes the pin of a root; what other roots pin stays pinned. The error wraps ErrNotFound
// if there is none. Interrupted by ctx or a crash it may be called again.
func (s *Store) Unpin(ctx context.Context, root cid.Cid) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	if err := s.unpin(ctx, root); err != nil {
		return fmt.Errorf("unpin %s: %w", root, err)
	}
	s.nudge()
	return nil
}

func (s *Store) unpin(ctx context.Context, root cid.Cid) error {
	if err := checkCID(root); err != nil {
		return err
	}
	s.pinMu.Lock()
	defer s.pinMu.Unlock()
	defer s.pinGen.Add(1)
	defer s.unpinGen.Add(1)
	txn := s.ix.db.NewTransaction(false)
	fact, err := s.ix.value(txn, s.pinKey(root))
	txn.Discard()
	if err != nil {
		return err
	}
	if fact == nil {
		return ErrNotFound
	}
	below := s.ix.pairKey(tagMember, string(root.Bytes()), "")
	for from := below; ; { // on from the last: the index is slow to pass over what was just deleted
		var keys []string
		err := s.ix.each(ctx, below, from, false, func(rest, _ []byte) error {
			keys = append(keys, string(rest))
			if len(keys) >= maxChanges {
				return errStop
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		if err := s.unpinPart(root, keys); err != nil {
			return err
		}
		from = s.ix.pairKey(tagMember, string(root.Bytes()), keys[len(keys)-1])
	}
	err = s.ix.batch(func(wb *badger.WriteBatch) error { return wb.Delete(s.pinKey(root)) })
	if err == nil {
		s.ix.roots.remove(string(root.Bytes()))
	}
	return err
}

func (s *Store) unpinPart(root cid.Cid, keys []string) error {
	defer s.ix.lock(slices.Values(keys))()
	err := s.ix.batch(func(wb *badger.WriteBatch) error {
		for _, k := range keys {
			if err := wb.Delete(s.ix.pairKey(tagPinned, k, string(root.Bytes()))); err != nil {
				return err
			}
			if err := wb.Delete(s.ix.pairKey(tagMember, string(root.Bytes()), k)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	it := s.ix.pinIterator(txn)
	defer it.Close()
	for _, k := range keys {
		n, err := s.sizeIn(txn, k)
		if err != nil {
			return err
		}
		if !s.ix.pinned(it, k) {
			s.pinnedBytes.Add(-n)
		}
	}
	return nil
}

// Pins lists the pins, in no special order.
func (s *Store) Pins(ctx context.Context) ([]Pin, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	var pins []Pin
	below := s.ix.k(tagPin, "")
	err := s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		c, err := cid.Cast(slices.Clone(rest))
		if err != nil {
			return nil // not ours to explain; Unpin of it is impossible too
		}
		count, complete := decodePin(v)
		pins = append(pins, Pin{Root: c, Blocks: int(count), Complete: complete})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	return pins, nil
}

// pinnedInBody counts the bytes of a body's pinned leaves.
func (s *Store) pinnedInBody(ctx context.Context, b *body) (int64, error) {
	if s.ix.roots.count() == 0 {
		return 0, nil
	}
	gen := s.pinsNow()
	if n, ok := b.pins.get(gen); ok {
		return n, nil
	}
	var total int64
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	it := s.ix.pinIterator(txn)
	defer it.Close()
	below := s.ix.idKey(tagLeaf, b.id)
	err := s.ix.each(ctx, below, below, true, func(rest, v []byte) error {
		if len(rest) != 8 {
			return nil
		}
		l, ok := decodeLeaf(binary.BigEndian.Uint64(rest), v)
		if ok && s.ix.pinned(it, l.key) {
			total += int64(l.n)
		}
		return nil
	})
	if err == nil {
		b.pins.set(gen, total)
	}
	return total, err
}

// pinnedInPack counts the bytes of a pack's pinned records.
func (s *Store) pinnedInPack(ctx context.Context, p *pack) (int64, error) {
	if s.ix.roots.count() == 0 {
		return 0, nil
	}
	gen := s.pinsNow()
	if n, ok := p.pins.get(gen); ok {
		return n, nil
	}
	f, err := s.fds.acquire(&p.blob)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count pins of %s: %w", p.name, err)
	}
	defer s.fds.release(&p.blob)
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	it := s.ix.pinIterator(txn)
	defer it.Close()
	s.packMu.Lock()
	size := p.size
	s.packMu.Unlock()
	var total int64
	_, err = scanRecords(&patchy{r: f}, 0, size, func(r record) error {
		if s.ix.pinned(it, key(r.cid)) {
			total += recordBytes(r.cid, r.n)
		}
		return ctx.Err()
	})
	if err == nil {
		p.pins.set(gen, total)
	}
	return total, err
}
