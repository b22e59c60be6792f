package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// A voucher says how much was paid in all, not for what. So its growth is the writer's credit, and the
// credit pays links. Before a voucher is taken it is written down how much the till had received: if
// the process ends between the till's commit and ours, the difference is found afterwards.

// updateWriter changes a writer's record in a transaction.
func (p *Provider) updateWriter(txn *badger.Txn, writer peer.ID, fn func(w *pb.Writer) error) error {
	var w pb.Writer
	if _, err := get(txn, p.writerKey(writer), &w); err != nil {
		return err
	}
	if err := fn(&w); err != nil {
		return err
	}
	return put(txn, p.writerKey(writer), &w)
}

func (p *Provider) writer(writer peer.ID) (*pb.Writer, error) {
	w := &pb.Writer{}
	err := p.cfg.DB.View(func(txn *badger.Txn) error {
		_, err := get(txn, p.writerKey(writer), w)
		return err
	})
	return w, err
}

// openChannel remembers that a writer can pay. Who has no link here leaves nothing behind.
func (p *Provider) openChannel(ctx context.Context, from peer.ID, q *seal.OpenChannel) error {
	if p.cfg.Till == nil {
		return nil // nothing will have to be paid
	}
	if err := p.cfg.Till.Channel(ctx, from, q.Channel); err != nil {
		if finished(ctx, err) {
			return err
		}
		return seal.Refuse(seal.RefusedNoChannel, "%v", err)
	}
	defer p.locks.lock(from)()
	return p.commit(func(txn *badger.Txn) error {
		if !p.hasLinks(txn, from) {
			return nil
		}
		return p.updateWriter(txn, from, func(w *pb.Writer) error { w.Channel = q.Channel[:]; return nil })
	})
}

func (p *Provider) hasLinks(txn *badger.Txn, writer peer.ID) (has bool) {
	_ = each(txn, p.key(tagLink, peerPart(writer)), false, func(*badger.Item, []byte) (bool, error) {
		has = true
		return false, nil
	})
	return has
}

// needChannel refuses unless a channel from the writer is known.
func (p *Provider) needChannel(from peer.ID) error {
	w, err := p.writer(from)
	if err == nil && len(w.Channel) == 0 {
		err = seal.Refuse(seal.RefusedNoChannel, "no payment channel of yours is known here")
	}
	return err
}

// voucher takes a payment for a link that is pledged.
func (p *Provider) voucher(ctx context.Context, from peer.ID, q *seal.Voucher) error {
	defer p.locks.lock(from)()
	h, l, err := p.findLink(from, q.Link)
	if err != nil {
		return err
	}
	p.leave(h)
	if len(l.Pledge) == 0 {
		return seal.Refuse(seal.RefusedNotStored, "nothing is pledged yet, and nothing is to be paid")
	}
	if p.cfg.Till == nil {
		return nil
	}
	if err := p.accept(ctx, from, q.Voucher); err != nil {
		return err
	}
	if err := p.pay(h.id, q.Link); err != nil {
		return err
	}
	return p.sync()
}

// accept turns a voucher into credit. The writer's lock is held.
func (p *Provider) accept(ctx context.Context, from peer.ID, voucher []byte) error {
	if err := p.settleVoucher(ctx, from); err != nil {
		return err
	}
	before, err := p.cfg.Till.Received(ctx, from)
	if err != nil {
		return fmt.Errorf("ask for what was received: %w", err)
	}
	err = p.commit(func(txn *badger.Txn) error {
		return p.updateWriter(txn, from, func(w *pb.Writer) error {
			w.Accepting, w.ReceivedBefore = true, before
			return nil
		})
	})
	if err == nil {
		err = p.sync()
	}
	if err == nil {
		err = p.step("accept")
	}
	if err != nil {
		return err
	}
	grew, err := p.cfg.Till.Accept(ctx, from, voucher)
	if err != nil {
		return errors.Join(refusedVoucher(err), p.settleVoucher(context.WithoutCancel(ctx), from))
	}
	if err := p.step("accepted"); err != nil {
		return err
	}
	return p.credit(from, grew)
}

// refusedVoucher tells what is wrong with a voucher from what is wrong here.
func refusedVoucher(err error) error {
	for _, e := range []error{payment.ErrNoChannel, payment.ErrClosed, payment.ErrParty, payment.ErrTerms} {
		if errors.Is(err, e) {
			return seal.Refuse(seal.RefusedNoChannel, "%v", err)
		}
	}
	for _, e := range []error{payment.ErrSignature, payment.ErrVoucher, payment.ErrDeposit, payment.ErrMalformed, payment.ErrOverflow, payment.ErrKey} {
		if errors.Is(err, e) {
			return seal.Refuse(seal.RefusedMismatch, "%v", err)
		}
	}
	if errors.Is(err, payment.ErrLimit) {
		return seal.Refuse(seal.RefusedLimit, "%v", err)
	}
	return fmt.Errorf("take voucher: %w", err)
}

// credit ends the taking of a voucher.
func (p *Provider) credit(writer peer.ID, grew uint64) error {
	return p.commit(func(txn *badger.Txn) error {
		return p.updateWriter(txn, writer, func(w *pb.Writer) error {
			w.Credit = addPrice(w.Credit, grew)
			w.Accepting, w.ReceivedBefore = false, 0
			return nil
		})
	})
}

// addPrice adds and stays within what a price can be.
func addPrice(a, b uint64) uint64 {
	if a > seal.MaxPrice || b > seal.MaxPrice-a {
		return seal.MaxPrice
	}
	return a + b
}

// settleVoucher finds out what became of a voucher whose taking was cut off. The writer's lock is held.
func (p *Provider) settleVoucher(ctx context.Context, writer peer.ID) error {
	w, err := p.writer(writer)
	if err != nil || !w.Accepting || p.cfg.Till == nil {
		return err
	}
	now, err := p.cfg.Till.Received(ctx, writer)
	if err != nil {
		return fmt.Errorf("ask for what was received: %w", err)
	}
	return p.credit(writer, now-min(now, w.ReceivedBefore))
}

// settleVouchers does so for all writers, before anything is served: what else would be received now
// could not be told from it.
func (p *Provider) settleVouchers() error {
	var cut []peer.ID
	err := p.eachWriter(func(id peer.ID, w *pb.Writer) {
		if w.Accepting {
			cut = append(cut, id)
		}
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, id := range cut {
		if err := p.settleVoucher(ctx, id); err != nil {
			p.log.Warn("settle a payment that was cut off", keyPeer, id, keyError, err) // the next voucher tries again
		}
	}
	return nil
}

func (p *Provider) eachWriter(fn func(id peer.ID, w *pb.Writer)) error {
	return p.cfg.DB.View(func(txn *badger.Txn) error {
		return each(txn, p.key(tagWriter), true, func(item *badger.Item, rest []byte) (bool, error) {
			var w pb.Writer
			if err := decode(item, &w); err != nil {
				return false, err
			}
			if len(rest) < 2 || len(rest) != 1+int(rest[0]) {
				return false, fmt.Errorf("writer of %d bytes", len(rest))
			}
			fn(peer.ID(rest[1:]), &w)
			return true, nil
		})
	})
}

// errCredit says that a writer's credit does not pay a link.
var errCredit = errors.New("credit does not cover the price")

// pay pays a link out of the writer's credit, once. Errors that wrap errCredit are refusals too. The
// writer's lock is held.
func (p *Provider) pay(id copyID, link seal.LinkID) error {
	h, err := p.use(id)
	if err != nil {
		return err
	}
	defer p.leave(h)
	return p.payLink(h, link)
}

func (p *Provider) payLink(h *held, id seal.LinkID) error {
	l := linkOf(h.rec, id)
	if l == nil {
		return unknownLink(id)
	}
	if l.Paid {
		return nil
	}
	w, err := p.writer(writerOf(h.rec))
	if err != nil {
		return err
	}
	if w.Credit < l.Price {
		return errors.Join(errCredit, seal.Refuse(seal.RefusedPrice, "%d of %d is paid", w.Credit, l.Price))
	}
	err = p.change(h, func(r *pb.Copy) { linkOf(r, id).Paid = true }, func(txn *badger.Txn) error {
		return p.updateWriter(txn, writerOf(h.rec), func(w *pb.Writer) error {
			if w.Credit < l.Price {
				return errCredit
			}
			w.Credit -= l.Price
			w.Earned = addPrice(w.Earned, l.Price)
			return nil
		})
	})
	if err == nil {
		p.counts.paid.Add(1)
	}
	return err
}
