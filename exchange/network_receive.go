package exchange

import (
	"errors"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
)

// asideBytes is the least length of a message that is hashed while the next one is read.
const asideBytes = 256 << 10

// incoming reads the messages of one stream until it ends. libp2p calls it on a goroutine of its
// own for every stream a peer opens.
func (n *HostNetwork) incoming(s network.Stream) {
	n.mu.Lock()
	if n.stopped {
		n.mu.Unlock()
		_ = s.Reset()
		return
	}
	n.work.Add(1)
	n.mu.Unlock()
	defer n.work.Done()

	r := n.speaking(s)
	if r == nil || !r.adopt(s, true) {
		n.counts.refused.Add(1)
		_ = s.Reset()
		return
	}
	defer r.release(s, true)
	in := inbound{r: r, frames: newFrameReader(s, n.cfg.MessageTimeout)}
	err := in.run()
	in.aside.Wait()
	if in.err != nil {
		err = in.err
	}
	r.ended(s, err)
}

// ended closes a stream by what ended it.
func (r *remote) ended(s network.Stream, err error) {
	switch {
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		_ = s.Close()
		return
	case errors.Is(err, errMalformed):
		r.n.counts.malformed.Add(1)
		r.n.handler.PeerMisbehaved(r.n.ctx, r.id, err)
	case errors.Is(err, errSlow):
		r.n.counts.slow.Add(1)
		r.wants.clear() // the handler asks anew for whatever it still wants
		r.n.handler.SendFailed(r.n.ctx, r.id, err)
	case errors.Is(err, errCutOff) && r.ctx.Err() == nil:
		r.wants.clear() // an answer is lost, and the peer may take it for given
		r.n.handler.SendFailed(r.n.ctx, r.id, err)
	}
	_ = s.Reset()
}

// inbound is one stream of a peer being read.
type inbound struct {
	r      *remote
	frames *frameReader
	aside  sync.WaitGroup // at most one message whose blocks are being hashed and handed over
	err    error          // of a message aside; read when none is
}

func (in *inbound) run() error {
	select {
	case <-in.r.reported: // nothing of a peer before the peer itself
	case <-in.r.ctx.Done():
		return in.r.ctx.Err()
	}
	for {
		n, err := in.frames.length()
		if err != nil {
			return err
		}
		h, err := in.r.hold(n)
		if err != nil {
			return err
		}
		frame, err := in.frames.body(n)
		if err != nil {
			h.give()
			return err
		}
		if err := in.message(frame, h); err != nil {
			return err
		}
	}
}

// message takes a frame apart and hands it on; a long one aside, while the next is read.
func (in *inbound) message(frame []byte, h hold) error {
	d, err := decodeFrame(frame)
	if err != nil {
		h.give()
		return err
	}
	if in.r.ledger != nil && (len(d.entries) > 0 || d.full) {
		in.r.ledger.receive(d.entries, d.full)
	}
	if len(d.roots) > 0 && in.r.ledger != nil {
		in.r.ledger.asked(d.roots)
	}
	for _, k := range d.manifests {
		in.r.n.told(in.r, k)
	}
	if len(d.vouchers) > 0 {
		in.r.takeVouchers(d.vouchers)
	}
	in.aside.Wait()
	if in.err != nil {
		h.give()
		return in.err
	}
	if len(frame) < asideBytes {
		return in.r.deliver(&d, frame, h)
	}
	in.aside.Go(func() { in.err = in.r.deliver(&d, frame, h) })
	return nil
}

// deliver verifies a message's blocks and gives the message to the handler.
func (r *remote) deliver(d *decoded, frame []byte, h hold) error {
	defer h.give()
	kept, err := d.verify(frame)
	if err != nil {
		return err
	}
	r.n.counts.received.add(&d.message, len(frame))
	if len(d.presences) > 0 || len(d.blocks) > 0 || d.account != nil {
		r.n.handler.Received(r.n.ctx, r.id, Incoming{Presences: d.presences, Blocks: d.blocks, Bytes: len(frame), Account: d.account})
	}
	if !kept {
		freeFrame(frame)
	}
	return nil
}
