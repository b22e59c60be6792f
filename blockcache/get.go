package blockcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// Get returns a block, or an error that wraps ErrNotFound. Bytes are checked on every read; what is
// damaged is forgotten, and if no other place has the block it is not found, so that the caller
// fetches it again. If the want names a place in a body that lacks the block, it is copied there.
func (s *Store) Get(ctx context.Context, w Want) (blocks.Block, error) {
	if b, ok := inline(w.CID); ok {
		return b, nil
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	if err := checkCID(w.CID); err != nil {
		return nil, err
	}
	ps, err := s.lookup(w)
	if err != nil {
		return nil, err
	}
	return s.getFrom(ctx, w, ps)
}

// getFrom reads a block from the first of its places that has it.
func (s *Store) getFrom(ctx context.Context, w Want, ps []place) (blocks.Block, error) {
	for try := 0; ; try++ {
		for _, p := range ps {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			data, err := s.readPlace(ctx, w.CID, p)
			if err == nil {
				s.touch(p)
				b := withCID(data, w.CID)
				s.fill(ctx, w, b)
				return b, nil
			}
			if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
				return nil, fmt.Errorf("get %s: %w", w.CID, err)
			}
		}
		if len(ps) == 0 || try == 2 {
			s.counts.misses.Add(1)
			return nil, fmt.Errorf("get %s: %w", w.CID, ErrNotFound)
		}
		// The places may have moved while we read.
		var err error
		if ps, err = s.lookup(w); err != nil {
			return nil, err
		}
	}
}

// lookup returns the readable places of a block, the one that the want names first.
func (s *Store) lookup(w Want) ([]place, error) {
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	k := key(w.CID)
	ps, err := s.ix.places(txn, k)
	if err != nil {
		return nil, err
	}
	ps = slices.DeleteFunc(ps, func(p place) bool { return !s.readable(p, false) })
	var b *body
	if w.Place.File.Defined() {
		b = s.bodyOf(w.Place.File)
	}
	if b == nil {
		return ps, nil
	}
	i := slices.IndexFunc(ps, func(p place) bool { return p.kind == inBody && p.id == b.id && p.off == w.Place.Offset })
	if i > 0 {
		ps[0], ps[i] = ps[i], ps[0]
	}
	if i >= 0 {
		return ps, nil
	}
	// Of a block that a file repeats the index does not know every place; the body does.
	l, ok, err := s.ix.leafAt(txn, b.id, w.Place.Offset)
	if err == nil && ok && l.key == k {
		ps = slices.Insert(ps, 0, l.place(b.id))
	}
	return ps, err
}

// readPlace reads and checks one place. ErrNotFound says that its file is gone, ErrCorrupt that the
// bytes were bad and the place was dropped.
func (s *Store) readPlace(ctx context.Context, c cid.Cid, p place) ([]byte, error) {
	b, trusted := s.blobOf(p)
	if b == nil {
		return nil, ErrNotFound
	}
	data, err := s.readBlob(b, p)
	if errors.Is(err, errAway) {
		return nil, ErrNotFound
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, s.missing(ctx, c, p)
	}
	if err != nil && err != io.EOF && !unreadable(err) {
		return nil, err
	}
	if err == nil && checksum(data) == p.crc && (trusted || hashes(c, data)) {
		s.counts.hits.Add(1)
		s.counts.readBytes.Add(int64(p.n))
		return data, nil
	}
	return nil, s.bad(ctx, key(c), p, err)
}

// readBlob reads a place, unchecked.
func (s *Store) readBlob(b *blob, p place) ([]byte, error) {
	f, err := s.fds.acquire(b)
	if err != nil {
		return nil, err
	}
	defer s.fds.release(b)
	data := make([]byte, p.n)
	_, err = f.ReadAt(data, int64(p.off))
	return data, err
}

// blobOf returns a place's file and whether it was verified since the last unclean stop.
func (s *Store) blobOf(p place) (*blob, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p.kind == inPack {
		if k := s.packs[p.id]; k != nil {
			return &k.blob, k.verified.Load() == s.epoch
		}
		return nil, false
	}
	if b := s.bodies[p.id]; b != nil {
		return &b.blob, b.verified.Load() == s.epoch
	}
	return nil, false
}

// missing handles a file that is not there: removed in the course of things, or by a stranger.
func (s *Store) missing(ctx context.Context, c cid.Cid, p place) error {
	if !s.exists(p) {
		return ErrNotFound
	}
	if b, _ := s.blobOf(p); b == nil || s.fds.gone(b) {
		return ErrNotFound
	}
	return s.bad(ctx, key(c), p, os.ErrNotExist)
}

// bad drops a damaged place.
func (s *Store) bad(ctx context.Context, key string, p place, cause error) error {
	if !s.exists(p) {
		return ErrNotFound // evicted while it was read
	}
	s.counts.corruptions.Add(1)
	s.log.Warn("dropped a damaged block", "file", placeFile(p), "offset", p.off, "bytes", p.n, "err", cause)
	if err := s.dropPlaces(context.WithoutCancel(ctx), key, []place{p}); err != nil {
		return err
	}
	return ErrCorrupt
}

func placeFile(p place) string {
	if p.kind == inPack {
		return packName(p.id)
	}
	return bodyName(p.id)
}

// fill copies a block that was found elsewhere into the body that its want names, if that is begun
// and lacks it. A failure costs nothing but the copy.
func (s *Store) fill(ctx context.Context, w Want, b blocks.Block) {
	if !s.lacks(w, b) {
		return
	}
	h := &held{}
	defer h.release()
	err := s.putPart(context.WithoutCancel(ctx), []Entry{{Block: b, Place: w.Place}}, h)
	if err != nil {
		s.log.Debug("could not copy a block into its body", "cid", w.CID, "err", err)
	}
}

// lacks reports whether fill has something to do.
func (s *Store) lacks(w Want, b blocks.Block) bool {
	n := len(b.RawData())
	if !w.Place.fits(w.CID, n) {
		return false
	}
	k := s.bodyOf(w.Place.File)
	return k != nil && k.fileBytes == w.Place.FileBytes && k.lacks(w.Place.Offset, uint64(n))
}

// GetMany returns the blocks of wants, nil where one is not here. It reads them in the order in
// which they lie on the disk.
func (s *Store) GetMany(ctx context.Context, ws []Want) ([]blocks.Block, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	out := make([]blocks.Block, len(ws))
	type job struct {
		i  int
		ps []place
	}
	jobs := make([]job, 0, len(ws))
	for i, w := range ws {
		if b, ok := inline(w.CID); ok {
			out[i] = b
			continue
		}
		if checkCID(w.CID) != nil {
			continue
		}
		ps, err := s.lookup(w)
		if err != nil {
			return nil, err
		}
		if len(ps) > 0 {
			jobs = append(jobs, job{i, ps})
		}
	}
	slices.SortFunc(jobs, func(a, b job) int {
		p, q := a.ps[0], b.ps[0]
		return cmp.Or(cmp.Compare(p.id, q.id), cmp.Compare(p.off, q.off))
	})
	for _, j := range jobs {
		b, err := s.getFrom(ctx, ws[j.i], j.ps)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if err == nil {
			out[j.i] = b
		}
	}
	return out, nil
}

// Has reports whether a block is here, without reading it: damage is found by Get.
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.SizeOf(ctx, c)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// SizeOf returns a block's length in bytes, or an error that wraps ErrNotFound.
func (s *Store) SizeOf(ctx context.Context, c cid.Cid) (int, error) {
	if b, ok := inline(c); ok {
		return len(b.RawData()), nil
	}
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.exit()
	if err := checkCID(c); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	ps, err := s.lookup(Want{CID: c})
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(ps, s.reachable)
	if i < 0 {
		return 0, fmt.Errorf("size of %s: %w", c, ErrNotFound)
	}
	return int(ps[i].n), nil
}
