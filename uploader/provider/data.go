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

// writebackEvery is after how many segments the disk is set to work, so that little is left to sync.
const writebackEvery = 16

// data takes segments. With the last one the chunk is verified, and the state that leads to is stored.
func (p *Provider) data(ctx context.Context, from peer.ID, q *seal.Data, r *seal.Reader, c *conn) (*seal.DataAnswer, error) {
	h, _, err := p.findLink(from, q.Link)
	if err != nil {
		return nil, err
	}
	t := &transfer{p: p, h: h, c: c, link: q.Link}
	defer p.drop(h)
	err = t.begin()
	whole := err == nil && h.rec.Whole
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if whole {
		return &seal.DataAnswer{}, nil
	}
	if err := t.receive(ctx, r); err != nil {
		return nil, errors.Join(err, t.end(ctx, false))
	}
	if err := t.end(ctx, true); err != nil {
		return nil, err
	}
	return t.answer()
}

// transfer is one stream of segments. Several may feed the same copy: what they write is the same.
type transfer struct {
	p    *Provider
	h    *held
	c    *conn
	f    file
	m    *seal.Map
	link seal.LinkID
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
	t.f, err = t.p.open(t.h)
	return err
}

// receive takes segments until the writer ends them.
func (t *transfer) receive(ctx context.Context, r *seal.Reader) error {
	buf := new(seal.SegmentBuffer)
	saved, fresh := time.Now(), 0
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
		isNew, err := t.take(i, segment)
		if err != nil {
			return err
		}
		if isNew {
			fresh++
		}
		if fresh%writebackEvery == 0 {
			t.f.Writeback()
		}
		if time.Since(saved) >= t.p.cfg.saveEvery {
			if err := t.end(ctx, false); err != nil {
				return err
			}
			saved = time.Now()
			t.c.rearm()
		}
	}
}

// take checks one segment and writes it to its place.
func (t *transfer) take(i int, segment []byte) (fresh bool, err error) {
	if err := t.m.CheckSegment(i, segment); err != nil {
		t.p.counts.badSegments.Add(1)
		return false, seal.Refuse(seal.RefusedMismatch, "%v", err)
	}
	if has, err := t.has(i); has || err != nil {
		return false, err
	}
	if _, err := t.f.WriteAt(segment, int64(i)*seal.SegmentBytes); err != nil {
		return false, fmt.Errorf("write segment: %w", err)
	}
	t.p.counts.received.Add(int64(len(segment)))
	t.h.mu.Lock()
	defer t.h.mu.Unlock()
	t.h.have.Set(i)
	t.h.touched = t.p.now()
	return true, t.p.step("segment")
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
		return t.p.complete(ctx, t.h)
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
