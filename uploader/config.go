package uploader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// Config says who places chunks, and through whom. Zero values mean the defaults.
type Config struct {
	DB     *badger.DB // must outlive the uploader
	Prefix []byte     // of every key
	Self   peer.ID    // the writer, whom pledges are made to
	Secret []byte     // keys of sealed chunks derive from it; 32 random bytes, always the same

	Chunks     Chunks
	Providers  Providers
	Candidates Candidates
	Payments   Payments // default: only providers without a price are used

	MaxPricePerGiBDay uint64        // dearer providers are not used; default 0: only those that are free of charge
	Deposit           uint64        // of a new payment channel, at least; default: 16 times what its first links cost
	AuditInterval     time.Duration // each link is audited once within it; default 24 hours
	VanishAfter       time.Duration // links of a provider that is silent for so long have failed; default 6 hours
	Networks          Networks
	Regions           []string // labels of providers that are used; default: any
	Limits            Limits

	Now    func() time.Time // default time.Now
	Logger *slog.Logger     // default: none
}

// Networks says whether chunks of a group may lie in one network, as candidates name theirs.
type Networks uint8

// What may be asked of networks.
const (
	NetworksPrefer Networks = iota // different ones while there are enough
	NetworksStrict                 // different ones, or none
	NetworksIgnore
)

// Limits bounds what is done at once and kept. Zero means the default.
type Limits struct {
	Active       int           // links on their way, in total; default 128
	PerProvider  int           // requests in parallel to a provider; default 3
	OpenPerPeer  int           // links on their way, per provider; default 24
	SealedBytes  int64         // sealed chunks in memory; default 96 MiB, at least one chunk
	Sealers      int           // chunks sealed in parallel; default 2
	Deadline     time.Duration // of a request, and of each step of a transfer; default 60 seconds
	TransferFor  time.Duration // of a transfer in all; default 10 minutes
	Tries        int           // failures in a row before a link fails; default 3
	Rounds       int           // transfers of one link's data; default 8
	BackoffFrom  time.Duration // first pause after a failure, doubled each time; default 1 second
	BackoffTo    time.Duration // longest pause; default 5 minutes
	QuoteFor     time.Duration // how long a quote counts; default 10 minutes
	SearchEvery  time.Duration // between searches for candidates while some are missing; default 15 seconds
	Providers    int           // remembered; default 1,024
	FailedLinks  int           // kept per chunk, beside those that are needed; default 4
	AuditSamples int           // segments per audit; default 3, at most 16
}

// Chunks reads what is to be stored.
type Chunks interface {
	// ReadShard returns the bytes of one shard of a chunk, from wherever they are. It may take as long as ctx
	// lasts for one that is lost: the uploader rebuilds it out of others. Unless checked says that whoever keeps
	// the bytes has compared them with the CID, and with a checksum since they were read, the caller compares them
	// with the CID. It only reads them. An error means later. It is called concurrently.
	ReadShard(ctx context.Context, shard cid.Cid) (b []byte, checked bool, err error)
}

// Stream is one request's stream to a provider. Deadlines are of the system's clock.
type Stream interface {
	seal.Stream
	Close() error // after the answer
	Reset() error // ends it at once, also reads and writes that wait; may be called after Close
}

// Providers opens streams of the storage protocol.
type Providers interface {
	// Open dials if need be, and returns when ctx ends at the latest.
	Open(ctx context.Context, provider peer.ID) (Stream, error)
}

// Candidate is a provider that somebody has heard of.
type Candidate struct {
	ID       peer.ID
	Networks []string // as NetworkOf names them; none: no network is shared with anybody
}

// Candidates looks for providers.
type Candidates interface {
	// Find returns providers that are announced now, in any order. Known ones may be among them.
	Find(ctx context.Context) ([]Candidate, error)
}

// Payments pays providers. *[payment.Accounts] is one; it must be in the uploader's database.
type Payments interface {
	EnsureChannel(ctx context.Context, payee peer.ID, atLeast, deposit payment.Amount) (payment.ChannelID, error)
	PayWith(ctx context.Context, p payment.Payment, fn func(txn *badger.Txn, v payment.Voucher) error) (payment.Voucher, error)
	Forget(ref []byte) error
}

var _ Payments = (*payment.Accounts)(nil)

// NetworkOf names the network of an address: its /24, or /56 for IPv6. Addresses that are not public
// have none.
func NetworkOf(a netip.Addr) string {
	a = a.Unmap()
	if !a.IsValid() || a.IsPrivate() || !a.IsGlobalUnicast() {
		return ""
	}
	bits := 56
	if a.Is4() {
		bits = 24
	}
	return netip.PrefixFrom(a.WithZone(""), bits).Masked().String()
}

func (l *Limits) defaults() {
	l.Active = cmp.Or(l.Active, 128)
	l.PerProvider = cmp.Or(l.PerProvider, 3)
	l.OpenPerPeer = cmp.Or(l.OpenPerPeer, 24)
	l.SealedBytes = cmp.Or(l.SealedBytes, 96<<20)
	l.Sealers = cmp.Or(l.Sealers, 2)
	l.Deadline = cmp.Or(l.Deadline, 60*time.Second)
	l.TransferFor = cmp.Or(l.TransferFor, 10*time.Minute)
	l.Tries = cmp.Or(l.Tries, 3)
	l.Rounds = cmp.Or(l.Rounds, 8)
	l.BackoffFrom = cmp.Or(l.BackoffFrom, time.Second)
	l.BackoffTo = cmp.Or(l.BackoffTo, 5*time.Minute)
	l.QuoteFor = cmp.Or(l.QuoteFor, 10*time.Minute)
	l.SearchEvery = cmp.Or(l.SearchEvery, 15*time.Second)
	l.Providers = cmp.Or(l.Providers, 1024)
	l.FailedLinks = cmp.Or(l.FailedLinks, 4)
	l.AuditSamples = cmp.Or(l.AuditSamples, 3)
}

func (l *Limits) check() error {
	if min(l.Active, l.PerProvider, l.OpenPerPeer, l.Sealers, l.Tries, l.Rounds, l.Providers, l.FailedLinks, l.AuditSamples) < 1 {
		return errors.New("a limit is negative")
	}
	if min(l.Deadline, l.TransferFor, l.BackoffFrom, l.BackoffTo-l.BackoffFrom, l.QuoteFor, l.SearchEvery) < 0 {
		return errors.New("a time is negative, or the longest pause shorter than the first")
	}
	if l.SealedBytes < seal.MaxChunkBytes || l.AuditSamples > seal.MaxAuditSegments {
		return fmt.Errorf("%d bytes of sealed chunks, %d segments per audit", l.SealedBytes, l.AuditSamples)
	}
	return nil
}

func (c *Config) defaults() error {
	if c.DB == nil || c.Chunks == nil || c.Providers == nil || c.Candidates == nil {
		return errors.New("database, chunks, providers and candidates are needed")
	}
	if c.Self == "" || len(c.Secret) < 32 {
		return errors.New("the writer's ID and a secret of 32 bytes are needed")
	}
	if c.MaxPricePerGiBDay > 0 && c.Payments == nil {
		return errors.New("a price to pay and nothing to pay with")
	}
	if c.Networks > NetworksIgnore {
		return fmt.Errorf("networks option %d", c.Networks)
	}
	c.AuditInterval = cmp.Or(c.AuditInterval, 24*time.Hour)
	c.VanishAfter = cmp.Or(c.VanishAfter, 6*time.Hour)
	if min(c.AuditInterval, c.VanishAfter) < 0 {
		return errors.New("a time is negative")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits.defaults()
	return c.Limits.check()
}

func (c *Config) terms() terms {
	return terms{
		self: c.Self, maxPrice: c.MaxPricePerGiBDay, deposit: c.Deposit, audit: c.AuditInterval, vanish: c.VanishAfter,
		networks: c.Networks, regions: c.Regions, limits: c.Limits,
	}
}
