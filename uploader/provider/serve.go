package provider

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// Serve answers the one request of a stream and closes the stream. From is who sent it, as the
// connection proves. An error is for the log: it says that the peer broke the protocol or the stream
// ended early, or that the provider itself failed; a refusal is none. What was committed stays, with
// or without an error. Serve returns soon after ctx ends.
func (p *Provider) Serve(ctx context.Context, from peer.ID, s Stream) (err error) {
	defer func() {
		err = errors.Join(err, s.Close())
	}()
	if len(from) == 0 || len(from) > maxPeerBytes {
		return fmt.Errorf("serve storage request: peer ID of %d bytes", len(from))
	}
	if !p.gate.open() {
		p.counts.refused.Add(1)
		return fmt.Errorf("serve storage request of %s: too many streams", from)
	}
	defer p.gate.done()
	c := &conn{s: s, patience: p.cfg.Patience}
	if refusal := p.gate.enter(from); refusal != nil {
		p.counts.refused.Add(1)
		return c.answer(&seal.BasicAnswer{Refusal: refusal})
	}
	c.ready = sync.OnceFunc(func() { p.gate.leave(from) })
	defer c.ready()
	if err := p.enter(); err != nil {
		return c.answer(&seal.BasicAnswer{Refusal: seal.Refuse(seal.RefusedClosing, "the provider stops")})
	}
	defer p.exit()
	ctx, cancel := context.WithTimeout(ctx, p.cfg.RequestFor)
	defer cancel()
	defer context.AfterFunc(ctx, c.abort)()
	p.counts.requests.Add(1)
	if err := p.serve(ctx, from, c); err != nil {
		return fmt.Errorf("serve storage request of %s: %w", from, err)
	}
	return nil
}

// maxPeerBytes is the longest peer ID that a pledge may have.
const maxPeerBytes = 128

// smallRequest is the length up to which requests need no share of the memory: there are only so many
// streams.
const smallRequest = 16 << 10

// maxWorkBytes is the most that a request may count for in memory: answering an audit.
const maxWorkBytes = 3 * seal.MaxAuditSegments * seal.SegmentBytes

// minMemory is room for the largest request, and for an audit beside its request.
const minMemory = 4 << 20

func (p *Provider) serve(ctx context.Context, from peer.ID, c *conn) error {
	var took int64
	defer func() { p.memory.Release(took) }()
	r := seal.NewReader(c)
	req, err := r.ReadRequest(func(bytes int) error {
		if bytes <= smallRequest {
			return nil
		}
		n := int64(2 * bytes) // as it came, and as it was decoded
		wait, cancel := context.WithTimeout(ctx, p.cfg.Patience)
		defer cancel()
		if p.memory.Acquire(wait, n) != nil {
			return seal.Refuse(seal.RefusedBusy, "too many large requests at once")
		}
		took = n
		c.rearm()
		return nil
	})
	if refusal := (*seal.Refusal)(nil); errors.As(err, &refusal) {
		return p.reply(c, nil, err)
	}
	if errors.Is(err, seal.ErrMalformed) {
		p.counts.malformed.Add(1)
		return errors.Join(err, c.answer(&seal.BasicAnswer{Refusal: seal.Refuse(seal.RefusedMalformed, "%v", err)}))
	}
	if err != nil {
		return err
	}
	return p.handle(ctx, from, req, r, c)
}

// handle does what a request asks for and answers it.
func (p *Provider) handle(ctx context.Context, from peer.ID, req seal.Request, r *seal.Reader, c *conn) error {
	switch q := req.(type) {
	case *seal.Quote:
		return c.answer(p.quote(q))
	case *seal.StoreRequest:
		a, err := p.store(from, q)
		return p.reply(c, a, err)
	case *seal.OpenChannel:
		return p.reply(c, &seal.BasicAnswer{}, p.openChannel(ctx, from, q))
	case *seal.Segments:
		a, err := p.segments(ctx, from, q)
		return p.reply(c, a, err)
	case *seal.Data:
		a, err := p.data(ctx, from, q, r, c)
		return p.reply(c, a, err)
	case *seal.SignatureRequest:
		a, err := p.signature(ctx, from, q)
		return p.reply(c, a, err)
	case *seal.Voucher:
		return p.reply(c, &seal.BasicAnswer{}, p.voucher(ctx, from, q))
	case *seal.Audit:
		return p.serveAudit(ctx, from, q, c)
	case *seal.Renew:
		a, err := p.renew(ctx, from, q)
		return p.reply(c, a, err)
	case *seal.Release:
		return p.reply(c, &seal.BasicAnswer{}, p.release(from, q))
	}
	return p.reply(c, nil, seal.Refuse(seal.RefusedMalformed, "a request that is not known here"))
}

// reply sends an answer or, where err is one, the refusal. Other errors are ours: the writer is told
// that, and no more.
func (p *Provider) reply(c *conn, a seal.Answer, err error) error {
	var refusal *seal.Refusal
	var cut *cutOff
	switch {
	case err == nil:
		return c.answer(a)
	case errors.As(err, &cut):
		return err // nobody reads any more
	case errors.As(err, &refusal):
		p.counts.refused.Add(1)
		return c.answer(&seal.BasicAnswer{Refusal: refusal})
	case isFull(err):
		p.counts.refused.Add(1)
		p.log.Warn("refuse storage request", keyError, err)
		return c.answer(&seal.BasicAnswer{Refusal: seal.Refuse(seal.RefusedFull, "the disk is full")})
	case errors.Is(err, seal.ErrMalformed):
		p.counts.malformed.Add(1)
		return errors.Join(err, c.answer(&seal.BasicAnswer{Refusal: seal.Refuse(seal.RefusedMalformed, "%v", err)}))
	}
	p.counts.failed.Add(1)
	return errors.Join(err, c.answer(&seal.BasicAnswer{Refusal: seal.Refuse(seal.RefusedFailed, "the provider failed")}))
}

// cutOff is a stream that ended, or stalled, in the middle of a request.
type cutOff struct{ err error }

func (c *cutOff) Error() string { return c.err.Error() }
func (c *cutOff) Unwrap() error { return c.err }

// progressBytes have to come, or go, within one patience.
const progressBytes = 64 << 10

// conn is a stream whose deadlines move as long as bytes do.
type conn struct {
	s        Stream
	patience time.Duration
	ready    func() // called before the answer is written; may be nil
	aborted  atomic.Bool
	armed    bool
	since    int // bytes read since the deadline was last set
}

func (c *conn) Read(b []byte) (int, error) {
	if !c.armed || c.since >= progressBytes {
		if err := c.s.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
			return 0, err
		}
		c.armed, c.since = true, 0
	}
	if c.aborted.Load() { // looked at after the deadline is set, as abort sets it after this
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.s.Read(b)
	c.since += n
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	total := 0
	for len(b) > 0 {
		if err := c.s.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
			return total, err
		}
		if c.aborted.Load() {
			return total, os.ErrDeadlineExceeded
		}
		n, err := c.s.Write(b[:min(len(b), progressBytes)])
		total += n
		if err != nil {
			return total, err
		}
		b = b[n:]
	}
	return total, nil
}

// answer sends a message; an error of it is a cutOff.
func (c *conn) answer(m seal.Message) error {
	if c.ready != nil {
		c.ready()
	}
	if err := seal.WriteMessage(c, m); err != nil {
		return &cutOff{err}
	}
	return nil
}

// rearm begins a new patience: the time until now was ours.
func (c *conn) rearm() { c.armed = false }

// abort wakes whoever reads or writes, for good.
func (c *conn) abort() {
	c.aborted.Store(true)
	past := time.Unix(1, 0)
	_ = c.s.SetReadDeadline(past)
	_ = c.s.SetWriteDeadline(past)
}

// quote tells the terms.
func (p *Provider) quote(q *seal.Quote) *seal.QuoteAnswer {
	now := p.now()
	if !q.Now.IsZero() {
		if refusal := checkClock(q.Now, now); refusal != nil {
			return &seal.QuoteAnswer{Refusal: refusal, Now: now}
		}
	}
	return &seal.QuoteAnswer{
		FreeBytes: uint64(p.freeBytes()), PricePerGiBDay: p.cfg.PricePerGiBDay,
		MaxExpiry: now.Add(p.cfg.MaxExpiry), Region: p.cfg.Region, Now: now,
	}
}

func checkClock(theirs, ours time.Time) *seal.Refusal {
	if d := theirs.Sub(ours).Abs(); d > seal.MaxClockSkew {
		return seal.Refuse(seal.RefusedClockSkew, "clocks differ by %v: %s there, %s here", d.Round(time.Second),
			theirs.UTC().Format(time.RFC3339), ours.UTC().Format(time.RFC3339))
	}
	return nil
}
