package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// The errors of this package; test with [errors.Is].
var (
	ErrNotFound = errors.New("block is in no chunk that is kept here")
	ErrClosed   = errors.New("provider is closed")
	ErrFull     = errors.New("no space left for chunks")
)

// Config says what a provider keeps, for whom and where. Zero values mean the defaults.
type Config struct {
	DB     *badger.DB // must outlive the provider
	Prefix []byte     // of every key
	Dir    string     // folder for sealed chunks, nobody else's; made if it is not there
	Key    crypto.PrivKey

	QuotaBytes     int64         // of chunks with all that belongs to them; default 10 GiB
	PricePerGiBDay uint64        // in the ledger's smallest unit; default 0
	MaxExpiry      time.Duration // how far ahead an expiry may lie; default 366 days
	Region         string        // a label for writers to choose by; default none

	Till      Till      // takes payments; needed where there is a price
	Announcer Announcer // tells the network of chunk IDs; default: nobody is told

	ReserveFor    time.Duration // an agreement lapses when nothing came for so long; default 10 minutes
	ReceiveWithin time.Duration // and when it is older than this without being complete; default 2 hours
	Grace         time.Duration // a pledge is to be paid within this time; default 1 hour
	AnnounceEvery time.Duration // default 12 hours
	Patience      time.Duration // how long a stream may stall; default 20 seconds
	RequestFor    time.Duration // how long a request may take in all; default 5 minutes
	Limits        Limits

	Now    func() time.Time // default time.Now
	Logger *slog.Logger     // default: none

	folder folder                   // tests lose and tear what was not synced
	step   func(point string) error // and end a life at any point

	saveEvery time.Duration
}

// Limits bounds what clients can make a provider keep and do. Zero means the default.
type Limits struct {
	StreamsPerPeer    int           // requests at once; default 3
	Streams           int           // the same of all peers; default 64
	MemoryBytes       int64         // for requests being read, of all peers; at least 4 MiB, default 16 MiB
	AgreementsPerPeer int           // links without a pledge; default 128
	Agreements        int           // the same of all peers; default 4,096
	ReservedPerPeer   int64         // bytes agreed to and not here in full; default a quarter of the quota, at least 64 MiB
	ReservedBytes     int64         // the same of all peers; default half of the quota, at least 64 MiB
	CopiesPerChunk    int           // copies of one chunk for one writer, agreed ones too; default 8
	LinksPerCopy      int           // default 8
	Tombstones        int           // default 100,000
	KeepTombstones    time.Duration // after the end of the pledge; default 30 days
	Verifiers         int           // copies verified at once; default 2
	OpenFiles         int           // kept open for reading; default 64
}

// Till takes payments. Both calls must be safe for concurrent use.
type Till interface {
	// Accept takes a voucher from the peer that pays with it and returns by how much it is more than
	// what was accepted before. It is durable then. One that was accepted before is no growth and no error.
	Accept(ctx context.Context, from peer.ID, voucher []byte) (grew uint64, err error)
	// Received returns the sum of all growth that Accept ever returned for a peer, at least as far as
	// its channels are remembered.
	Received(ctx context.Context, from peer.ID) (uint64, error)
	// Channel returns an error unless a payment channel of this ID is open from the peer to us.
	Channel(ctx context.Context, from peer.ID, id [32]byte) error
}

// Announcer tells the network that a chunk is here. An error means later. It may call the provider, and
// is called for a few chunks at once.
type Announcer interface {
	Announce(ctx context.Context, chunk cid.Cid) error
}

// Stream is one request's stream. Deadlines are of the system's clock.
type Stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

func (l *Limits) defaults(quota int64) {
	const least = 64 << 20
	l.StreamsPerPeer = cmp.Or(l.StreamsPerPeer, 3)
	l.Streams = cmp.Or(l.Streams, 64)
	l.MemoryBytes = cmp.Or(l.MemoryBytes, 16<<20)
	l.AgreementsPerPeer = cmp.Or(l.AgreementsPerPeer, 128)
	l.Agreements = cmp.Or(l.Agreements, 4096)
	l.ReservedPerPeer = cmp.Or(l.ReservedPerPeer, max(quota/4, least))
	l.ReservedBytes = cmp.Or(l.ReservedBytes, max(quota/2, least))
	l.CopiesPerChunk = cmp.Or(l.CopiesPerChunk, 8)
	l.LinksPerCopy = cmp.Or(l.LinksPerCopy, 8)
	l.Tombstones = cmp.Or(l.Tombstones, 100_000)
	l.KeepTombstones = cmp.Or(l.KeepTombstones, 30*24*time.Hour)
	l.Verifiers = cmp.Or(l.Verifiers, 2)
	l.OpenFiles = cmp.Or(l.OpenFiles, 64)
}

func (c *Config) defaults() error {
	if c.DB == nil || c.Key == nil || c.Dir == "" && c.folder == nil {
		return errors.New("database, key and folder are needed")
	}
	if !c.DB.Opts().DetectConflicts {
		return errors.New("the database does not detect conflicts")
	}
	if c.PricePerGiBDay > 0 && c.Till == nil {
		return errors.New("a price without a till that takes payments")
	}
	if c.PricePerGiBDay > seal.MaxPrice {
		return fmt.Errorf("price of %d for a GiB and day", c.PricePerGiBDay)
	}
	if len(c.Region) > seal.MaxRegionBytes {
		return fmt.Errorf("region of %d bytes, at most %d", len(c.Region), seal.MaxRegionBytes)
	}
	c.QuotaBytes = cmp.Or(c.QuotaBytes, 10<<30)
	c.MaxExpiry = cmp.Or(c.MaxExpiry, 366*24*time.Hour)
	c.ReserveFor = cmp.Or(c.ReserveFor, 10*time.Minute)
	c.ReceiveWithin = cmp.Or(c.ReceiveWithin, 2*time.Hour)
	c.Grace = cmp.Or(c.Grace, time.Hour)
	c.AnnounceEvery = cmp.Or(c.AnnounceEvery, 12*time.Hour)
	c.saveEvery = cmp.Or(c.saveEvery, saveEvery)
	c.Patience = cmp.Or(c.Patience, 20*time.Second)
	c.RequestFor = cmp.Or(c.RequestFor, 5*time.Minute)
	if min(c.MaxExpiry, c.ReserveFor, c.ReceiveWithin, c.Grace, c.AnnounceEvery, c.Patience, c.RequestFor) < 0 || c.QuotaBytes < 0 {
		return errors.New("a time or the quota is negative")
	}
	c.Limits.defaults(c.QuotaBytes)
	if c.Limits.MemoryBytes < minMemory {
		return fmt.Errorf("%d bytes of memory for requests, at least %d are needed", c.Limits.MemoryBytes, minMemory)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
