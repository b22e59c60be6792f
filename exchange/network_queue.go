package exchange

import (
	"sync"

	"github.com/ipfs/go-cid"
)

const (
	maxQueuedEntries  = 16 << 10 // changes that wait to be sent to one peer
	entriesPerMessage = 1024     // what other servers keep of a want list
)

// wantQueue holds the changes of our want list that a peer was not told yet, at most one a CID.
type wantQueue struct {
	presences bool // without them want-have is never sent
	wake      chan struct{}

	mu      sync.Mutex // guards all below
	order   []cid.Cid  // each key of pending once, oldest first
	pending map[cid.Cid]Entry

	vouchers [][]byte  // payments to be sent, the last ones
	roots    []cid.Cid // whose manifests the peer is to be asked for

	overflow bool // changes were dropped since the last take
	anew     bool // the peer does not know our list any more: the next message replaces it
}

func newWantQueue(presences bool) wantQueue {
	return wantQueue{presences: presences, wake: make(chan struct{}, 1), pending: make(map[cid.Cid]Entry)}
}

// add queues changes. Those that do not fit are dropped and take says so.
func (q *wantQueue) add(entries []Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer wake(q.wake)
	for _, e := range entries {
		if !q.presences {
			if e.Kind == WantHave {
				continue
			}
			e.SendDontHave = false
		}
		old, queued := q.pending[e.CID]
		if !queued {
			if len(q.pending) >= maxQueuedEntries {
				q.overflow = true
				return
			}
			q.order = append(q.order, e.CID)
		}
		q.pending[e.CID] = coalesce(old, queued, e)
	}
}

// coalesce is what to send in place of two changes of one CID. A cancel and a want after it are
// both kept in the want alone: a server takes a later want over an earlier one.
func coalesce(old Entry, queued bool, e Entry) Entry {
	if queued && old.Kind == WantBlock && e.Kind == WantHave {
		old.Priority = e.Priority
		old.SendDontHave = old.SendDontHave || e.SendDontHave
		return old
	}
	return e
}

// pay queues payments. Each stands for those before it in its channel: only the last ones count.
func (q *wantQueue) pay(vouchers [][]byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer wake(q.wake)
	q.vouchers = lastOf(append(q.vouchers, vouchers...), maxVouchers)
}

// ask queues a question for the manifests of a dataset; false says that too many wait.
func (q *wantQueue) ask(root cid.Cid) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.roots) >= maxManifestRoots {
		return false
	}
	q.roots = append(q.roots, root)
	wake(q.wake)
	return true
}

func (q *wantQueue) takeRoots() []cid.Cid {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.roots
	q.roots = nil
	return out
}

// unpaid takes back payments that were not sent, for the next message that is.
func (q *wantQueue) unpaid(vouchers [][]byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.vouchers = lastOf(append(vouchers, q.vouchers...), maxVouchers)
}

// takeVouchers removes the payments that wait.
func (q *wantQueue) takeVouchers() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.vouchers
	q.vouchers = nil
	return out
}

// lastOf cuts off all but the last n.
func lastOf(v [][]byte, n int) [][]byte { return v[max(0, len(v)-n):] }

// voucherQueue holds payments of a peer that wait to be accepted. When there are too many the oldest go: later
// ones say as much, and what is not accepted is sent again.
type voucherQueue struct {
	wake chan struct{}

	mu    sync.Mutex
	queue [][]byte
}

func newVoucherQueue() voucherQueue { return voucherQueue{wake: make(chan struct{}, 1)} }

func (q *voucherQueue) add(vouchers [][]byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = lastOf(append(q.queue, vouchers...), maxVouchers)
	wake(q.wake)
}

func (q *voucherQueue) take() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.queue
	q.queue = nil
	return out
}

// take removes up to limit changes, oldest first. Its error says that some were dropped.
func (q *wantQueue) take(limit int) ([]Entry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(limit, len(q.order))
	out := make([]Entry, n)
	for i, c := range q.order[:n] {
		out[i] = q.pending[c]
		delete(q.pending, c)
	}
	if q.order = q.order[n:]; len(q.order) == 0 {
		q.order = nil
	}
	if q.overflow {
		q.overflow = false
		return out, errQueueFull
	}
	return out, nil
}

// clear drops everything queued, and what the peer was told before.
func (q *wantQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.order, q.anew = nil, true
	clear(q.pending)
}

// takeAnew says whether the next message is to replace all that the peer was told.
func (q *wantQueue) takeAnew() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	anew := q.anew
	q.anew = false
	return anew
}

// reply is a message of our server on its way to a peer.
type reply struct {
	message
	pace func(bytes int) error // waits until so many bytes may go; nil for no limit
	done func(error)           // called once, whatever happens
}

// presenceBytes is what a presence in a message takes, about.
const presenceBytes = 128

// weight is how much of what may be in flight a reply takes. Presences count: a peer that never reads
// could ask for them without end.
func (r *reply) weight() int { return r.blockBytes() + presenceBytes*len(r.presences) }

// replyQueue holds replies in order. The server bounds it: it has only so many bytes in flight.
type replyQueue struct {
	wake chan struct{}

	mu      sync.Mutex
	closed  bool
	replies []*reply
}

func newReplyQueue() replyQueue { return replyQueue{wake: make(chan struct{}, 1)} }

func (q *replyQueue) add(r *reply) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.replies = append(q.replies, r)
	wake(q.wake)
	return true
}

func (q *replyQueue) take() *reply {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.replies) == 0 {
		return nil
	}
	r := q.replies[0]
	q.replies[0] = nil
	if q.replies = q.replies[1:]; len(q.replies) == 0 {
		q.replies = nil
	}
	return r
}

// fail ends the replies that wait.
func (q *replyQueue) fail(err error) {
	q.mu.Lock()
	left := q.replies
	q.replies = nil
	q.mu.Unlock()
	for _, r := range left {
		r.done(err)
	}
}

// close refuses further replies and ends those that wait.
func (q *replyQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.fail(errNotConnected)
}

// wake leaves one signal in a channel of one place.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
