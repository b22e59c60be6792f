package uploader

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// batchEvents is how many events are stepped before the machine is asked what to do.
const batchEvents = 256

// commitAgain is the time between attempts to commit to a full disk.
const commitAgain = time.Second

// loop owns the machine. It blocks for the next event, and for commits.
type loop struct {
	*Uploader
	start time.Time
	asked []request // to be told once what follows is on the disk
	errs  []error
}

// run feeds the machine until ctx ends, or nothing can be committed any more.
func (l *loop) run(ctx context.Context) error {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for l.wait(ctx, alarm) {
		r := l.machine.Ready()
		if err := l.commit(ctx, &r); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		l.act(ctx, &r)
	}
	return nil
}

// wait takes in the next events and returns false once ctx has ended.
func (l *loop) wait(ctx context.Context, alarm *time.Timer) bool {
	if at, ok := l.machine.Next(); ok {
		alarm.Reset(max(0, at-time.Since(l.start)))
	}
	select {
	case <-ctx.Done():
		return false
	case <-alarm.C:
		l.tick()
	case r := <-l.requests:
		l.tick()
		l.request(r)
	case e := <-l.answers:
		l.tick()
		l.machine.Step(e)
	}
	l.more()
	return ctx.Err() == nil
}

// more takes in what is waiting already, so that one commit serves many events.
func (l *loop) more() {
	for range batchEvents {
		select {
		case r := <-l.requests:
			l.request(r)
		case e := <-l.answers:
			l.machine.Step(e)
		default:
			return
		}
	}
}

func (l *loop) tick() { l.machine.Tick(time.Since(l.start), l.cfg.Now()) }

func (l *loop) request(r request) {
	l.errs = append(l.errs, r.run(l.machine))
	l.asked = append(l.asked, r)
}

// commit brings the records to the disk. A full disk is waited for: nothing is sent meanwhile.
func (l *loop) commit(ctx context.Context, r *ready) error {
	full := false
	for {
		err := l.journal.commit(r)
		if err == nil || !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		if !full {
			l.log.Warn("disk is full, uploads wait", "op", "commit", "err", err)
			full = true
		}
		pause := time.NewTimer(commitAgain)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// act carries out what the machine decided, after it was committed.
func (l *loop) act(ctx context.Context, r *ready) {
	for i, q := range l.asked {
		q.done <- l.errs[i]
	}
	l.asked, l.errs = l.asked[:0], l.errs[:0]
	for i := range r.links {
		if k := &r.links[i]; k.State == LinkFailed && k.Release {
			l.log.Info("link failed", "link", k.ID, "peer", k.Provider, "cid", k.Chunk, "err", k.Reason)
		}
	}
	for _, id := range r.drops {
		l.sealer.drop(id)
	}
	l.forget(r.forgets)
	for w := range l.watchers {
		if !w.tell(r.changed...) {
			delete(l.watchers, w)
		}
	}
	for _, t := range r.tasks {
		if t.work == workSeal {
			l.sealer.expect(t.link.ID)
		}
		l.tasks.Go(func() { l.answer(ctx, l.carryOut(ctx, t)) })
	}
}

// forget drops what is remembered of payments for links that are gone.
func (l *loop) forget(ids []seal.LinkID) {
	if l.cfg.Payments == nil {
		return
	}
	for _, id := range ids {
		if err := l.cfg.Payments.Forget(id[:]); err != nil {
			l.log.Warn("forget payment", "op", "pay", "link", id, "err", err)
		}
	}
}

func (l *loop) answer(ctx context.Context, e doneEvent) {
	select {
	case l.answers <- e:
	case <-ctx.Done():
	}
}
