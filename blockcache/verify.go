package blockcache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// verifySoon asks Run to verify a body before others.
func (s *Store) verifySoon(b *body) {
	select {
	case s.urgent <- b:
	default: // many are asked for already
	}
	s.nudge()
}

// pacer keeps reading below a rate.
type pacer struct {
	rate  int64 // bytes a second
	begun time.Time
	bytes int64
}

// wait sleeps for as long as n more bytes are ahead of the rate.
func (p *pacer) wait(ctx context.Context, n int64) error {
	if p.begun.IsZero() {
		p.begun = time.Now()
	}
	p.bytes += n
	ahead := time.Duration(float64(p.bytes)/float64(p.rate)*float64(time.Second)) - time.Since(p.begun)
	if ahead < 10*time.Millisecond {
		return ctx.Err()
	}
	t := time.NewTimer(ahead)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// verifyAll checks every file that was last checked before an unclean stop.
func (s *Store) verifyAll(ctx context.Context) error {
	pace := &pacer{rate: s.cfg.VerifyBytesS}
	for {
		b, p := s.unverified()
		var err error
		switch {
		case b != nil:
			err = s.verifyBody(ctx, b, pace)
		case p != nil:
			err = s.verifyPack(ctx, p, pace)
		default:
			return nil
		}
		if err != nil {
			return fmt.Errorf("verify after an unclean stop: %w", err)
		}
	}
}

// unverified picks what to verify next: what is asked for, then bodies, then packs.
func (s *Store) unverified() (*body, *pack) {
	for {
		select {
		case b := <-s.urgent:
			if b.verified.Load() != s.epoch && !b.leaving.Load() {
				return b, nil
			}
			continue
		default:
		}
		break
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, b := range s.bodies {
		if b.verified.Load() != s.epoch && !b.leaving.Load() && b.loan.Load() == nil && b.committed.Load() {
			return b, nil
		}
	}
	for _, p := range s.packs {
		if p.verified.Load() != s.epoch && !p.leaving.Load() {
			return nil, p
		}
	}
	return nil, nil
}

// verifyBody checks every leaf of a body against its CID and drops the bad ones.
func (s *Store) verifyBody(ctx context.Context, b *body, pace *pacer) error {
	for from := uint64(0); ; {
		ls, err := s.ix.leaves(ctx, b.id, from, maxChanges)
		if err != nil {
			return err
		}
		if len(ls) == 0 {
			break
		}
		for _, l := range ls {
			if err := pace.wait(ctx, int64(l.n)); err != nil {
				return err
			}
			if err := s.verifyPlace(ctx, &b.blob, l.key, l.place(b.id)); err != nil {
				return err
			}
			from = l.off + 1
		}
	}
	if b.leaving.Load() {
		return nil
	}
	b.verified.Store(s.epoch)
	return s.saveBodies([]*body{b})
}

// verifyPlace checks one block where it lies and drops the place if it is bad.
func (s *Store) verifyPlace(ctx context.Context, b *blob, key string, p place) error {
	f, err := s.fds.acquire(b)
	if err != nil {
		if s.fds.gone(b) {
			return nil
		}
		return s.ignoreBad(s.bad(ctx, key, p, err))
	}
	defer s.fds.release(b)
	bufp := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(bufp)
	*bufp = slices.Grow((*bufp)[:0], int(p.n))
	data := (*bufp)[:p.n]
	_, err = f.ReadAt(data, int64(p.off))
	if err == nil && checksum(data) == p.crc && hashesTo(key, data) {
		s.counts.verifiedBytes.Add(int64(p.n))
		return nil
	}
	return s.ignoreBad(s.bad(ctx, key, p, err))
}

// ignoreBad turns the answers of bad that say "dealt with" into nil.
func (s *Store) ignoreBad(err error) error {
	if err == ErrCorrupt || err == ErrNotFound {
		return nil
	}
	return err
}

// verifyPack checks every indexed record of a pack.
func (s *Store) verifyPack(ctx context.Context, p *pack, pace *pacer) error {
	f, err := s.fds.acquire(&p.blob)
	if err != nil {
		if s.fds.gone(&p.blob) {
			return nil
		}
		if errors.Is(err, os.ErrNotExist) {
			p.verified.Store(s.epoch) // nothing of it can be read
			return nil
		}
		return fmt.Errorf("open %s: %w", p.name, err)
	}
	defer s.fds.release(&p.blob)
	s.packMu.Lock()
	size := p.size
	s.packMu.Unlock()
	_, err = scanRecords(&patchy{r: f}, 0, size, func(r record) error {
		if err := pace.wait(ctx, int64(r.n)); err != nil {
			return err
		}
		k := key(r.cid)
		txn := s.ix.db.NewTransaction(false)
		ps, err := s.ix.places(txn, k)
		txn.Discard()
		if err != nil {
			return err
		}
		for _, pl := range ps {
			if pl.kind == inPack && pl.id == p.id && pl.off == uint64(r.off) {
				return s.verifyPlace(ctx, &p.blob, k, pl)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.verified.Store(s.epoch)
	return s.savePacks([]*pack{p})
}
