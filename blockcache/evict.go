package blockcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Eviction takes what was longest unused. The unit is a file. Bodies are ordered by their last use
// and go whole. Packs are ordered by age with a second chance, which comes close to LRU without
// state for each block: an access bit stands for 16 KiB of a pack; when the oldest pack's turn
// comes, blocks with the bit set, and pinned ones, are moved to the youngest pack and the rest is
// dropped; if more than half would move, the bits are cleared and the pack waits for another turn.

// Run evicts ahead of need between these parts of the quota.
const (
	highWater = 95
	lowWater  = 90
)

// tryReserve takes n bytes of the room that is left.
func (s *Store) tryReserve(n int64) bool {
	if s.quota > 0 && s.used.Load()+n > s.quota*highWater/100 && !s.stuck.Load() {
		s.nudge()
	}
	for {
		used := s.used.Load()
		if s.quota > 0 && used+n > s.quota {
			return false
		}
		if !s.used.CompareAndSwap(used, used+n) {
			continue
		}
		if least := max(s.cfg.MinFreeBytes, s.ix.floor); least > 0 {
			if free, err := s.fs.Free(); err == nil && free < least+uint64(n) {
				s.used.Add(-n)
				return false
			}
		}
		return true
	}
}

// makeRoom reserves n bytes, evicting as long as that helps. With force it reserves nothing but
// evicts n bytes, because the file system turned out to be full.
func (s *Store) makeRoom(ctx context.Context, n int64, force bool) error {
	if !force && s.tryReserve(n) {
		return nil
	}
	if s.quota > 0 && n > s.quota {
		return fmt.Errorf("%d bytes do not fit a quota of %d: %w", n, s.quota, ErrFull)
	}
	select {
	case s.evicting <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.evicting }()
	for freed := int64(0); ; {
		if force && freed >= n || !force && s.tryReserve(n) {
			return nil
		}
		got, err := s.evictOne(ctx)
		if err != nil {
			return err
		}
		if got == 0 {
			return fmt.Errorf("no room for %d bytes: %w", n, ErrFull)
		}
		freed += got
	}
}

// victim is a file that may be evicted.
type victim struct {
	pack *pack
	body *body
	tick uint64
}

// victims returns the candidates, the longest unused first.
func (s *Store) victims() []victim {
	s.mu.RLock()
	vs := make([]victim, 0, len(s.packs)+len(s.bodies))
	for _, p := range s.packs {
		if !p.leaving.Load() {
			vs = append(vs, victim{pack: p, tick: p.tick.Load()})
		}
	}
	for _, b := range s.bodies {
		if b.committed.Load() && !b.leaving.Load() {
			vs = append(vs, victim{body: b, tick: b.tick.Load()})
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(vs, func(a, b victim) int { return cmp.Compare(a.tick, b.tick) })
	return vs
}

// evictOne evicts one file and returns how many bytes that gave; zero means that nothing can go.
// The caller holds the evicting token. The removal of a file, once begun, is finished.
func (s *Store) evictOne(ctx context.Context) (int64, error) {
	var errs []error
	for round := range 2 { // packs that were spared in the first round go in the second
		for _, v := range s.victims() {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			freed, err := s.evict(context.WithoutCancel(ctx), v, round > 0)
			if err != nil { // one bad file must not keep the others
				errs = append(errs, fmt.Errorf("evict %s: %w", v.blob().name, err))
				v.postpone(s.clock.Add(1))
			}
			if freed > 0 {
				s.counts.evictions.Add(1)
				s.counts.evictedBytes.Add(freed)
				if len(errs) > 0 {
					s.log.Warn("some files could not be evicted", "err", errors.Join(errs...))
				}
				return freed, nil
			}
		}
	}
	return 0, errors.Join(errs...)
}

// evict evicts one file, if it may go.
func (s *Store) evict(ctx context.Context, v victim, last bool) (int64, error) {
	if v.body != nil && v.body.lent() {
		return 0, nil // gives no room
	}
	if v.body != nil {
		return s.evictBody(ctx, v.body)
	}
	return s.evictPack(ctx, v.pack, last)
}

func (v victim) blob() *blob {
	if v.body != nil {
		return &v.body.blob
	}
	return &v.pack.blob
}

// postpone makes the file one of the last to be tried.
func (v victim) postpone(now uint64) {
	if v.body != nil {
		v.body.tick.Store(now)
		return
	}
	v.pack.tick.Store(now)
}

// evictBody removes a body unless a leaf of it is pinned or somebody writes to it.
func (s *Store) evictBody(ctx context.Context, b *body) (int64, error) {
	pinned, err := s.pinnedInBody(ctx, b)
	if err != nil || pinned > 0 || !b.leave() {
		return 0, err
	}
	// A Pin may have come in between, and a Put after it that found its blocks here. No Put counts
	// on the body any more, so what comes from now on need not be looked for.
	if pinned, err = s.pinnedInBody(ctx, b); err != nil || pinned > 0 {
		b.stay()
		return 0, err
	}
	n := int64(b.haveBytes())
	if err := s.dropBody(ctx, b); err != nil {
		s.keepBody(b)
		return 0, err
	}
	return max(n, 1), nil
}

// keepBody makes what is left of a body whose removal failed readable again, so that the removal
// is tried once more.
func (s *Store) keepBody(b *body) {
	b.stay()
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := key2(b); k != "" && s.byFile[k] == nil && s.bodies[b.id] == b && !b.changed.Load() {
		s.byFile[k] = b
	}
}

// evictPack empties a pack of what is neither pinned nor in use.
func (s *Store) evictPack(ctx context.Context, p *pack, last bool) (int64, error) {
	pinned, err := s.pinnedInPack(ctx, p)
	if err != nil {
		return 0, err
	}
	s.packMu.Lock()
	size := p.size
	s.packMu.Unlock()
	if pinned > size/2 {
		return 0, nil
	}
	hot := !last && p.touchedBytes() > 0
	if hot && pinned+p.touchedBytes() > size/2 {
		p.spare(s.clock.Add(1))
		return 0, nil
	}
	return s.sweep(ctx, p, keepSome(hot))
}

// rewritePacks gives back the room of packs that are less than half alive.
func (s *Store) rewritePacks(ctx context.Context) error {
	s.mu.RLock()
	var ps []*pack
	for _, p := range s.packs {
		ps = append(ps, p)
	}
	s.mu.RUnlock()
	var errs []error
	for _, p := range ps {
		s.packMu.Lock()
		half := p.size > 0 && p.live.Load() < p.size/2
		s.packMu.Unlock()
		if !half || p.leaving.Load() || ctx.Err() != nil {
			continue
		}
		if _, err := s.sweep(ctx, p, keepAll); err != nil {
			errs = append(errs, fmt.Errorf("rewrite pack: %w", err))
		}
	}
	return errors.Join(errs...)
}

// evictAhead evicts down to the low mark once the high mark is passed.
func (s *Store) evictAhead(ctx context.Context) error {
	if s.quota == 0 || s.used.Load() <= s.quota*highWater/100 {
		return nil
	}
	select {
	case s.evicting <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.evicting }()
	for s.used.Load() > s.quota*lowWater/100 {
		got, err := s.evictOne(ctx)
		if err != nil || got == 0 {
			s.stuck.Store(true)
			return err
		}
	}
	s.stuck.Store(false)
	return nil
}
