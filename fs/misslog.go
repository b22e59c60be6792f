package fs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	missEvery  = time.Minute // a block's absence is told again after this time
	missKept   = 4096        // blocks remembered
	missBurst  = 20          // lines a second at most
	missPeriod = time.Second
)

// missLog tells the log why reads failed: which block of which file, each block once a minute.
type missLog struct {
	log *slog.Logger

	// mu guards what follows.
	mu      sync.Mutex
	told    map[string]time.Time
	period  time.Time // when the present second began
	lines   int       // told in it
	skipped int       // left out since the last line
}

func newMissLog(log *slog.Logger) *missLog {
	return &missLog{log: log, told: make(map[string]time.Time)}
}

// report logs a failed request, unless that was done for the same block lately.
func (m *missLog) report(op string, n *node, err error) {
	key := err.Error()
	var block *BlockError
	if errors.As(err, &block) {
		key = block.Want.CID.KeyString()
	}
	skipped, ok := m.admit(key, time.Now())
	if !ok {
		return
	}
	args := []any{"op", op, "path", n.path(), "cid", n.cid, "err", err}
	if block != nil {
		args = append(args, "block", block.Want.CID, "offset", block.Want.Place.Offset)
	}
	if skipped > 0 {
		args = append(args, "skipped", skipped)
	}
	m.log.Error("read failed", args...)
}

// admit tells whether a line may be written now, and how many were not since the last.
func (m *missLog) admit(key string, now time.Time) (skipped int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, again := m.told[key]; again && now.Sub(at) < missEvery {
		return 0, false
	}
	if now.Sub(m.period) >= missPeriod {
		m.period, m.lines = now, 0
	}
	if m.lines >= missBurst {
		m.skipped++
		return 0, false
	}
	if len(m.told) >= missKept {
		clear(m.told)
	}
	m.told[key] = now
	m.lines++
	skipped, m.skipped = m.skipped, 0
	return skipped, true
}

// quiet is a handler that passes a message about a CID on once a minute.
type quiet struct {
	slog.Handler
	missing *missLog
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	key := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "cid" {
			key += a.Value.String()
		}
		return true
	})
	if _, ok := q.missing.admit(key, time.Now()); !ok {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quiet{q.Handler.WithAttrs(attrs), q.missing}
}

func (q quiet) WithGroup(name string) slog.Handler {
	return quiet{q.Handler.WithGroup(name), q.missing}
}
