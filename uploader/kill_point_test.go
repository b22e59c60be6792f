package uploader

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment"
	farend "github.com/holdfastfs/holdfast/uploader/provider"
)

// killer ends its process as kill -9 does, once it comes to a point.
type killer struct {
	mu   sync.Mutex // guards the rest
	at   string     // nowhere where it is empty
	nth  int        // after so many times there
	seen []string   // every point, each time
}

func (k *killer) point(name string) {
	k.mu.Lock()
	k.seen = append(k.seen, name)
	here := name == k.at
	if here {
		k.nth--
	}
	here = here && k.nth < 0
	k.mu.Unlock()
	if here {
		later(10 * time.Millisecond) // what should not be under way yet would be
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// killJournal has a point before and after each commit of a link's state.
type killJournal struct {
	*badgerJournal
	k *killer
}

func (j killJournal) commit(r *ready) error {
	for i := range r.links {
		j.k.point("before commit of " + stage(&r.links[i]))
	}
	if len(r.goneLinks) > 0 {
		j.k.point("before commit of gone")
	}
	err := j.badgerJournal.commit(r)
	for i := range r.links {
		j.k.point("after commit of " + stage(&r.links[i]))
	}
	if len(r.goneLinks) > 0 {
		j.k.point("after commit of gone")
	}
	return err
}

// stage names how far a link is.
func stage(r *record) string {
	name := r.State.String()
	switch {
	case r.State == LinkSigned && r.Delivered:
		name = "delivered"
	case r.State == LinkSigned && r.Paid:
		name = "paid"
	}
	if r.renewal() {
		return "renewal " + name
	}
	return name
}

// killPayments has points around all that touches money.
type killPayments struct {
	Payments
	k *killer
}

func (p killPayments) EnsureChannel(ctx context.Context, to peer.ID, atLeast, deposit payment.Amount) (payment.ChannelID, error) {
	p.k.point("before the channel")
	id, err := p.Payments.EnsureChannel(ctx, to, atLeast, deposit)
	p.k.point("after the channel")
	return id, err
}

func (p killPayments) PayWith(ctx context.Context, pay payment.Payment, fn func(*badger.Txn, payment.Voucher) error) (payment.Voucher, error) {
	p.k.point("before payment")
	v, err := p.Payments.PayWith(ctx, pay, func(txn *badger.Txn, v payment.Voucher) error {
		p.k.point("within payment")
		return fn(txn, v)
	})
	p.k.point("after payment")
	return v, err
}

// kinds of requests, by their number in a message.
var kinds = [...]string{"", "quote", "store", "channel", "map", "data", "sign", "voucher", "audit", "renew", "release"}

// kindIn names the request that a frame begins with.
func kindIn(frame []byte) string {
	_, n := binary.Uvarint(frame)
	if n < 1 || n >= len(frame) || int(frame[n]>>3) >= len(kinds) {
		return "garbage"
	}
	return kinds[frame[n]>>3]
}

// killStream is a writer's stream, with points before and after what is sent, and when the answer comes.
type killStream struct {
	net.Conn
	k *killer

	mu     sync.Mutex // guards the rest
	kind   string
	writes int
	heard  bool
}

func (s *killStream) Write(b []byte) (int, error) {
	s.mu.Lock()
	s.writes++
	writes := s.writes
	if writes == 1 {
		s.kind = kindIn(b)
	}
	kind := s.kind
	s.mu.Unlock()
	if writes == 1 {
		s.k.point("before sending " + kind)
	}
	n, err := s.Conn.Write(b)
	switch {
	case writes == 1:
		s.k.point("after sending " + kind)
	case writes == 3:
		s.k.point("amid sending " + kind)
	}
	return n, err
}

func (s *killStream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.mu.Lock()
	first := n > 0 && !s.heard
	s.heard = s.heard || first
	kind := s.kind
	s.mu.Unlock()
	if first {
		s.k.point("at the answer to " + kind)
	}
	return n, err
}

// Reset implements Stream.
func (s *killStream) Reset() error { return s.Close() }

// killConn is a provider's stream, with points when a request comes, and before and after the answer. One
// goroutine uses it.
type killConn struct {
	net.Conn
	k      *killer
	kind   string
	bytes  int
	amid   bool
	writes int
}

func (c *killConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.bytes += n
	switch {
	case n > 0 && c.kind == "":
		c.kind = kindIn(b[:n])
		c.k.point("before taking " + c.kind)
	case c.bytes > 100<<10 && !c.amid:
		c.amid = true
		c.k.point("amid taking " + c.kind)
	}
	return n, err
}

func (c *killConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes == 1 {
		c.k.point("before answering " + c.kind)
	}
	n, err := c.Conn.Write(b)
	if c.writes == 1 {
		c.k.point("after answering " + c.kind)
	}
	return n, err
}

// killTill has points around the taking of vouchers.
type killTill struct {
	farend.Till
	k *killer
}

func (t killTill) Accept(ctx context.Context, from peer.ID, voucher []byte) (uint64, error) {
	t.k.point("before accepting a voucher")
	grew, err := t.Till.Accept(ctx, from, voucher)
	t.k.point("after accepting a voucher")
	return grew, err
}
