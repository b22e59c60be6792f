package provider

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// release ends all links of the writer's chunk. One that is gone already is no error.
func (p *Provider) release(from peer.ID, q *seal.Release) error {
	defer p.locks.lock(from)()
	ids, err := p.copiesOf(q.Chunk, from)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		if err := p.whyGone(from, q.Chunk); isUnknown(err) {
			return err
		}
		return nil
	}
	for _, id := range ids {
		if err := p.releaseCopy(id); err != nil {
			return err
		}
	}
	return p.sync()
}

func (p *Provider) releaseCopy(id copyID) error {
	h, err := p.use(id)
	if err != nil {
		return err
	}
	defer p.leave(h)
	return p.endAll(h, seal.RefusedNotStored)
}

// whyGone is why a writer's chunk is not here, as a refusal.
func (p *Provider) whyGone(writer peer.ID, chunk cid.Cid) error {
	var n pb.Notice
	found := false
	if chunk.ByteLen() > 255 {
		return seal.Refuse(seal.RefusedUnknownLink, "no link of yours is about %s", chunk)
	}
	err := p.cfg.DB.View(func(txn *badger.Txn) (err error) {
		found, err = get(txn, p.noticeKey(writer, chunk), &n)
		return err
	})
	switch {
	case err != nil:
		return err
	case found:
		return seal.Refuse(seal.RefusalCode(n.Code), "%s", endText(seal.RefusalCode(n.Code)))
	}
	return seal.Refuse(seal.RefusedUnknownLink, "no link of yours is about %s", chunk)
}

func endText(code seal.RefusalCode) string {
	switch code {
	case seal.RefusedUnpaid:
		return "the pledge was not paid in time, the chunk was dropped"
	case seal.RefusedExpiry:
		return "the link has expired"
	}
	return "the link has ended"
}

// endAll ends every link of a copy. The copy's lock is held.
func (p *Provider) endAll(h *held, code seal.RefusalCode) error {
	return p.endLinks(h, func(*pb.Link) (bool, seal.RefusalCode) { return true, code })
}

// endLinks ends the links that which says, for the reason it says, and erases the copy with the last
// one. Those that had a pledge leave a tombstone. The copy's lock is held.
func (p *Provider) endLinks(h *held, which func(l *pb.Link) (bool, seal.RefusalCode)) error {
	if h.rec == nil {
		return nil
	}
	var ended []ending
	var left []*pb.Link
	for _, l := range h.rec.Links {
		end, code := which(l)
		if !end {
			left = append(left, l)
			continue
		}
		e := ending{id: seal.LinkID(l.Id)}
		if len(l.Pledge) > 0 {
			forget := max(l.Expiry, p.now().Unix()) + int64(p.cfg.Limits.KeepTombstones.Seconds())
			if code == 0 {
				code = seal.RefusedNotStored
			}
			e.ref = &pb.LinkRef{Code: uint32(code), Forget: forget, Chunk: h.rec.Chunk}
		}
		ended = append(ended, e)
	}
	if len(ended) > 0 {
		err := p.change(h, func(r *pb.Copy) { r.Links, r.Deleting = left, len(left) == 0 }, nil, ended...)
		if err != nil {
			return err
		}
		p.counts.ended.Add(int64(len(ended)))
	}
	if !h.rec.Deleting {
		return nil
	}
	return p.erase(h)
}

// erase removes a copy that no link needs: index, file, record. What fails is done again by Run. The
// copy's lock is held.
func (p *Provider) erase(h *held) error {
	if h.rec.Indexing {
		if err := p.unindex(h); err != nil {
			return err
		}
	}
	if err := p.sync(); err != nil { // a record that needs the file must not come back without it
		return err
	}
	if err := p.step("remove"); err != nil {
		return err
	}
	if err := p.folder.Remove(h.id.name()); err != nil && !isMissing(err) {
		return fmt.Errorf("remove chunk file: %w", err)
	}
	rec := h.rec
	chunk, err := chunkOf(rec)
	if err != nil {
		return err
	}
	err = p.commitEnd(func(txn *badger.Txn) error {
		return errors.Join(txn.Delete(p.copyKey(h.id)), txn.Delete(p.dueKey(dueOf(rec), h.id)),
			txn.Delete(p.chunkKey(chunk, writerOf(rec), h.id)))
	})
	if err != nil {
		h.stale = true
		return err
	}
	h.rec = nil
	p.books.move(writerOf(rec), shareOf(rec), share{})
	p.table.kill(h)
	return nil
}

// unindex removes the index entries of a copy. Where the descriptor can't be read they stay, and go one
// by one when they are met.
func (p *Provider) unindex(h *held) error {
	f, err := p.open(h)
	if err == nil {
		var chunk erasure.Chunk
		if chunk, err = readChunk(f, h.rec); err == nil {
			return p.removeBlocks(h.id, chunk)
		}
	}
	if isMissing(err) || errors.Is(err, errDamaged) {
		return nil
	}
	return err
}

func (p *Provider) removeBlocks(id copyID, chunk erasure.Chunk) error {
	for len(chunk) > 0 {
		part := chunk[:min(len(chunk), batchBlocks)]
		chunk = chunk[len(part):]
		err := p.commitEnd(func(txn *badger.Txn) error {
			for _, s := range part {
				if err := txn.Delete(p.blockKey(s.CID.Hash(), id)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
