package payment

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Ledger keeps deposits. Every change is idempotent, authenticated by a signature and durable when
// the call returns; all methods honour ctx and may be called from many goroutines.
type Ledger interface {
	LedgerReader
	LedgerWriter
}

// LedgerReader tells what a ledger knows.
type LedgerReader interface {
	// Channel returns a channel, or an error that wraps ErrNoChannel. Channels closed long ago may be
	// forgotten.
	Channel(ctx context.Context, id ChannelID) (Channel, error)

	// Channels lists the channels that p pays or is paid through, by ID.
	Channels(ctx context.Context, p peer.ID) ([]Channel, error)

	// Account returns p's account; a peer that is not known has an empty one.
	Account(ctx context.Context, p peer.ID) (Account, error)
}

// LedgerWriter changes channels and returns them as they are afterwards.
type LedgerWriter interface {
	// Open lays down a deposit. The same opening again returns the channel as it is now. Errors wrap
	// ErrSignature, ErrTerms, ErrExists, ErrExpired, ErrLimit.
	Open(ctx context.Context, o Opening) (Channel, error)

	// Settle gives the payee what v adds to what was settled; a smaller voucher changes nothing.
	// Anyone who has it may show a voucher. Errors wrap ErrNoChannel, ErrSignature, ErrDeposit,
	// ErrClosed.
	Settle(ctx context.Context, v Voucher) (Channel, error)

	// Close settles c.Last, then closes at once for the payee, and for the payer begins the challenge
	// period. A channel that is closing or closed already stays as it is.
	Close(ctx context.Context, c Closing) (Channel, error)

	// Finish gives the rest back to the payer once the challenge period has ended; before it the error
	// wraps ErrNotDue. Anyone may call it.
	Finish(ctx context.Context, id ChannelID) (Channel, error)
}

// Account is a peer's side of a ledger.
type Account struct {
	Peer    peer.ID
	Balance int64  // received less paid less what is locked; the embedded book lets it go below zero
	Locked  Amount // in deposits of channels not closed, less what was settled of them
}

// Times that a ledger allows an opening to be off by.
const (
	openingOld   = 24 * time.Hour
	openingAhead = 10 * time.Minute
)
