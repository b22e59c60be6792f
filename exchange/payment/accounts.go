package payment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment/durable"
)

// Config says whose accounts are kept, where and how.
type Config struct {
	DB     *badger.DB // with conflict detection, as is the default; must outlive the accounts
	Prefix []byte     // of every key
	Ledger Ledger     // where deposits are
	// Purpose is what is paid for. One key may have accounts of several purposes, in databases or under prefixes of
	// their own; accounts of AnyPurpose must be its only ones.
	Purpose Purpose
	Key     crypto.PrivKey // of this node
	Now     func() time.Time
	Logger  *slog.Logger // default: none

	Every       time.Duration // between looks at the ledger; default 1 minute
	SettleEvery time.Duration // longest time that something received stays unsettled; default 1 hour
	SettleAt    Amount        // unsettled amount of a channel that is settled at the next look; default: any time will do
	IdleAfter   time.Duration // a channel without a payment for so long is closed; default 30 days
	Challenge   time.Duration // challenge period of channels we open; default 24 hours

	MinChallenge time.Duration // shortest challenge period of channels we are paid through; default 1 hour
	MinDeposit   Amount        // smallest deposit of channels we are paid through; default: any
	Limits       Limits
}

// Limits bounds what is kept. Zero means the default.
type Limits struct {
	PaidPerPeer  int           // open channels that one peer pays us through; default 16
	PaidTotal    int           // open channels that all peers pay us through; default 4,096
	PayingTotal  int           // open channels that we pay through; default 4,096
	Closed       int           // closed channels that stay listed; default 4,096
	KeepClosed   time.Duration // how long closed channels stay listed; default 30 days
	RefLife      time.Duration // how long a ref is remembered; default 180 days
	MaxRefs      int           // refs remembered; default 1,000,000, about 150 bytes each on the disk
	KeepSpending time.Duration // how long a budget that nothing is paid under is remembered; default 180 days
}

func (l *Limits) defaults() {
	const day = 24 * time.Hour
	l.PaidPerPeer = cmp.Or(l.PaidPerPeer, 16)
	l.PaidTotal = cmp.Or(l.PaidTotal, 4096)
	l.PayingTotal = cmp.Or(l.PayingTotal, 4096)
	l.Closed = cmp.Or(l.Closed, 4096)
	l.KeepClosed = cmp.Or(l.KeepClosed, 30*day)
	l.RefLife = cmp.Or(l.RefLife, 180*day)
	l.MaxRefs = cmp.Or(l.MaxRefs, 1_000_000)
	l.KeepSpending = cmp.Or(l.KeepSpending, 180*day)
}

func (c *Config) defaults() error {
	if c.DB == nil || c.Ledger == nil || c.Key == nil {
		return errors.New("database, ledger and key are needed")
	}
	if !c.DB.Opts().DetectConflicts {
		return errors.New("the database does not detect conflicts")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Every = cmp.Or(c.Every, time.Minute)
	c.SettleEvery = cmp.Or(c.SettleEvery, time.Hour)
	c.SettleAt = cmp.Or(c.SettleAt, MaxAmount)
	c.IdleAfter = cmp.Or(c.IdleAfter, 30*24*time.Hour)
	c.Challenge = cmp.Or(c.Challenge, 24*time.Hour)
	c.MinChallenge = cmp.Or(c.MinChallenge, time.Hour)
	c.Limits.defaults()
	if min(c.Every, c.SettleEvery, c.IdleAfter, c.Challenge, c.Limits.RefLife, c.Limits.KeepClosed, c.Limits.KeepSpending) < 0 {
		return errors.New("a time is negative")
	}
	if c.MinChallenge < 4*c.Every {
		return fmt.Errorf("a look at the ledger every %v is too seldom for challenge periods of %v", c.Every, c.MinChallenge)
	}
	return nil
}

// Accounts are this node's channels, both those it pays through and those it is paid through. Open
// them with [Open]. They need no closing.
type Accounts struct {
	cfg  Config
	self peer.ID
	log  *slog.Logger
	disk *durable.Disk

	paying keyedLock // by payee: opening, closing and looking at channels to it
	paid   keyedLock // by payer: all about channels from it

	payMu sync.Mutex // held over payments of our own, so that they seldom conflict; taken after paying

	views views // when the ledger was asked last

	livePaying, livePaid, refs atomic.Int64
	closed                     atomic.Int64 // channels listed at the last cleaning
	cleaned                    atomic.Int64 // Unix seconds of the last hourly cleaning
	counts                     counters
}

// Open opens the accounts of the node that has cfg.Key. It reads all channels and counts refs.
func Open(cfg Config) (*Accounts, error) {
	if err := cfg.defaults(); err != nil {
		return nil, fmt.Errorf("open accounts: %w", err)
	}
	self, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("open accounts: %w", err)
	}
	if _, err := self.ExtractPublicKey(); err != nil {
		return nil, fmt.Errorf("open accounts of %s: %w", self, ErrKey)
	}
	cfg.Prefix = append([]byte{}, cfg.Prefix...)
	a := &Accounts{cfg: cfg, self: self, log: cfg.Logger, disk: durable.New(cfg.DB)}
	if err := a.load(); err != nil {
		return nil, fmt.Errorf("open accounts: %w", err)
	}
	return a, nil
}

// Self is the peer whose accounts these are.
func (a *Accounts) Self() peer.ID { return a.self }

func (a *Accounts) now() int64 { return a.cfg.Now().Unix() }

// Stats are figures of the accounts.
type Stats struct {
	Paying, Paid int64 // channels not closed
	Refs         int64 // about; exact after every hour's cleaning
	Payments     int64 // since start
	Accepted     int64 // vouchers that grew, since start
	Refused      int64 // vouchers, since start
	Syncs        int64 // of the database, since start
	Lookups      int64 // of single channels in the ledger, since start
}

type counters struct{ payments, accepted, refused, lookups atomic.Int64 }

// Stats returns figures as they are now.
func (a *Accounts) Stats() Stats {
	return Stats{
		Paying: a.livePaying.Load(), Paid: a.livePaid.Load(), Refs: a.refs.Load(),
		Payments: a.counts.payments.Load(), Accepted: a.counts.accepted.Load(), Refused: a.counts.refused.Load(),
		Syncs: a.disk.Syncs(), Lookups: a.counts.lookups.Load(),
	}
}

// lookup asks the ledger for one channel.
func (a *Accounts) lookup(ctx context.Context, id ChannelID) (Channel, error) {
	a.counts.lookups.Add(1)
	c, err := a.cfg.Ledger.Channel(ctx, id)
	if err == nil {
		a.views.seen(id, a.cfg.Now())
	}
	return c, err
}
