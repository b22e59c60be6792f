package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

const (
	sendAttempts = 3
	// muxFrameBytes is the data of one full yamux frame: with its header it fills four TLS records.
	muxFrameBytes = 64<<10 - 12
	// writeChunkBytes is written under one deadline.
	writeChunkBytes = 4 * muxFrameBytes
)

// writeBuffers lends each lane a buffer for as long as it has something to send.
var writeBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, muxFrameBytes) }}

// lane is one of our two streams to a peer. One goroutine uses it.
type lane struct {
	r      *remote
	stream network.Stream
	watch  bool // whether the peer resets it is watched
}

// sendWants tells the peer changes of our want list until the remote ends.
func (r *remote) sendWants() {
	l := lane{r: r, watch: true}
	defer l.drop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.wants.wake:
		}
		if err := l.sendBatches(); err != nil && r.ctx.Err() == nil {
			r.n.handler.SendFailed(r.n.ctx, r.id, err)
		}
	}
}

// sendBatches empties the queue of changes. After a failure the rest is dropped: nobody can say what
// the peer knows of our want list, so what is asked next replaces it. Else entries that nobody takes back
// would stay there, and fill what the peer keeps of it.
func (l *lane) sendBatches() error {
	var dropped error
	for {
		batch, full := l.r.wants.take(entriesPerMessage)
		if full != nil {
			dropped = full
		}
		vouchers, roots := l.r.wants.takeVouchers(), l.r.wants.takeRoots()
		if len(batch) == 0 && len(vouchers) == 0 && len(roots) == 0 {
			if dropped != nil {
				l.r.wants.clear()
			}
			return dropped
		}
		if err := l.send(&message{entries: batch, full: l.r.wants.takeAnew(), vouchers: vouchers, roots: roots}); err != nil {
			l.r.wants.clear()
			l.r.wants.unpaid(vouchers)
			return err
		}
	}
}

// reply queues an answer of our server; it is the server's way out.
func (r *remote) reply(m *reply) {
	if !r.replies.add(m) {
		m.done(errNotConnected)
		return
	}
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	if !r.n.stopped {
		r.startLocked(&r.repliesOn, r.sendReplies)
	}
}

// sendReplies sends our server's answers until the remote ends.
func (r *remote) sendReplies() {
	l := lane{r: r}
	defer l.drop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.replies.wake:
		}
		for m := r.replies.take(); m != nil; m = r.replies.take() {
			err := l.sendReply(m)
			m.done(err)
			if err != nil {
				r.replies.fail(err)
			}
		}
	}
}

func (l *lane) sendReply(m *reply) error {
	if m.pace != nil {
		if err := m.pace(m.blockBytes()); err != nil {
			return fmt.Errorf("wait for the rate limit: %w", err)
		}
	}
	return l.send(&m.message)
}

// send writes a message, on a new stream when the old one fails, a bounded number of times. A peer
// that takes nothing is not tried again: it had its time.
func (l *lane) send(m *message) error {
	var err error
	for attempt := range sendAttempts {
		if attempt > 0 && !sleep(l.r.ctx, time.Duration(attempt)*l.r.n.cfg.RetryDelay) {
			return err
		}
		if err = l.try(m); err == nil {
			return nil
		}
		l.drop()
		if l.r.ctx.Err() != nil || isTimeout(err) {
			return err
		}
	}
	return err
}

// sleep waits for d; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (l *lane) try(m *message) error {
	if err := l.open(); err != nil {
		return err
	}
	if l.stream.Protocol() != ProtocolHoldfast {
		m = m.plain()
	}
	if !hasPresences(l.stream.Protocol()) {
		m = m.without12()
	}
	if m.empty() {
		return nil
	}
	w := progressWriter{s: l.stream, timeout: l.r.n.cfg.MessageTimeout}
	bw := writeBuffers.Get().(*bufio.Writer)
	defer func() {
		bw.Reset(nil)
		writeBuffers.Put(bw)
	}()
	bw.Reset(&w)
	if err := m.encode(bw); err != nil {
		return err
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	l.r.n.counts.sent.add(m, w.written)
	return nil
}

// open opens the stream unless there is one. The peer's best protocol is known from identify, so
// nothing is waited for.
func (l *lane) open() error {
	if l.stream != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.r.ctx, l.r.n.cfg.MessageTimeout)
	defer cancel()
	ctx = network.WithNoDial(ctx, "exchange sends to connected peers only")
	s, err := l.r.n.host.NewStream(ctx, l.r.id, l.r.n.cfg.Protocols...)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	if !l.r.adopt(s, false) {
		return fmt.Errorf("open stream: %w", errNotConnected)
	}
	l.stream = s
	if l.watch {
		l.r.n.work.Go(func() { l.r.watchReset(s) })
	}
	return nil
}

// watchReset notices that a peer has reset a stream of ours, which nobody writes to while nothing new is
// wanted: what was last written may be lost, and the peer forgets what it was told. Peers send nothing on
// it; that they close their half says nothing.
func (r *remote) watchReset(s network.Stream) {
	_, err := s.Read(make([]byte, 1))
	if !errors.Is(err, network.ErrReset) || !r.has(s) || r.ctx.Err() != nil {
		return
	}
	r.wants.clear()
	r.n.handler.SendFailed(r.n.ctx, r.id, fmt.Errorf("stream: %w", err))
}

// drop resets the stream; the next message opens another.
func (l *lane) drop() {
	if l.stream != nil {
		l.r.release(l.stream, false)
		_ = l.stream.Reset()
		l.stream = nil
	}
}

// progressWriter gives each chunk its own deadline, so that a long message on a slow line ends and
// one on a dead line does not hang.
type progressWriter struct {
	s       network.Stream
	timeout time.Duration
	written int
}

func (w *progressWriter) Write(b []byte) (int, error) {
	total := 0
	for total < len(b) {
		if err := w.s.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
			return total, fmt.Errorf("set deadline: %w", err)
		}
		n, err := w.s.Write(b[total:min(len(b), total+writeChunkBytes)])
		total += n
		w.written += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
