package exchange

import (
	"container/heap"
	"context"
	"errors"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// What one message holds at most, however little it is in bytes.
const (
	maxReplyPresences = 1024
	maxReplyBlocks    = 4096
)

// fill answers a ledger's most urgent wants until a message is full or nothing is left.
func (l *ledger) fill(ctx context.Context) *reply {
	m := &reply{}
	m.presences = l.takeRefused()
	m.account = l.news()
	m.manifests = l.manifests()
	for bytes := 0; bytes < l.s.cfg.MessageBytes && len(m.presences) < maxReplyPresences && len(m.blocks) < maxReplyBlocks; {
		w := l.pop()
		if w == nil {
			break
		}
		b, size, err := l.lookUp(ctx, w)
		switch {
		case err != nil:
			l.missing(ctx, w, err, m)
		case !l.answered(w):
			// Taken back while we read.
		case b != nil:
			m.blocks = append(m.blocks, b)
			bytes += len(b.RawData())
			l.charge(len(b.RawData()))
		default:
			m.presences = append(m.presences, l.offer(w.cid, size))
		}
	}
	return m
}

// takeRefused answers wants that found the list full.
func (l *ledger) takeRefused() []Presence {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	var out []Presence
	for _, c := range l.refused {
		if _, again := l.wants[c]; !again {
			out = append(out, Presence{CID: c})
		}
	}
	l.refused = nil
	return out
}

// pop takes the most urgent want.
func (l *ledger) pop() *demand {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if len(l.queue) == 0 || l.heldLocked() {
		return nil
	}
	w := heap.Pop(&l.queue).(*demand)
	w.state = demandServing
	return w
}

// lookUp reads what answers a want: the block, or how long it is. Its error says that it is not here,
// or can't be read, which is the same to a peer.
func (l *ledger) lookUp(ctx context.Context, w *demand) (blocks.Block, int, error) {
	s := l.s
	if !w.block || l.mustOffer(w) {
		size, err := s.cfg.Store.SizeOf(ctx, w.cid)
		if err != nil || size > s.cfg.SmallBlock || s.cfg.PricePerMiB > 0 {
			return nil, size, s.logged(w.cid, err)
		}
	}
	b, err := s.cfg.Store.Get(ctx, w.cid)
	if err == nil && b.Cid() != w.cid { // the store may have it under another CID of its multihash
		b, err = blocks.NewBlockWithCid(b.RawData(), w.cid)
	}
	return b, 0, s.logged(w.cid, err)
}

// logged passes an error on, and logs it when it is more than a missing block.
func (s *server) logged(c cid.Cid, err error) error {
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, context.Canceled) {
		s.cfg.Logger.Warn("read block to serve", "cid", c, "err", err)
	}
	return err
}

// answered takes a want off the list. It reports false when the peer did so before.
func (l *ledger) answered(w *demand) bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.wants[w.cid] != w {
		return false
	}
	delete(l.wants, w.cid)
	l.s.wants--
	return true
}

// missing keeps a want whose block is not here, and says so when asked to.
func (l *ledger) missing(ctx context.Context, w *demand, why error, m *reply) {
	waits, recheck, tell := l.wait(w)
	if !waits {
		return
	}
	if recheck && errors.Is(why, ErrNotFound) {
		// A block that came between the look into the store and now was announced too early for us.
		if _, err := l.s.cfg.Store.SizeOf(ctx, w.cid); err == nil {
			l.s.notifyNewBlocks([]cid.Cid{w.cid})
			return
		}
	}
	if tell {
		m.presences = append(m.presences, Presence{CID: w.cid})
	}
}

// wait begins the waiting of a want that is still on the list. recheck is true the first time only,
// should the store contradict itself; tell says that the peer wants to know.
func (l *ledger) wait(w *demand) (waits, recheck, tell bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.closed || l.wants[w.cid] != w || w.state != demandServing {
		return false, false, false
	}
	l.waitLocked(w)
	recheck = !w.checked
	w.checked = true
	return true, recheck, w.dontHave
}
