package provider

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// share is what one copy, or all copies of one writer, or all copies, take.
type share struct {
	used       int64 // bytes of the quota
	reserved   int64 // of these, bytes of copies that are not here in full
	agreements int   // links without a pledge
	pledges    int   // links with one
	copies     int
	whole      int // copies
	damaged    int
}

func (s *share) add(o share, sign int) {
	s.used += int64(sign) * o.used
	s.reserved += int64(sign) * o.reserved
	s.agreements += sign * o.agreements
	s.pledges += sign * o.pledges
	s.copies += sign * o.copies
	s.whole += sign * o.whole
	s.damaged += sign * o.damaged
}

// shareOf computes what a copy takes from its record; a nil record takes nothing.
func shareOf(r *pb.Copy) share {
	if r == nil {
		return share{}
	}
	s := share{used: int64(r.Cost), copies: 1}
	if r.Damaged {
		s.damaged = 1
	}
	if r.Whole {
		s.whole = 1
	} else if !r.Deleting {
		s.reserved = s.used
	}
	for _, l := range r.Links {
		if len(l.Pledge) > 0 {
			s.pledges++
		} else {
			s.agreements++
		}
	}
	return s
}

// books are the sums over all copies. They follow the records: a share is added before its record is
// committed, so the limits hold at every moment, and taken away after.
type books struct {
	limits Limits
	quota  int64

	mu      sync.Mutex
	total   share
	writers map[peer.ID]*share // only of those with agreements or reserved bytes
}

func newBooks(limits Limits, quota int64) *books {
	return &books{limits: limits, quota: quota, writers: make(map[peer.ID]*share)}
}

// move replaces a share of a writer by another.
func (b *books) move(writer peer.ID, from, to share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moveLocked(writer, from, to)
}

func (b *books) moveLocked(writer peer.ID, from, to share) {
	b.total.add(from, -1)
	b.total.add(to, 1)
	w := b.writers[writer]
	if w == nil {
		w = &share{}
		b.writers[writer] = w
	}
	w.reserved += to.reserved - from.reserved
	w.agreements += to.agreements - from.agreements
	if w.reserved == 0 && w.agreements == 0 {
		delete(b.writers, writer)
	}
}

// admit adds a new copy's share, unless quota or a limit is in the way.
func (b *books) admit(writer peer.ID, s share) *seal.Refusal {
	b.mu.Lock()
	defer b.mu.Unlock()
	var w share
	if known := b.writers[writer]; known != nil {
		w = *known
	}
	l := b.limits
	switch {
	case b.total.used+s.used > b.quota:
		return seal.Refuse(seal.RefusedFull, "%d bytes are free, %d are needed", b.quota-b.total.used, s.used)
	case w.agreements+s.agreements > l.AgreementsPerPeer:
		return seal.Refuse(seal.RefusedLimit, "%d agreements of one writer are open", w.agreements)
	case b.total.agreements+s.agreements > l.Agreements:
		return seal.Refuse(seal.RefusedLimit, "%d agreements are open", b.total.agreements)
	case w.reserved+s.reserved > l.ReservedPerPeer:
		return seal.Refuse(seal.RefusedLimit, "%d bytes are reserved for one writer and not sent", w.reserved)
	case b.total.reserved+s.reserved > l.ReservedBytes:
		return seal.Refuse(seal.RefusedLimit, "%d bytes are reserved and not sent", b.total.reserved)
	}
	b.moveLocked(writer, share{}, s)
	return nil
}

// free returns how many bytes of the quota are left.
func (b *books) free() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, b.quota-b.total.used)
}

func (b *books) sums() share {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total
}
