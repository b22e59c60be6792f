package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// saveEvery is how often, while segments come, the file is synced and the bitmap committed: a crash costs
// what came in that time.
const saveEvery = 2 * time.Second

// batchSegments is how many segments that lie one after the other are written at once.
const batchSegments = 16

// maxBatches is how many transfers write in such batches at a time. Others write each segment.
const maxBatches = 16

// data takes segments. With the last one the chunk is verified, and the state that leads to is stored.
func (p *Provider) data(ctx context.Context, from peer.ID, q *seal.Data, r *seal.Reader, c *conn) (*seal.DataAnswer, error) {
	h, _, err := p.findLink(from, q.Link)
	if err != nil {
		return nil, err
	}
	t := &transfer{p: p, h: h, c: c, link: q.Link}
	defer p.drop(h)
	defer t.release()
	err = t.begin()
	whole := err == nil && h.rec.Whole
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if whole {
		return &seal.DataAnswer{}, nil
	}
	err = t.receive(ctx, r)
	if err = errors.Join(err, t.write()); err != nil {
		return nil, errors.Join(err, t.end(ctx, false))
	}
	if err := t.end(ctx, true); err != nil {
		return nil, err
	}
	return t.answer()
}

// transfer is one stream of segments. Several may feed the same copy: what they write is the same.
type transfer struct {
	p       *Provider
	h       *held
	c       *conn
	f       file
	m       *seal.Map
	link    seal.LinkID
	batch   *batch   // nil until the first segment
	checker *checker // nil where blocks can't be checked as they come
}

// batch is segments on their way to the file.
type batch struct {
	bytes []byte // room for batchSegments of them, or for one
	first int    // of the segments in it
	n     int
	used  int // bytes
}

func newBatch() any { return &batch{bytes: alignedBuffer(batchSegments * seal.SegmentBytes)} }

// takeBatch gives the transfer a batch; when there are enough of them, one of a single segment: streams may come in
// numbers and then stall.
func (t *transfer) takeBatch() *batch {
	if t.p.batching.TryAcquire(1) {
		t.batch = t.p.batches.Get().(*batch)
	} else {
		t.batch = &batch{bytes: alignedBuffer(seal.SegmentBytes)}
	}
	t.batch.n, t.batch.used = 0, 0
	return t.batch
}

// release gives the batch back.
func (t *transfer) release() {
	if t.batch != nil && len(t.batch.bytes) > seal.SegmentBytes {
		t.p.batches.Put(t.batch)
		t.p.batching.Release(1)
	}
	t.batch = nil
}

// begin is called with the copy's lock held.
func (t *transfer) begin() error {
	if err := t.p.trust(t.h); err != nil {
		return err
	}
	switch r := t.h.rec; {
	case len(r.Root) == 0:
		return seal.Refuse(seal.RefusedNotStored, "no segment map of the link is here yet")
	case r.Damaged:
		return seal.Refuse(seal.RefusedNotStored, "the chunk was damaged here")
	case r.Whole:
		return nil
	}
	var err error
	if t.m, err = t.p.readMap(t.h); errors.Is(err, errDamaged) || isMissing(err) {
		if err := t.p.distrust(t.h); err != nil {
			return err
		}
		if err := t.p.trust(t.h); err != nil { // it ends the link, as nothing is signed for it
			return err
		}
		return errDamaged
	}
	if err != nil {
		return err
	}
	if t.f, err = t.p.open(t.h); err != nil {
		return err
	}
	if t.h.have.Count() == 0 {
		t.checker = newChecker(t.f, t.h.rec)
	}
	return nil
}

// receive takes segments until the writer ends them.
func (t *transfer) receive(ctx context.Context, r *seal.Reader) error {
	buf := new(seal.SegmentBuffer)
	saved := time.Now()
	for n := 0; ; n++ {
		i, segment, err := r.ReadSegment(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if errors.Is(err, seal.ErrMalformed) {
				return err
			}
			return &cutOff{errors.Join(err, ctx.Err())}
		}
		if n >= 2*len(t.m.Segments) {
			return seal.Refuse(seal.RefusedMismatch, "segments come again and again")
		}
		if err := t.take(i, segment); err != nil {
			return err
		}
		if time.Since(saved) >= t.p.cfg.saveEvery {
			if err := t.write(); err != nil {
				return err
			}
			if err := t.end(ctx, false); err != nil {
				return err
			}
			saved = time.Now()
			t.c.rearm()
		}
	}
}

// take checks one segment, and writes it to its place with those before it when they are enough.
func (t *transfer) take(i int, segment []byte) error {
	if err := t.m.CheckSegment(i, segment); err != nil {
		t.p.counts.badSegments.Add(1)
		return seal.Refuse(seal.RefusedMismatch, "%v", err)
	}
	t.checker.take(i, segment)
	b := t.batch
	if b == nil {
		b = t.takeBatch()
	}
	if b.n > 0 && i != b.first+b.n {
		if err := t.write(); err != nil {
			return err
		}
	}
	if has, err := t.has(i); has || err != nil {
		return err
	}
	if b.n == 0 {
		b.first = i
	}
	b.used += copy(b.bytes[b.used:], segment)
	b.n++
	if b.used+seal.SegmentBytes > len(b.bytes) {
		return t.write()
	}
	return nil
}

// write brings the batch to the file. After an error what was not written of it is missing.
func (t *transfer) write() error {
	b := t.batch
	if b == nil || b.n == 0 {
		return nil
	}
	first, n := b.first, b.n
	written, err := t.f.WriteAt(b.bytes[:b.used], int64(first)*seal.SegmentBytes)
	b.n, b.used = 0, 0
	if err != nil {
		n = written / seal.SegmentBytes
		err = fmt.Errorf("write segments: %w", err)
	}
	t.f.Writeback()
	t.p.counts.received.Add(int64(written))
	t.h.mu.Lock()
	defer t.h.mu.Unlock()
	t.h.touched = t.p.now()
	for i := first; i < first+n; i++ {
		t.h.have.Set(i)
		if err := t.p.step("segment"); err != nil {
			return err
		}
	}
	return err
}

// has says whether a segment is here already. The link may have ended meanwhile.
func (t *transfer) has(i int) (bool, error) {
	t.h.mu.Lock()
	defer t.h.mu.Unlock()
	if err := t.p.refresh(t.h); err != nil {
		return false, err
	}
	if linkOf(t.h.rec, t.link) == nil {
		return false, unknownLink(t.link)
	}
	return t.h.have.Has(i), nil
}

// end makes what came durable; where that is all, and verify is set, it is verified too.
func (t *transfer) end(ctx context.Context, verify bool) error {
	if err := t.settle(ctx, verify); err != nil {
		return err
	}
	return t.p.sync()
}

func (t *transfer) settle(ctx context.Context, verify bool) error {
	t.h.mu.Lock()
	defer t.h.mu.Unlock()
	if err := t.p.refresh(t.h); err != nil {
		return err
	}
	if linkOf(t.h.rec, t.link) == nil {
		return unknownLink(t.link)
	}
	if t.h.rec.Whole {
		return nil
	}
	if verify && t.h.have.Count() == segmentsOf(t.h.rec) {
		return t.p.complete(ctx, t.h, t.checker.checked())
	}
	return t.p.save(t.h)
}

func (t *transfer) answer() (*seal.DataAnswer, error) {
	t.h.mu.Lock()
	defer t.h.mu.Unlock()
	if linkOf(t.h.rec, t.link) == nil {
		return nil, unknownLink(t.link)
	}
	if t.h.rec.Whole {
		return &seal.DataAnswer{}, nil
	}
	return &seal.DataAnswer{Missing: t.h.have.Missing(segmentsOf(t.h.rec))}, nil
}

// save syncs the file and then commits which segments it has. The copy's lock is held.
func (p *Provider) save(h *held) error {
	if h.have == haveOf(h.rec) {
		return nil
	}
	if err := p.syncFile(h); err != nil {
		return err
	}
	have := h.have
	return p.change(h, func(r *pb.Copy) {
		r.Have = have[:]
		p.progress(r, h.touched)
	}, nil)
}

// syncFile brings a copy's file and name to the disk. After a failure nobody knows what the file has
// of the segments since the last time, so they are missing.
func (p *Provider) syncFile(h *held) error {
	f, err := p.open(h)
	if err != nil {
		return err
	}
	if err := p.step("sync file"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		h.have = haveOf(h.rec)
		return fmt.Errorf("sync chunk file: %w", err)
	}
	return p.syncNames(h)
}

// progress moves the deadlines of links that are not pledged: something came.
func (p *Provider) progress(r *pb.Copy, at time.Time) {
	for _, l := range r.Links {
		if len(l.Pledge) == 0 {
			l.Deadline = max(l.Deadline, at.Add(p.cfg.ReserveFor).Unix())
		}
	}
}
