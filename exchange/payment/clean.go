package payment

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// clean forgets closed channels that are old or too many, once an hour refs, budgets and days.
func (a *Accounts) clean() error {
	if err := a.cleanChannels(); err != nil {
		return fmt.Errorf("forget closed channels: %w", err)
	}
	now := a.now()
	if last := a.cleaned.Load(); last != 0 && now-last < int64(time.Hour/time.Second) && now >= last {
		return nil
	}
	if err := a.cleanRefs(); err != nil {
		return fmt.Errorf("forget refs: %w", err)
	}
	if err := a.cleanSpending(); err != nil {
		return fmt.Errorf("forget budgets: %w", err)
	}
	a.cleaned.Store(now)
	return nil
}

// closedRef is a closed channel's place.
type closedRef struct {
	tag  byte
	peer peer.ID
	id   ChannelID
	at   int64
}

func (a *Accounts) cleanChannels() error {
	var closed []closedRef
	err := a.cfg.DB.View(func(txn *badger.Txn) error {
		for _, tag := range []byte{tagOut, tagIn} {
			err := a.channels(txn, tag, "", func(e entry) error {
				if !live(e.rec) {
					closed = append(closed, closedRef{e.tag, e.peer, e.id, e.rec.Closed})
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.closed.Store(int64(len(closed)))
	slices.SortFunc(closed, func(x, y closedRef) int { return cmp.Compare(y.at, x.at) })
	oldest := a.now() - int64(a.cfg.Limits.KeepClosed/time.Second)
	for i, c := range closed {
		if i >= a.cfg.Limits.Closed || c.at < oldest {
			if err := a.forgetClosed(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetClosed drops a closed channel, and with a peer's last channel its sums.
func (a *Accounts) forgetClosed(c closedRef) error {
	return a.update(func(txn *badger.Txn) error {
		others := false
		err := a.channels(txn, c.tag, c.peer, func(e entry) error {
			others = others || e.id != c.id
			return nil
		})
		if err != nil {
			return err
		}
		if err := txn.Delete(a.channelKey(c.tag, c.peer, c.id)); err != nil || others {
			return err
		}
		// Read, so that a payment or an opening that comes between makes this one run again.
		if _, err := get(txn, a.peerKey(totalsTag(c.tag), c.peer), &pb.Totals{}); err != nil {
			return err
		}
		return txn.Delete(a.peerKey(totalsTag(c.tag), c.peer))
	})
}

// keysPerTxn keeps the transactions small in which keys are dropped.
const keysPerTxn = 1000

// drop deletes the keys of a tag whose entry is old, and returns how many entries stay.
func (a *Accounts) drop(tag byte, old func(item *badger.Item) (bool, error)) (kept int64, err error) {
	var keys [][]byte
	flush := func() error {
		for batch := range slices.Chunk(keys, keysPerTxn) {
			err := a.update(func(txn *badger.Txn) error {
				for _, k := range batch {
					if item, err := txn.Get(k); err != nil {
						continue // dropped meanwhile
					} else if is, err := old(item); err != nil || !is {
						continue // written anew meanwhile
					}
					if err := txn.Delete(k); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		keys = keys[:0]
		return nil
	}
	err = a.cfg.DB.View(func(txn *badger.Txn) error {
		return a.each(txn, a.key(tag), true, func(item *badger.Item) error {
			is, err := old(item)
			if err != nil {
				return err
			}
			if !is {
				kept++
				return nil
			}
			if keys = append(keys, item.KeyCopy(nil)); len(keys) >= 16*keysPerTxn {
				return flush()
			}
			return nil
		})
	})
	if err != nil {
		return kept, err
	}
	return kept, flush()
}

func (a *Accounts) cleanRefs() error {
	oldest := a.now() - int64(a.cfg.Limits.RefLife/time.Second)
	before := a.refs.Load()
	kept, err := a.drop(tagRef, func(item *badger.Item) (bool, error) {
		var p pb.Paid
		err := decode(item, &p)
		return p.At < oldest, err
	})
	if err == nil {
		a.refs.Add(kept - before) // payments meanwhile have been added to the count
	}
	return err
}

func (a *Accounts) cleanSpending() error {
	oldest := a.now() - int64(a.cfg.Limits.KeepSpending/time.Second)
	_, err := a.drop(tagSpent, func(item *badger.Item) (bool, error) {
		var s pb.Spending
		err := decode(item, &s)
		everything := len(item.Key()) == len(a.cfg.Prefix)+1
		return s.Touched < oldest && !everything, err
	})
	if err != nil {
		return err
	}
	_, err = a.drop(tagDay, func(item *badger.Item) (bool, error) {
		k := item.Key()[len(a.cfg.Prefix)+1:]
		return len(k) < 4 || binary.BigEndian.Uint32(k) < dayOf(oldest), nil
	})
	return err
}
