package provider

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// tendBatch is how many copies are looked at with one read of what is due.
const tendBatch = 256

// tend looks at every copy that is due, and forgets tombstones whose time has come.
func (p *Provider) tend(ctx context.Context) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.exit()
	for ctx.Err() == nil {
		ids, err := p.due(p.now().Unix())
		if err != nil {
			return err
		}
		moved := 0
		for _, id := range ids {
			switch err := p.tendCopy(ctx, id); {
			case err == nil:
				moved++
			case ctx.Err() != nil:
				return ctx.Err()
			default:
				p.log.Warn("end links that are due", keyChunk, id.name(), keyError, err)
			}
		}
		if moved == 0 || len(ids) < tendBatch {
			break
		}
	}
	return p.forgetTombstones()
}

// due returns copies whose time has come, the earliest first.
func (p *Provider) due(now int64) (ids []copyID, err error) {
	err = p.cfg.DB.View(func(txn *badger.Txn) error {
		return each(txn, p.key(tagDue), false, func(_ *badger.Item, rest []byte) (bool, error) {
			if len(rest) != 8+len(copyID{}) {
				return false, fmt.Errorf("due entry of %d bytes", len(rest))
			}
			if int64(binary.BigEndian.Uint64(rest)) > now {
				return false, nil
			}
			ids = append(ids, copyID(rest[8:]))
			return len(ids) < tendBatch, nil
		})
	})
	return ids, err
}

// tendCopy ends what is to end of one copy.
func (p *Provider) tendCopy(ctx context.Context, id copyID) error {
	rec, err := p.lookAt(id)
	if err != nil || rec == nil {
		return err
	}
	defer p.locks.lock(writerOf(rec))()
	h, err := p.use(id)
	if err != nil {
		return err
	}
	defer p.leave(h)
	if h.rec == nil {
		return nil
	}
	if h.rec.Deleting {
		return p.erase(h)
	}
	now := p.now()
	if err := p.payLate(ctx, h, now); err != nil {
		return err
	}
	if err := p.extend(h, now); err != nil {
		return err
	}
	return p.endLinks(h, func(l *pb.Link) (bool, seal.RefusalCode) { return lapsed(l, now.Unix()) })
}

// lapsed says whether a link ends now, and why.
func lapsed(l *pb.Link, now int64) (bool, seal.RefusalCode) {
	switch {
	case len(l.Pledge) == 0:
		return now >= min(l.Deadline, l.GiveUp) || now >= l.Expiry, 0
	case now >= l.Expiry:
		return true, seal.RefusedExpiry
	case !l.Paid && now >= l.PayBy:
		return true, seal.RefusedUnpaid
	}
	return false, 0
}

// payLate pays links whose grace ends now out of the credit that other vouchers of the writer left.
func (p *Provider) payLate(ctx context.Context, h *held, now time.Time) error {
	for _, l := range h.rec.Links {
		end, why := lapsed(l, now.Unix())
		if !end || why != seal.RefusedUnpaid {
			continue
		}
		if err := p.settleVoucher(ctx, writerOf(h.rec)); err != nil {
			return err // nothing is dropped before it is known what was paid
		}
		if err := p.payLink(h, seal.LinkID(l.Id)); err != nil && !errors.Is(err, errCredit) {
			return err
		}
		if err := p.refresh(h); err != nil || h.rec == nil {
			return err
		}
	}
	return nil
}

// extend writes down deadlines that segments moved since the record was committed.
func (p *Provider) extend(h *held, now time.Time) error {
	if h.rec == nil || h.touched.IsZero() || !h.touched.Add(p.cfg.ReserveFor).After(now) {
		return nil
	}
	return p.change(h, func(r *pb.Copy) { p.progress(r, h.touched) }, nil)
}

// forgetTombstones removes those whose time has come, and the first of those over the limit.
func (p *Provider) forgetTombstones() error {
	now := p.now().Unix()
	for {
		over := p.tombstones.Load() - int64(p.cfg.Limits.Tombstones)
		keys, err := p.oldTombstones(now, over)
		if err != nil || len(keys) == 0 {
			return err
		}
		err = p.commitEnd(func(txn *badger.Txn) error {
			for _, k := range keys {
				if err := p.forgetTombstone(txn, k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		p.tombstones.Add(-int64(len(keys)))
	}
}

func (p *Provider) oldTombstones(now, over int64) (keys [][]byte, err error) {
	err = p.cfg.DB.View(func(txn *badger.Txn) error {
		return each(txn, p.key(tagForget), false, func(item *badger.Item, rest []byte) (bool, error) {
			if len(rest) < 8 || int64(binary.BigEndian.Uint64(rest)) > now && int64(len(keys)) >= over {
				return false, nil
			}
			keys = append(keys, item.KeyCopy(nil))
			return len(keys) < tendBatch, nil
		})
	})
	return keys, err
}

// forgetTombstone removes what an entry of the time index names: the link, and the chunk's notice if
// nothing later wrote one.
func (p *Provider) forgetTombstone(txn *badger.Txn, key []byte) error {
	who := key[len(p.cfg.Prefix)+1+8:] // writer behind its length, then the link
	link := p.key(tagLink, who)
	var ref pb.LinkRef
	found, err := get(txn, link, &ref)
	if err != nil {
		return err
	}
	if found && len(ref.Copy) == 0 {
		notice := p.key(tagNotice, who[:len(who)-len(seal.LinkID{})], sized(ref.Chunk))
		var n pb.Notice
		if has, err := get(txn, notice, &n); err != nil {
			return err
		} else if has && n.Forget <= ref.Forget {
			if err := txn.Delete(notice); err != nil {
				return err
			}
		}
		if err := txn.Delete(link); err != nil {
			return err
		}
	}
	return txn.Delete(key)
}

// sweepWriters forgets writers that nothing was earned from and that have no links.
func (p *Provider) sweepWriters() error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.exit()
	var idle []peer.ID
	err := p.eachWriter(func(id peer.ID, w *pb.Writer) {
		if w.Earned == 0 && w.Credit == 0 && !w.Accepting {
			idle = append(idle, id)
		}
	})
	if err != nil {
		return err
	}
	for _, id := range idle {
		if err := p.sweepWriter(id); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) sweepWriter(id peer.ID) error {
	defer p.locks.lock(id)()
	return p.commitEnd(func(txn *badger.Txn) error {
		if p.hasLinks(txn, id) {
			return nil
		}
		return txn.Delete(p.writerKey(id))
	})
}
