package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// serveAudit answers segments of a pledged chunk, which may take more memory than other answers.
func (p *Provider) serveAudit(ctx context.Context, from peer.ID, q *seal.Audit, c *conn) error {
	if !p.memory.TryAcquire(maxWorkBytes) { // waiting could be for one who waits as well
		return p.reply(c, nil, seal.Refuse(seal.RefusedBusy, "too many audits at once"))
	}
	defer p.memory.Release(maxWorkBytes)
	a, err := p.audit(ctx, from, q)
	return p.reply(c, a, err)
}

func (p *Provider) audit(ctx context.Context, from peer.ID, q *seal.Audit) (*seal.AuditAnswer, error) {
	h, err := p.pledgedCopy(ctx, from, q.Chunk)
	if err != nil {
		return nil, err
	}
	defer p.leave(h)
	p.counts.audits.Add(1)
	m, err := p.readMap(h)
	if err == nil {
		var f file
		if f, err = p.open(h); err == nil {
			a := &seal.AuditAnswer{Nonce: q.Nonce}
			if a.Segments, err = prove(f, m, q.Segments); err == nil {
				return a, nil
			}
		}
	}
	if isMissing(err) || errors.Is(err, errDamaged) {
		return nil, errors.Join(seal.Refuse(seal.RefusedNotStored, "the chunk was damaged here"), p.damaged(h, err))
	}
	return nil, err
}

// prove reads segments, hashes them and makes their proofs.
func prove(f file, m *seal.Map, wanted []uint32) ([]seal.Proven, error) {
	var all []seal.Proven
	for _, i := range wanted {
		i := int(i)
		if i >= len(m.Segments) {
			return nil, seal.Refuse(seal.RefusedMismatch, "segment %d of %d", i, len(m.Segments))
		}
		b := make([]byte, seal.SegmentLen(m.Bytes, i))
		if err := readAll(f, b, int64(i)*seal.SegmentBytes); err != nil {
			return nil, fmt.Errorf("read segment %d: %w", i, err)
		}
		if err := m.CheckSegment(i, b); err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		all = append(all, seal.Proven{Bytes: b, Proof: m.Prove(i)})
	}
	return all, nil
}

// damaged marks a copy, whose lock is held: nothing more is promised about it. Blocks that are still
// right are served on.
func (p *Provider) damaged(h *held, why error) error {
	p.counts.damagedSegments.Add(1)
	if h.rec == nil || h.rec.Damaged || h.rec.Deleting {
		return nil
	}
	p.log.Warn("chunk is damaged", keyChunk, h.id.name(), keyError, why)
	return p.change(h, func(r *pb.Copy) { r.Damaged = true }, nil)
}
