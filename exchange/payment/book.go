package payment

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// BookConfig says how a book is kept. All processes that share it should use the same.
type BookConfig struct {
	Now         func() time.Time // default time.Now
	Keep        time.Duration    // how long closed channels are remembered; default 7 days, at least 2
	MaxChannels int              // in the book; default 10,000
	MaxPerPayer int              // channels of one payer; default 1,000
}

// Book is the embedded [Ledger]: a JSON file shared by the processes of this machine. It is
// bookkeeping, not money. Make one with [OpenBook]; it needs no closing.
type Book struct {
	path string
	cfg  BookConfig
	turn chan struct{} // held while this process changes the file

	// mu guards what was read last.
	mu   sync.Mutex
	last *bookView
}

var _ Ledger = (*Book)(nil)

// OpenBook opens the book at path; a missing file is a book that nobody has written in yet. Its
// folder must exist. A file that is not a book, or a torn one, is refused with [ErrBook].
func OpenBook(path string, cfg BookConfig) (*Book, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Keep == 0 {
		cfg.Keep = 7 * 24 * time.Hour
	}
	cfg.Keep = max(cfg.Keep, 2*openingOld)
	cfg.MaxChannels = cmp.Or(cfg.MaxChannels, 10_000)
	cfg.MaxPerPayer = cmp.Or(cfg.MaxPerPayer, 1_000)
	if cfg.MaxChannels < 0 || cfg.MaxPerPayer < 0 {
		return nil, fmt.Errorf("open book %s: negative limit", path)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open book: %w", err)
	}
	path = filepath.Join(dir, filepath.Base(path))
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a rename must replace the book, not a link to it
	}
	b := &Book{path: path, cfg: cfg, turn: make(chan struct{}, 1)}
	if _, err := b.read(true); err != nil {
		return nil, err
	}
	return b, nil
}

// Path is the file of the book.
func (b *Book) Path() string { return b.path }

// now is the book's time, to the second, as it is written.
func (b *Book) now() time.Time { return b.cfg.Now().UTC().Truncate(time.Second) }

// Open implements [Ledger].
func (b *Book) Open(ctx context.Context, o Opening) (Channel, error) {
	if err := o.Verify(); err != nil {
		return Channel{}, err
	}
	if _, err := o.Payee.ExtractPublicKey(); err != nil {
		return Channel{}, fmt.Errorf("payee %s: %w", o.Payee, ErrKey)
	}
	return b.change(ctx, "open channel", func(l *ledger, now time.Time) (Channel, error) {
		if _, ok := l.channels[o.ID()]; !ok {
			if err := b.room(l, o.Payer); err != nil {
				return Channel{}, err
			}
		}
		return l.open(o, now)
	})
}

// room says whether one more channel may be opened.
func (b *Book) room(l *ledger, payer peer.ID) error {
	if len(l.channels) >= b.cfg.MaxChannels {
		return fmt.Errorf("%d channels in the book: %w", len(l.channels), ErrLimit)
	}
	n := 0
	for _, c := range l.channels {
		if c.Payer == payer {
			n++
		}
	}
	if n >= b.cfg.MaxPerPayer {
		return fmt.Errorf("%d channels of %s: %w", n, payer, ErrLimit)
	}
	return nil
}

// Settle implements [Ledger].
func (b *Book) Settle(ctx context.Context, v Voucher) (Channel, error) {
	return b.change(ctx, "settle voucher", func(l *ledger, now time.Time) (Channel, error) {
		return settleVerified(l, v, now)
	})
}

func settleVerified(l *ledger, v Voucher, now time.Time) (Channel, error) {
	c, err := l.channel(v.Channel)
	if err != nil {
		return c, err
	}
	if err := v.Verify(c.Payer); err != nil {
		return c, err
	}
	return l.settle(c, v, now)
}

// Close implements [Ledger].
func (b *Book) Close(ctx context.Context, cl Closing) (Channel, error) {
	if err := cl.Verify(); err != nil {
		return Channel{}, err
	}
	return b.change(ctx, "close channel", func(l *ledger, now time.Time) (Channel, error) {
		c, err := l.channel(cl.Channel)
		if err != nil {
			return c, err
		}
		if c.State != StateClosed && !cl.Last.IsZero() {
			if c, err = settleVerified(l, cl.Last, now); err != nil {
				return c, err
			}
		}
		return l.close(c, cl.By, now)
	})
}

// Finish implements [Ledger].
func (b *Book) Finish(ctx context.Context, id ChannelID) (Channel, error) {
	return b.change(ctx, "finish channel", func(l *ledger, now time.Time) (Channel, error) {
		c, err := l.channel(id)
		if err != nil {
			return c, err
		}
		return l.finish(c, now)
	})
}

// Channel implements [Ledger].
func (b *Book) Channel(ctx context.Context, id ChannelID) (Channel, error) {
	l, err := b.look(ctx)
	if err != nil {
		return Channel{}, err
	}
	return l.channel(id)
}

// Channels implements [Ledger].
func (b *Book) Channels(ctx context.Context, p peer.ID) ([]Channel, error) {
	l, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	var all []Channel
	for _, c := range l.channels {
		if c.Payer == p || c.Payee == p {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b Channel) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return all, nil
}

// Account implements [Ledger].
func (b *Book) Account(ctx context.Context, p peer.ID) (Account, error) {
	l, err := b.look(ctx)
	if err != nil {
		return Account{}, err
	}
	return l.accounts(func(q peer.ID) bool { return p == q })[p], nil
}

// Accounts lists all accounts, by peer ID. Balances and locked amounts sum to zero.
func (b *Book) Accounts(ctx context.Context) ([]Account, error) {
	l, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	var all []Account
	for _, a := range l.accounts(func(peer.ID) bool { return true }) {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Account) int { return cmp.Compare(a.Peer, b.Peer) })
	return all, nil
}

func (l *ledger) accounts(want func(peer.ID) bool) map[peer.ID]Account {
	all := map[peer.ID]Account{}
	for p, n := range l.balances {
		if want(p) {
			all[p] = Account{Peer: p, Balance: n}
		}
	}
	for _, c := range l.channels {
		if want(c.Payer) && c.State != StateClosed {
			a := all[c.Payer]
			a.Peer, a.Locked = c.Payer, a.Locked+c.Deposit-c.Settled
			all[c.Payer] = a
		}
	}
	return all
}

// look returns what the file says now. It must not be changed.
func (b *Book) look(ctx context.Context) (*ledger, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read book: %w", err)
	}
	return b.read(false)
}

// change runs fn on a copy of the book and writes it, while no other process does. After an error of
// fn nothing is written; nor is it when fn changed nothing.
func (b *Book) change(ctx context.Context, doing string, fn func(*ledger, time.Time) (Channel, error)) (Channel, error) {
	unlock, err := b.lock(ctx)
	if err != nil {
		return Channel{}, fmt.Errorf("%s: %w", doing, err)
	}
	defer unlock()
	was, err := b.read(true)
	if err != nil {
		return Channel{}, fmt.Errorf("%s: %w", doing, err)
	}
	now := b.now()
	l := was.clone()
	l.prune(now.Add(-b.cfg.Keep))
	c, err := fn(l, now)
	if err != nil {
		return Channel{}, fmt.Errorf("%s: %w", doing, err)
	}
	if old, ok := was.channels[c.ID]; ok && old == c {
		return c, nil
	}
	l.revision++
	if err := b.write(l); err != nil {
		return Channel{}, fmt.Errorf("%s: %w", doing, err)
	}
	return c, nil
}
