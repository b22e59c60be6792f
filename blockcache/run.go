package blockcache

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Run does what is done behind the callers: it evicts ahead of need, rewrites packs, verifies files
// after an unclean stop and writes down access times. It returns when ctx has ended. The store works
// without it, but then nothing is verified and packs are not rewritten.
func (s *Store) Run(ctx context.Context) error {
	touch := time.NewTicker(s.cfg.TouchPeriod)
	defer touch.Stop()
	for {
		if err := s.enter(); err != nil {
			return nil // closed
		}
		s.maintain(ctx)
		s.exit()
		select {
		case <-s.wake:
		case <-touch.C:
			s.stuck.Store(false)
			s.saveTicks()
		case <-ctx.Done():
			return nil
		}
	}
}

// maintain does everything that is due. Failures are logged; the next round tries again.
func (s *Store) maintain(ctx context.Context) {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"evict", s.evictAhead},
		{"remove empty bodies", s.removeEmpty},
		{"drop lent files that have changed", s.dropChanged},
		{"settle what lent files have left behind", s.settleOrphans},
		{"rewrite packs", s.rewritePacks},
		{"verify", s.verifyAll},
	}
	for _, step := range steps {
		err := step.do(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
			s.log.Warn("background work of the store failed", "op", step.name, "err", err)
		}
	}
}

// removeEmpty removes bodies that lost all their leaves.
func (s *Store) removeEmpty(ctx context.Context) error {
	var errs []error
	for _, v := range s.victims() {
		if v.body != nil && v.body.haveBytes() == 0 && v.body.leave() {
			errs = append(errs, s.dropBody(context.WithoutCancel(ctx), v.body))
		}
	}
	return errors.Join(errs...)
}

// saveTicks writes down when files were last used.
func (s *Store) saveTicks() {
	if s.enter() != nil {
		return
	}
	defer s.exit()
	vs := s.victims()
	var ps []*pack
	var bs []*body
	for _, v := range vs {
		switch {
		case v.blob().noted == v.tick:
		case v.pack != nil:
			ps = append(ps, v.pack)
		default:
			bs = append(bs, v.body)
		}
	}
	err := s.savePacks(ps)
	for part := range slices.Chunk(bs, maxChanges) {
		err = errors.Join(err, s.saveBodies(part))
	}
	if err != nil {
		s.log.Warn("could not save access times", "err", err)
		return
	}
	for _, v := range vs {
		v.blob().noted = v.tick
	}
}
