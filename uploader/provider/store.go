package provider

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// What a copy costs beside its bytes, map and descriptor.
const (
	copyCost  = 4 << 10 // records, and the rest of the last block of the file
	shardCost = 160     // an index entry
)

// costOf returns the bytes of the quota that a chunk takes.
func costOf(bytes int64, descriptor, shards int) int64 {
	return bytes + 32*int64(seal.SegmentCount(bytes)) + int64(descriptor) + shardCost*int64(shards) + copyCost
}

// minDirFree stays free on the disk of the chunks.
const minDirFree = 32 << 20

// freeBytes returns what could be agreed to at most: of the quota, and of the disk.
func (p *Provider) freeBytes() int64 {
	free := p.books.free()
	disk, err := p.folder.Free()
	if err != nil {
		p.log.Warn("ask for the disk's free space", keyError, err)
		return 0
	}
	left := int64(min(disk, math.MaxInt64/2)) - minDirFree - p.books.sums().reserved
	return max(0, min(free, left))
}

// isFull says that space is what was missing.
func isFull(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// store answers a request to keep a chunk. The state that it leads to is agreed.
func (p *Provider) store(from peer.ID, q *seal.StoreRequest) (*seal.StoreAnswer, error) {
	defer p.locks.lock(from)()
	if a, err := p.known(from, q); a != nil || err != nil {
		return a, err
	}
	if err := p.checkTerms(q.Now, q.Expiry, q.Expiry.Sub(q.Now), q.Price, q.Bytes); err != nil {
		return nil, err
	}
	chunk, err := checkDescriptor(q)
	if err != nil {
		return nil, err
	}
	ids, err := p.copiesOf(q.Chunk, from)
	if err != nil {
		return nil, err
	}
	if len(ids) >= p.cfg.Limits.CopiesPerChunk {
		return nil, seal.Refuse(seal.RefusedLimit, "%d copies of this chunk are here for one writer", len(ids))
	}
	return p.agree(from, q, len(chunk))
}

// known answers a request about a link that was heard of before.
func (p *Provider) known(from peer.ID, q *seal.StoreRequest) (*seal.StoreAnswer, error) {
	h, l, err := p.findLink(from, q.Link)
	if isUnknown(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer p.leave(h)
	r := h.rec
	if string(r.Chunk) != q.Chunk.KeyString() || r.Bytes != uint64(q.Bytes) || l.Price != q.Price || l.Expiry != q.Expiry.Unix() {
		return nil, seal.Refuse(seal.RefusedMismatch, "the link was agreed on with other terms")
	}
	switch err := p.trust(h); {
	case isUnknown(err): // what was here is lost, so the link begins anew
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &seal.StoreAnswer{Deadline: p.deadlineIn(l), Have: h.have, Stored: usable(h.rec)}, nil
}

// deadlineIn is how long a link has until it lapses.
func (p *Provider) deadlineIn(l *pb.Link) time.Duration {
	at := min(l.Deadline, l.GiveUp)
	if len(l.Pledge) > 0 {
		at = l.Expiry
	}
	return max(0, time.Unix(at, 0).Sub(p.now())).Truncate(time.Second)
}

// checkTerms refuses what this provider does not agree to: for new links, and for renewals.
func (p *Provider) checkTerms(theirs, expiry time.Time, lasts time.Duration, price uint64, bytes int64) error {
	now := p.now()
	if refusal := checkClock(theirs, now); refusal != nil {
		return refusal
	}
	if !expiry.After(now) {
		return seal.Refuse(seal.RefusedExpiry, "expiry %s is past", expiry.UTC().Format(time.RFC3339))
	}
	if last := now.Add(p.cfg.MaxExpiry + seal.MaxClockSkew); expiry.After(last) {
		return seal.Refuse(seal.RefusedExpiry, "expiry %s is later than %v from now", expiry.UTC().Format(time.RFC3339), p.cfg.MaxExpiry)
	}
	if least := seal.PriceOf(p.cfg.PricePerGiBDay, bytes, lasts); price < least {
		return seal.Refuse(seal.RefusedPrice, "price %d, at least %d is asked for", price, least)
	}
	if price > 0 && p.cfg.Till == nil {
		return seal.Refuse(seal.RefusedPrice, "nothing can be paid here, and nothing has to be")
	}
	return nil
}

// checkDescriptor returns the chunk that a request describes.
func checkDescriptor(q *seal.StoreRequest) (erasure.Chunk, error) {
	chunk, err := erasure.DecodeChunk(q.Descriptor)
	if err != nil {
		return nil, seal.Refuse(seal.RefusedMismatch, "%v", err)
	}
	id, _, err := chunk.Encode()
	if err != nil {
		return nil, seal.Refuse(seal.RefusedMismatch, "%v", err)
	}
	if !id.Equals(q.Chunk) {
		return nil, seal.Refuse(seal.RefusedMismatch, "the descriptor is that of chunk %s", id)
	}
	if chunk.Bytes() != q.Bytes {
		return nil, seal.Refuse(seal.RefusedMismatch, "the chunk has %d bytes, not %d", chunk.Bytes(), q.Bytes)
	}
	return chunk, nil
}

// agree reserves space for a new copy with one link.
func (p *Provider) agree(from peer.ID, q *seal.StoreRequest, shards int) (*seal.StoreAnswer, error) {
	now := p.now()
	rec := &pb.Copy{
		Writer: []byte(from), Chunk: q.Chunk.Bytes(), Bytes: uint64(q.Bytes), DescriptorBytes: uint32(len(q.Descriptor)),
		Shards: uint32(shards), Cost: uint64(costOf(q.Bytes, len(q.Descriptor), shards)), Epoch: p.epoch,
		Links: []*pb.Link{{Id: q.Link[:], Price: q.Price, Expiry: q.Expiry.Unix(),
			Deadline: now.Add(p.cfg.ReserveFor).Unix(), GiveUp: now.Add(p.cfg.ReceiveWithin).Unix()}},
	}
	s := shareOf(rec)
	if p.freeBytes() < s.used {
		return nil, seal.Refuse(seal.RefusedFull, "%d bytes are needed, %d are free", s.used, p.freeBytes())
	}
	if refusal := p.books.admit(from, s); refusal != nil {
		return nil, refusal
	}
	if err := p.create(q, rec); err != nil {
		p.books.move(from, s, share{})
		return nil, err
	}
	p.counts.agreed.Add(1)
	return &seal.StoreAnswer{Deadline: p.deadlineIn(rec.Links[0])}, nil
}

// create makes a copy's file and record. The descriptor is checked against the chunk's ID whenever it
// is read, so it needs no syncing; a power cut may take the agreement as a whole.
func (p *Provider) create(q *seal.StoreRequest, rec *pb.Copy) (err error) {
	var id copyID
	_, _ = rand.Read(id[:]) // never fails
	f, err := p.folder.Create(id.name())
	if err != nil {
		return fmt.Errorf("make chunk file: %w", err)
	}
	p.dirGen.Add(1)
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, p.folder.Remove(id.name()))
		}
	}()
	if _, err := f.WriteAt(q.Descriptor, descriptorAt(rec)); err != nil {
		return fmt.Errorf("write descriptor: %w", err)
	}
	return p.commit(func(txn *badger.Txn) error {
		if err := txn.Set(p.chunkKey(q.Chunk, writerOf(rec), id), nil); err != nil {
			return err
		}
		return p.putCopy(txn, id, nil, rec)
	})
}

// mapAt and descriptorAt are where a copy's file has what follows the sealed bytes.
func mapAt(r *pb.Copy) int64        { return int64(r.Bytes) }
func descriptorAt(r *pb.Copy) int64 { return int64(r.Bytes) + 32*int64(segmentsOf(r)) }

// copiesOf returns the copies of a writer's chunk.
func (p *Provider) copiesOf(chunk cid.Cid, writer peer.ID) (ids []copyID, err error) {
	if chunk.ByteLen() > 255 {
		return nil, nil
	}
	err = p.cfg.DB.View(func(txn *badger.Txn) error {
		below := p.key(tagChunk, chunkPart(chunk), peerPart(writer))
		return each(txn, below, false, func(_ *badger.Item, rest []byte) (bool, error) {
			ids = append(ids, copyID(rest))
			return true, nil
		})
	})
	return ids, err
}

// findLink returns a link and its copy, in use. Errors that wrap a refusal say that it is not here.
func (p *Provider) findLink(writer peer.ID, id seal.LinkID) (h *held, l *pb.Link, err error) {
	for range 4 { // a link may move to another copy, or end, between the two reads
		h, l, err = p.lookUpLink(writer, id)
		if err != nil || l != nil {
			return h, l, err
		}
	}
	return nil, nil, unknownLink(id)
}

// lookUpLink returns no link and no error where the copy that the link's entry names does not have it.
func (p *Provider) lookUpLink(writer peer.ID, id seal.LinkID) (*held, *pb.Link, error) {
	var ref pb.LinkRef
	found := false
	err := p.cfg.DB.View(func(txn *badger.Txn) (err error) {
		found, err = get(txn, p.linkKey(writer, id), &ref)
		return err
	})
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("find link %s: %w", id, err)
	case !found:
		return nil, nil, unknownLink(id)
	case len(ref.Copy) != len(copyID{}):
		return nil, nil, seal.Refuse(seal.RefusalCode(ref.Code), "the link has ended")
	}
	h, err := p.use(copyID(ref.Copy))
	if err != nil {
		return nil, nil, err
	}
	l := linkOf(h.rec, id)
	if l == nil {
		p.leave(h)
		return nil, nil, nil
	}
	return h, l, nil
}

func unknownLink(id seal.LinkID) error {
	return seal.Refuse(seal.RefusedUnknownLink, "no link %s of yours is here", id)
}

func isUnknown(err error) bool { return errors.Is(err, &seal.Refusal{Code: seal.RefusedUnknownLink}) }
