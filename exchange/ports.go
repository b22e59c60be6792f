package exchange

import (
	"context"
	"errors"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// What a caller of this room has to tell apart.
var (
	// ErrNotFound says that a block is not in the store. Fetch never returns it: a block nobody has
	// is waited for until the caller's context ends.
	ErrNotFound = errors.New("block not found")
	// ErrTimeout says that no peer gave the block before the caller's deadline.
	ErrTimeout = errors.New("no peer gave the block in time")
	// ErrClosed says that the exchange is not running any more.
	ErrClosed = errors.New("exchange is closed")
	// ErrTooDear says that whoever has the block asks more for it than may be paid. Errors that wrap it
	// are of type [*TooDearError].
	ErrTooDear = errors.New("too dear")
	// ErrBudget says that what is left of a budget does not pay for the block. Errors that wrap it are of
	// type [*BudgetError].
	ErrBudget = errors.New("budget is used up")
	// ErrInvalid says that a request can never be fulfilled, such as one for an undefined CID.
	ErrInvalid = errors.New("invalid request")
)

// errDeadline says that an intent's deadline has come.
var errDeadline = fmt.Errorf("%w: %w", ErrTimeout, context.DeadlineExceeded)

// EntryKind says what an [Entry] asks of a peer.
type EntryKind uint8

const (
	// WantHave asks whether the peer has the block. A small block may come as the answer.
	WantHave EntryKind = iota
	// WantBlock asks for the block itself.
	WantBlock
	// Cancel takes back whatever was asked about the CID.
	Cancel
)

// String names the kind as scripts and logs write it.
func (k EntryKind) String() string {
	switch k {
	case WantHave:
		return "want-have"
	case WantBlock:
		return "want-block"
	case Cancel:
		return "cancel"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Entry is one change of the want list that a peer keeps of ours.
type Entry struct {
	CID          cid.Cid
	Kind         EntryKind
	Priority     int32
	SendDontHave bool // the peer should say so when it does not have the block

	PricePerMiB Amount // of a WantBlock: what we have agreed to pay at most
}

// Presence is a peer's word on whether it has a block, and for how much.
type Presence struct {
	CID   cid.Cid
	Have  bool
	Price Amount // of this block; 0 is free
	Bytes uint64 // the block's length; 0 is unknown
}

// Incoming is one decoded message of a peer. Blocks are already verified against CIDs computed from
// their own prefix, so each hashes to its CID. The receiver owns it.
type Incoming struct {
	Presences []Presence
	Blocks    []blocks.Block
	Bytes     int      // length of the message on the wire
	Account   *Account // what the peer asks for blocks and how we stand with it; nil where it says nothing
}

// Handler is told what happens on the network. Its methods may be called from many goroutines and
// apply backpressure: they block until the event was taken or ctx ended.
type Handler interface {
	// PeerConnected reports a peer that speaks the protocol. hasPresences is false for peers of
	// version 1.1, which never say have or don't-have.
	PeerConnected(ctx context.Context, p peer.ID, hasPresences bool)
	// PeerGone reports that the last connection to a peer is closed.
	PeerGone(ctx context.Context, p peer.ID)
	// Received hands over one message of a peer.
	Received(ctx context.Context, p peer.ID, m Incoming)
	// SendFailed reports that entries given to Send did not all reach the peer.
	SendFailed(ctx context.Context, p peer.ID, err error)
	// PeerMisbehaved reports a peer that was dropped for a malformed message.
	PeerMisbehaved(ctx context.Context, p peer.ID, err error)
}

// Network moves messages between this node and its peers. All methods are safe for concurrent use.
type Network interface {
	// Start begins to report to h. What it starts ends with ctx.
	Start(ctx context.Context, h Handler) error
	// Send queues changes of the want list for a peer and returns at once. The queue is bounded;
	// changes are coalesced per peer and sent in order.
	Send(p peer.ID, entries []Entry)
	// Dial connects to a peer. A nil error says that a connection stands; whether the peer speaks
	// the protocol is reported by PeerConnected, before or after.
	Dial(ctx context.Context, p peer.AddrInfo) error
	// Disconnect closes all connections to a peer, after a ban.
	Disconnect(p peer.ID)
	// Protect marks a peer as in use by a session, or as no longer in use. It never closes anything.
	Protect(p peer.ID, on bool)
}

// ProviderMap knows who holds what. Methods are safe for concurrent use.
type ProviderMap interface {
	// FindProviders sends at most max peers that announced c and closes the channel, at the latest
	// when ctx has ended.
	FindProviders(ctx context.Context, c cid.Cid, max int) <-chan peer.AddrInfo
	// Provide announces that this node holds c.
	Provide(ctx context.Context, c cid.Cid) error
}

// Place says where in a UnixFS file a raw leaf lies. The zero Place means none.
type Place struct {
	File      cid.Cid // the file's root
	Offset    uint64  // bytes from the file's start
	FileBytes uint64  // the file's length
	Bytes     uint64  // what the file declares to lie there, down to the leaf; 0 is unknown
}

// Want names a block and what is known about it.
type Want struct {
	CID     cid.Cid
	Dataset cid.Cid // root under which the block was met; where discovery looks. May be undefined.
	Place   Place
	Passing bool // the block is not to be kept in the store, unless another want for it says nothing of it
}

// Arrival is a verified block on its way to the store.
type Arrival struct {
	Block   blocks.Block
	Place   Place
	Passing bool // it is not to be kept; no [Store] sees it
}

// Store is where arrivals go and what is served to peers. Methods are safe for concurrent use.
type Store interface {
	// Get returns a block; its error wraps [ErrNotFound] when the block is not here.
	Get(ctx context.Context, c cid.Cid) (blocks.Block, error)
	// SizeOf returns a block's length in bytes; its error wraps [ErrNotFound] as Get's does.
	SizeOf(ctx context.Context, c cid.Cid) (int, error)
	// Put keeps verified blocks. It need not be durable when Put returns. The slice is the caller's.
	Put(ctx context.Context, arrivals []Arrival) error
}
