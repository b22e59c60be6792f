package exchange

import (
	"context"
	"errors"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// errProbed says that somebody has a block which was asked about.
var errProbed = errors.New("a peer has the block")

// FetchPlain is Fetch without Config.Rescue. missing, if not nil, is called from another goroutine, perhaps more than
// once, when nobody is known who has the block; it must not block. The fetch goes on.
func (e *Exchange) FetchPlain(ctx context.Context, w Want, missing func()) (blocks.Block, error) {
	b, err := e.fetch(ctx, wantEvent{want: w}, missing)
	if err == nil && b == nil {
		err = fetchError(w.CID, ErrNotFound)
	}
	return b, err
}

// Probe returns nil when a peer says that it has the block, and an error when nobody has said so before ctx ended. The
// block is not fetched. missing is as that of FetchPlain.
func (e *Exchange) Probe(ctx context.Context, w Want, missing func()) error {
	_, err := e.fetch(ctx, wantEvent{want: w, probe: true}, missing)
	if errors.Is(err, errProbed) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}

// rescue carries out what the machine decided on blocks that nobody is known to have.
func (l *loop) rescue(ctx context.Context, r ready) {
	for _, id := range r.lacking {
		if c, ok := l.callers[id]; ok && c.missing != nil {
			c.missing()
		}
	}
	for _, c := range r.unrescued {
		l.endRescue(c)
	}
	for _, w := range r.rescues {
		rctx, cancel := context.WithCancel(ctx)
		l.rescues[w.CID] = cancel
		l.tasks.Go(func() { l.runRescue(ctx, rctx, w) })
	}
}

// endRescue lets go of a rescue that has ended, or is not wanted any more.
func (l *loop) endRescue(c cid.Cid) {
	if cancel := l.rescues[c]; cancel != nil {
		cancel()
		delete(l.rescues, c)
	}
}

// runRescue runs one rescue, when it is its turn, and tells how it went.
func (e *Exchange) runRescue(ctx, rctx context.Context, w Want) {
	select {
	case e.rescuers <- struct{}{}:
	case <-rctx.Done():
		return // nobody waits for the answer
	}
	b, err := e.cfg.Rescue(rctx, w)
	<-e.rescuers
	if rctx.Err() != nil {
		return
	}
	if err == nil && (b == nil || !b.Cid().Equals(w.CID)) {
		err = fmt.Errorf("rescue block %s: %w: it is another one", w.CID, ErrInvalid)
	}
	if err != nil {
		e.log.Debug("block not rescued", "op", "rescue", "cid", w.CID, "err", err)
		b = nil
	}
	e.answer(ctx, rescuedEvent{w.CID, b, err})
}
