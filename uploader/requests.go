package uploader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

var errDeadline = errors.New("no answer in time")

// carryOut does what a task says and returns its answer, in any case.
func (u *Uploader) carryOut(ctx context.Context, t task) (e doneEvent) {
	e.task = t.id
	switch t.work {
	case workSearch:
		e.found, e.err = u.find(ctx)
	case workSeal:
		e.root, e.err = u.sealer.seal(ctx, &t.link, t.groups)
	case workPay:
		e.voucher, e.err = u.pay(ctx, &t.link)
	case workData:
		e.missing, e.err = u.sendData(ctx, &t)
	default:
		e.err = u.request(ctx, &t, &e)
	}
	return e
}

// request does a task that is one request and its answer.
func (u *Uploader) request(ctx context.Context, t *task, e *doneEvent) error {
	k := &t.link
	switch t.work {
	case workQuote:
		return u.talk(ctx, t, &seal.Quote{Now: t.now}, &e.quote)
	case workStore:
		d, err := u.journal.descriptor(k.Chunk)
		if err != nil {
			return errLocal{err}
		}
		return u.talk(ctx, t, &seal.StoreRequest{
			Link: k.ID, Chunk: k.Chunk, Descriptor: d, Bytes: k.Bytes, Price: k.Price, Expiry: k.expiry(), Now: t.now,
		}, &seal.StoreAnswer{})
	case workChannel:
		return u.openChannel(ctx, t)
	case workMap:
		s := u.sealer.get(k.ID)
		if s == nil {
			return errLocal{errUnsealed}
		}
		defer u.sealer.done(s)
		var a seal.SegmentsAnswer
		err := u.talk(ctx, t, &seal.Segments{Link: k.ID, Key: s.key, Root: k.Root, Map: s.segments}, &a)
		e.missing = within(a.Missing, k.Bytes)
		return err
	case workSign, workRenew:
		var r seal.Request = &seal.SignatureRequest{Link: k.ID}
		if t.work == workRenew {
			r = &seal.Renew{Link: k.ID, Chunk: k.Chunk, Expiry: k.expiry(), Price: k.Price, Now: t.now}
		}
		var a seal.SignatureAnswer
		err := u.talk(ctx, t, r, &a)
		e.pledge = a.Pledge
		return err
	case workVoucher:
		return u.talk(ctx, t, &seal.Voucher{Link: k.ID, Voucher: k.Voucher}, &seal.BasicAnswer{})
	case workAudit:
		return u.audit(ctx, t)
	case workRelease:
		return u.talk(ctx, t, &seal.Release{Chunk: k.Chunk}, &seal.BasicAnswer{})
	}
	return errLocal{fmt.Errorf("task of unknown kind %d", t.work)}
}

// within leaves out segments that the chunk does not have.
func within(missing seal.Bitmap, bytes int64) seal.Bitmap {
	all := seal.AllSegments(seal.SegmentCount(bytes))
	for i := range missing {
		missing[i] &= all[i]
	}
	return missing
}

// talk sends a request and reads the answer, within the deadline.
func (u *Uploader) talk(ctx context.Context, t *task, r seal.Request, a seal.Answer) error {
	return u.stream(ctx, t, u.cfg.Limits.Deadline, func(s Stream, _ func()) error { return seal.Ask(s, r, a) })
}

// stream opens a stream and has fn use it. It is reset when ctx ends, when most has passed, and when
// fn has not called on within the deadline of requests.
func (u *Uploader) stream(ctx context.Context, t *task, most time.Duration, fn func(s Stream, on func()) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, errDeadline)
	defer cancel()
	ctx, stall := context.WithCancelCause(ctx)
	defer stall(nil)
	step := time.AfterFunc(u.cfg.Limits.Deadline, func() { stall(errDeadline) })
	defer step.Stop()
	s, err := u.cfg.Providers.Open(ctx, t.provider.id)
	if err != nil {
		return fmt.Errorf("%s: reach provider: %w", t.work, late(ctx, err))
	}
	reset := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = s.Reset(); close(reset) })
	err = fn(s, func() { step.Reset(u.cfg.Limits.Deadline) })
	if !stop() {
		<-reset
	}
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("%s: %w", t.work, late(ctx, err))
	}
	_ = s.Close() // the answer is here
	return nil
}

// late returns why a stream was reset, where that is what made the error.
func late(ctx context.Context, err error) error {
	var r *seal.Refusal
	if cause := context.Cause(ctx); cause != nil && !errors.As(err, &r) {
		return cause
	}
	return err
}

// find looks for candidates.
func (u *Uploader) find(ctx context.Context) ([]Candidate, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, u.cfg.Limits.Deadline, errDeadline)
	defer cancel()
	found, err := u.cfg.Candidates.Find(ctx)
	if err != nil {
		u.log.Warn("search for providers", "op", "search", "err", err)
	}
	return found, err
}

// sendData streams the segments that the provider misses.
func (u *Uploader) sendData(ctx context.Context, t *task) (missing seal.Bitmap, err error) {
	k := u.sealer.get(t.link.ID)
	if k == nil {
		return missing, errLocal{errUnsealed}
	}
	defer u.sealer.done(k)
	err = u.stream(ctx, t, u.cfg.Limits.TransferFor, func(s Stream, on func()) error {
		missing, err = seal.SendData(s, t.link.ID, t.missing, func(i int) ([]byte, error) {
			on()
			return k.segment(i), nil
		})
		return err
	})
	return within(missing, t.link.Bytes), err
}

// ahead is how many times what the first links of a channel cost it has for later ones.
const ahead = 16

// openChannel makes sure of a payment channel, and tells the provider of it.
func (u *Uploader) openChannel(ctx context.Context, t *task) error {
	if u.cfg.Payments == nil {
		return errLocal{errors.New("nothing to pay with")}
	}
	most := min(payment.Amount(t.amount), payment.MaxAmount/ahead)
	deposit := max(payment.Amount(u.cfg.Deposit), ahead*most)
	bounded, cancel := context.WithTimeoutCause(ctx, u.cfg.Limits.Deadline, errDeadline)
	defer cancel()
	id, err := u.cfg.Payments.EnsureChannel(bounded, t.provider.id, most, deposit)
	if err != nil {
		return errLocal{err}
	}
	return u.talk(ctx, t, &seal.OpenChannel{Channel: id}, &seal.BasicAnswer{})
}

// pay pays for a link that is signed, once, and notes it with the link in one transaction.
func (u *Uploader) pay(ctx context.Context, k *record) (voucher []byte, err error) {
	if u.cfg.Payments == nil {
		return nil, errLocal{errors.New("nothing to pay with")}
	}
	p := payment.Payment{To: k.Provider, Amount: payment.Amount(k.Price), Ref: k.ID[:], Budgets: []payment.Budget{{Key: Budget}}}
	_, err = u.cfg.Payments.PayWith(ctx, p, func(txn *badger.Txn, v payment.Voucher) error {
		if voucher = nil; !v.IsZero() {
			if voucher, err = v.Marshal(); err != nil {
				return err
			}
		}
		return u.journal.paid(txn, k.ID, voucher)
	})
	if err != nil {
		return nil, errLocal{err}
	}
	return voucher, nil
}

// Budget is the name that all payments for links are added up under.
const Budget = "storage"

// audit asks for segments and checks that they lead to the sealed root.
func (u *Uploader) audit(ctx context.Context, t *task) error {
	var a seal.AuditAnswer
	k := &t.link
	if err := u.talk(ctx, t, &seal.Audit{Chunk: k.Chunk, Segments: t.segments, Nonce: t.nonce}, &a); err != nil {
		return err
	}
	if a.Nonce != t.nonce || len(a.Segments) != len(t.segments) {
		return fmt.Errorf("audit: %d segments of %d asked for: %w", len(a.Segments), len(t.segments), seal.ErrProof)
	}
	for i, s := range a.Segments {
		if err := s.Proof.Verify(k.Root, seal.SegmentCount(k.Bytes), int(t.segments[i]), s.Bytes); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
	return nil
}
