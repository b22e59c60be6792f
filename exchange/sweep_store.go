package exchange

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
)

const (
	sweepVersion = 1
	sweepBytes   = 1 + 1 + 1 + 8 + 8 + 8 // version, strategy, owed, began, ended, swept; a CID may follow
)

var sweepKey = ds.NewKey("sweep")

// strategyCodes is how the datastore names strategies; a place in it is never used anew.
var strategyCodes = []AnnounceStrategy{AnnounceRoots, AnnouncePinned, AnnounceAll}

// sweepState is what a restart goes on from.
type sweepState struct {
	strategy AnnounceStrategy
	began    time.Time // the last sweep; zero for never
	ended    time.Time // zero while it is under way
	after    cid.Cid   // all up to this block were announced; undefined at the beginning
	swept    uint64    // how many that are
	owed     bool      // some block is announced by the next sweep alone, which begins early
}

// underWay reports whether a sweep has begun and not ended.
func (s sweepState) underWay() bool { return !s.began.IsZero() && s.ended.IsZero() }

func (s sweepState) encode() []byte {
	b := make([]byte, 0, sweepBytes+64)
	b = append(b, sweepVersion, 0, 0)
	for i, name := range strategyCodes {
		if name == s.strategy {
			b[1] = byte(i)
		}
	}
	if s.owed {
		b[2] = 1
	}
	b = binary.BigEndian.AppendUint64(b, uint64(max(0, s.began.Unix())))
	b = binary.BigEndian.AppendUint64(b, uint64(max(0, s.ended.Unix())))
	b = binary.BigEndian.AppendUint64(b, s.swept)
	if s.after.Defined() {
		b = append(b, s.after.Bytes()...)
	}
	return b
}

func parseSweep(b []byte) (s sweepState, err error) {
	if len(b) < sweepBytes || b[0] != sweepVersion || int(b[1]) >= len(strategyCodes) {
		return s, fmt.Errorf("parse state of sweep: %d bytes of unknown form", len(b))
	}
	s = sweepState{strategy: strategyCodes[b[1]], owed: b[2] != 0, swept: binary.BigEndian.Uint64(b[19:])}
	s.began, s.ended = unixTime(b[3:]), unixTime(b[11:])
	if len(b) > sweepBytes {
		if s.after, err = cid.Cast(b[sweepBytes:]); err != nil {
			return s, fmt.Errorf("parse state of sweep: %w", err)
		}
	}
	return s, nil
}

// unixTime reads a time; 0 is none.
func unixTime(b []byte) time.Time {
	if n := int64(binary.BigEndian.Uint64(b)); n > 0 {
		return time.Unix(n, 0)
	}
	return time.Time{}
}

// load reads the state. One that can't be read, or of another strategy, makes the sweep begin anew.
func (s *Sweeper) load(ctx context.Context) error {
	s.state = sweepState{strategy: s.cfg.Strategy}
	b, err := s.cfg.Datastore.Get(ctx, sweepKey)
	if errors.Is(err, ds.ErrNotFound) {
		s.changed = s.cfg.Strategy != AnnounceRoots
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state of sweep: %w", err)
	}
	old, err := parseSweep(b)
	if err != nil {
		s.cfg.Logger.Warn("state of sweep is damaged, beginning anew", "err", err)
	}
	if err != nil || old.strategy != s.cfg.Strategy {
		s.changed = true
		return nil
	}
	s.state, s.stored = old, old.owed
	return nil
}

// owesLocked reports whether a stop now would leave blocks to an early sweep.
func (s *Sweeper) owesLocked() bool { return s.state.owed || len(s.known) > 0 }

// save makes the state durable. Newcomers that wait are not stored one by one: if the process ends
// before they are announced, a sweep begins early.
func (s *Sweeper) save(ctx context.Context) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	state := s.state
	state.owed = s.owesLocked()
	s.stored = s.stored && state.owed // who comes from now on is not in what is written here
	s.mu.Unlock()
	if err := s.cfg.Datastore.Put(ctx, sweepKey, state.encode()); err != nil {
		return fmt.Errorf("store state of sweep: %w", err)
	}
	if err := s.cfg.Datastore.Sync(ctx, sweepKey); err != nil {
		return fmt.Errorf("sync state of sweep: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = false
	s.stored = s.stored || state.owed
	return nil
}
