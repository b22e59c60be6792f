package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// reasonStands is how long an upload has to wait for the same before that is told: at the start nobody is known yet, and
// what a retry helps is no news.
const reasonStands = 2 * time.Second

// errNotSynced says that a timeout has passed.
var errNotSynced = errors.New("not all is with providers")

// sync waits until an upload directory is with providers, and shows how far that is: as a bar on a terminal, and what it
// waits for as a line anywhere. A timeout of 0 is none.
func (a *app) sync(ctx context.Context, s *session, dir string, timeout time.Duration) (api.Synced, error) {
	limited := ctx
	if timeout != 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeoutCause(ctx, timeout, errNotSynced)
		defer cancel()
	}
	w := newWaiting(a.err)
	defer w.bar.End()
	synced, err := s.Sync(limited, dir, func(p api.SyncProgress) { w.tell(time.Now(), p) })
	if err == nil || ctx.Err() != nil || limited.Err() == nil {
		return synced, err
	}
	err = fmt.Errorf("%w after %s", errNotSynced, timeout)
	if w.reason != "" {
		err = fmt.Errorf("%w: %s", err, oneLine(w.reason))
	}
	return synced, hint.Add(err, "the upload goes on; holdfast uploads %s lists what is left", ui.Printable(dir))
}

// waiting tells somebody who waits for an upload how far it is. One goroutine uses it.
type waiting struct {
	err io.Writer
	bar *ui.Bar

	done, left int64 // since it began

	reason string    // what the upload waits for now
	since  time.Time // when it began to
	said   string    // what was told last
}

func newWaiting(err io.Writer) *waiting {
	return &waiting{err: err, bar: ui.NewBar(err, "upload", 0), left: -1}
}

// tell takes news.
func (w *waiting) tell(now time.Time, p api.SyncProgress) {
	if w.left >= 0 {
		w.done += max(0, w.left-p.Left) // what comes on top makes the whole longer, not what is done shorter
	}
	w.left = p.Left
	w.bar.Set(uint64(w.done), uint64(w.done+max(1, w.left))) // a bar that is full once ends, and more may come
	if p.Reason != w.reason {
		w.reason, w.since = p.Reason, now
	}
	if w.reason == "" || w.reason == w.said || now.Sub(w.since) < reasonStands {
		return
	}
	w.said = w.reason
	w.bar.Note(w.err, "holdfast: waits: %s", oneLine(w.reason))
}
