package blockcache

import (
	"context"
	"fmt"
)

// GCResult is what a garbage collection won.
type GCResult struct {
	Blocks int64
	Bytes  int64
}

// GC drops every block that is not pinned and not being written, and rewrites packs. A body of which
// any leaf is pinned stays whole.
func (s *Store) GC(ctx context.Context) (GCResult, error) {
	if err := s.enter(); err != nil {
		return GCResult{}, err
	}
	defer s.exit()
	select {
	case s.evicting <- struct{}{}:
	case <-ctx.Done():
		return GCResult{}, ctx.Err()
	}
	defer func() { <-s.evicting }()
	blocks, used := s.blocks.Load(), s.used.Load()
	err := s.collect(ctx)
	r := GCResult{Blocks: max(0, blocks-s.blocks.Load()), Bytes: max(0, used-s.used.Load())}
	if err != nil {
		return r, fmt.Errorf("collect garbage: %w", err)
	}
	return r, nil
}

func (s *Store) collect(ctx context.Context) error {
	for _, v := range s.victims() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if v.body != nil {
			if _, err := s.evictBody(context.WithoutCancel(ctx), v.body); err != nil {
				return err
			}
			continue
		}
		pinned, err := s.pinnedInPack(ctx, v.pack)
		if err != nil {
			return err
		}
		s.packMu.Lock()
		full := pinned >= v.pack.size
		s.packMu.Unlock()
		if full {
			continue
		}
		if _, err := s.sweep(context.WithoutCancel(ctx), v.pack, keepPinned); err != nil {
			return err
		}
	}
	return nil
}
