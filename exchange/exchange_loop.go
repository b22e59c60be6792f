package exchange

import (
	"context"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// batchEvents is how many events are stepped before the machine is asked what to do.
const batchEvents = 256

// caller waits for a block. deliver is called once, from the loop, and must not block.
type caller struct {
	deliver func(blocks.Block, error)
	missing func() // nobody is known to have the block; nil: not told. As deliver, and perhaps more than once
}

// request is a caller's want on its way to the loop.
type request struct {
	event    wantEvent
	deadline time.Time // zero: none
	caller   caller
}

// loop owns the machine. Nothing in it blocks but the wait for the next event.
type loop struct {
	*Exchange
	machine *machine
	start   time.Time
	callers map[intentID]caller
	day     int64                          // since 1970, of the last dayEvent
	rescues map[cid.Cid]context.CancelFunc // under way, and still wanted
}

// run feeds the machine until ctx ends. Then every caller is told.
func (l *loop) run(ctx context.Context) {
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for l.wait(ctx, alarm) {
		l.act(ctx, l.machine.Ready())
	}
	for id, c := range l.callers {
		l.part(id)
		c.deliver(nil, ErrClosed)
	}
}

// wait takes in the next events and returns false once ctx has ended.
func (l *loop) wait(ctx context.Context, alarm *time.Timer) bool {
	l.arm(alarm)
	select {
	case <-ctx.Done():
		return false
	case <-alarm.C:
		l.tick()
	case f := <-l.questions:
		l.tick()
		l.act(ctx, l.machine.Ready()) // nobody is to see what has just been rung and not been seen to
		f(l.machine)
	case v := <-l.requests:
		l.tick()
		l.request(v)
	case v := <-l.network():
		l.tick()
		l.machine.Step(v)
	case v := <-l.answers:
		l.tick()
		l.answered(v)
	}
	l.more()
	return true
}

// network returns what the network reports: nothing while the store is behind, so that peers wait.
func (l *loop) network() <-chan any {
	if l.machine.storing >= l.limits.StoreBytes {
		return nil
	}
	return l.events
}

// more takes in what is waiting already, so that one look at the machine serves many events.
func (l *loop) more() {
	for range batchEvents {
		select {
		case v := <-l.requests:
			l.request(v)
		case v := <-l.network():
			l.machine.Step(v)
		case v := <-l.answers:
			l.answered(v)
		default:
			return
		}
	}
}

func (l *loop) tick() {
	l.machine.Tick(time.Since(l.start))
	l.countDay(false)
}

// answered takes in how a dial, a search, a payment, or the store went.
func (l *loop) answered(v any) {
	l.machine.Step(v)
	if r, ok := v.(rescuedEvent); ok {
		l.endRescue(r.key)
	}
	if p, ok := v.(paidEvent); ok && p.err == nil {
		l.countDay(true)
	}
}

// request takes in what a caller wants, or wants no more.
func (l *loop) request(v any) {
	switch v := v.(type) {
	case request:
		l.callers[v.event.intent] = v.caller
		l.openWallet(v.event.want)
		v.event.missing = v.caller.missing != nil
		if !v.deadline.IsZero() {
			v.event.deadline = max(1, v.deadline.Sub(l.start))
		}
		l.machine.Step(v.event)
	case forgetEvent:
		if _, ok := l.callers[v.intent]; ok {
			l.part(v.intent)
			l.machine.Step(v)
		}
	}
}

// part lets go of a caller.
func (l *loop) part(id intentID) {
	delete(l.callers, id)
	<-l.slots
}

// arm sets the alarm to when the machine wants to be told the time.
func (l *loop) arm(alarm *time.Timer) {
	if at, ok := l.machine.Next(); ok {
		alarm.Reset(max(0, at-time.Since(l.start)))
		return
	}
	alarm.Stop()
}

// act carries out what the machine decided.
func (l *loop) act(ctx context.Context, r ready) {
	for _, p := range r.protects {
		l.cfg.Network.Protect(p.peer, p.on)
	}
	for _, s := range r.sends {
		l.cfg.Network.Send(s.peer, s.entries)
	}
	if len(r.stores) > 0 {
		l.storing.add(r.stores)
	}
	for _, res := range r.resolved {
		for _, id := range res.intents {
			if c, ok := l.callers[id]; ok {
				l.part(id)
				c.deliver(res.block, res.err)
			}
		}
	}
	l.rescue(ctx, r)
	for _, p := range l.till.add(r.payments) {
		l.tasks.Go(func() { l.payDues(ctx, p) })
	}
	for _, c := range r.searches {
		l.tasks.Go(func() { l.runSearch(ctx, c) })
	}
	for _, info := range r.dials {
		l.tasks.Go(func() { l.runDial(ctx, info) })
	}
	for _, p := range r.unasked {
		l.shuts.Do(func() { l.log.Warn("peer is shut out for a while", "op", "receive", "peer", p, "err", errUnasked) })
	}
	for _, p := range r.disconnects {
		l.tasks.Go(func() { l.cfg.Network.Disconnect(p) })
	}
}

// answer hands an event to the loop.
func (e *Exchange) answer(ctx context.Context, event any) {
	select {
	case e.answers <- event:
	case <-ctx.Done():
	}
}

// inbox takes the network's events. It blocks while the loop takes none.
type inbox struct{ e *Exchange }

func (i inbox) take(ctx context.Context, event any) {
	select {
	case i.e.events <- event:
	case <-ctx.Done():
	case <-i.e.life.Done():
	}
}

// PeerConnected implements Handler.
func (i inbox) PeerConnected(ctx context.Context, p peer.ID, hasPresences bool) {
	i.take(ctx, connectedEvent{p, hasPresences})
}

// PeerGone implements Handler.
func (i inbox) PeerGone(ctx context.Context, p peer.ID) { i.take(ctx, goneEvent{p}) }

// Received implements Handler.
func (i inbox) Received(ctx context.Context, p peer.ID, m Incoming) {
	i.take(ctx, receivedEvent{p, m})
}

// SendFailed implements Handler.
func (i inbox) SendFailed(ctx context.Context, p peer.ID, err error) {
	i.e.log.Debug("send failed", "op", "send", "peer", p, "err", err)
	i.take(ctx, sendFailedEvent{p})
}

// PeerMisbehaved implements Handler.
func (i inbox) PeerMisbehaved(ctx context.Context, p peer.ID, err error) {
	i.e.shuts.Do(func() {
		i.e.log.Warn("peer broke the protocol and is shut out for a while", "op", "receive", "peer", p, "err", err)
	})
	i.take(ctx, misbehavedEvent{p, err})
}

var _ Handler = inbox{}
