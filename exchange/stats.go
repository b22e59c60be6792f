package exchange

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Stats are the figures of the exchange since it was made. Bytes are of blocks.
type Stats struct {
	Peers    int // connected
	Active   int // of those in use
	Sessions int // datasets with open wants, or lately had
	Wants    int // blocks waited for, those being stored included
	Seeking  int // of those nobody is known to have
	InFlight int64
	Storing  int64 // arrived and not yet stored

	Resolved  uint64 // blocks handed to all who waited
	Cancelled uint64 // wants given up by all who waited
	Bytes     uint64 // received and wanted
	Late      uint64 // blocks that came after their cancel, or twice
	LateBytes uint64
	Unasked   uint64 // blocks that nobody asked for
	Unwanted  uint64 // bytes of those

	Haves        uint64 // presences received
	DontHaves    uint64
	Hedges       uint64 // blocks asked for at a second peer
	HedgedBytes  uint64 // estimated
	Timeouts     uint64
	SendFailures uint64
	Searches     uint64
	Dials        uint64
	DialFailures uint64
	Bans         uint64

	Downloads int // running or waiting
}

// PeerInfo is what is known of a connected or banned peer.
type PeerInfo struct {
	ID            peer.ID
	Active        bool // in use by a session
	Presences     bool // says have and don't-have
	Wants         int  // entries on the want list it keeps of ours
	BytesInFlight int64
	BytesReceived int64
	Rate          int64 // bytes a second while it delivers; 0 unknown
	Latency       time.Duration
	Failures      int           // in a row
	Banned        time.Duration // how much longer; 0 not banned
}
