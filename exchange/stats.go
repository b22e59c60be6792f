package exchange

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Stats are the figures of the exchange since it was made. Bytes are of blocks. What went over the wire
// is counted by the network: see [NetworkStats].
type Stats struct {
	Peers    int // connected
	Active   int // of those in use
	Sessions int // datasets with open wants, or lately had
	Wants    int // blocks waited for, those being stored included
	Queued   int // of those waiting for room at a peer
	Seeking  int // of those nobody is known to have
	Parked   int // of those whose peers are waited for with a retry
	InFlight int64
	Storing  int64 // arrived and not yet stored

	Resolved  uint64 // blocks handed to all who waited
	Cancelled uint64 // wants given up by all who waited
	Expired   uint64 // callers whose deadline came
	Failed    uint64 // wants that ended with an error
	Bytes     uint64 // received and wanted
	Late      uint64 // blocks that came after their cancel, or twice
	LateBytes uint64
	Unasked   uint64 // blocks that nobody asked for
	Unwanted  uint64 // bytes of those

	Rescues      uint64 // blocks looked for in another way than at peers
	Rescued      uint64 // that came so
	Haves        uint64 // presences received
	DontHaves    uint64
	Hedges       uint64 // blocks asked for at a second peer
	HedgedBytes  uint64 // estimated
	Retries      uint64 // blocks asked for again, hedges included
	Timeouts     uint64
	SendFailures uint64
	Searches     uint64
	Dials        uint64
	DialFailures uint64
	Bans         uint64

	Downloads int       // running or waiting
	BlockTime Histogram // from a block's first want until all who waited have it
	FirstByte Histogram // from a download's begin until the first block of it that peers gave is stored

	Bought          uint64 // blocks that were paid for, or are owed for
	Spent           Amount // for those
	Owed            Amount // of that is not known to be paid
	Committed       Amount // promised for blocks that are asked for
	Today           Amount // spent since the day began, as far as it is known
	Payments        uint64 // that went well
	PaymentFailures uint64
	TooDear         uint64 // wants that failed because everybody asked too much
	OverBudget      uint64 // wants that failed because the money is used up
}

// histogramBounds is how many bounds a [Histogram] has.
const histogramBounds = 14

// HistogramBounds are the upper bounds of all but the last of a [Histogram]'s buckets.
var HistogramBounds = [histogramBounds]time.Duration{
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
	5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
}

// Histogram counts durations by length.
type Histogram struct {
	Buckets [histogramBounds + 1]uint64 // those above the bound before and not above their own; the last has none
	Count   uint64
	Sum     time.Duration
}

// observe counts a duration.
func (h *Histogram) observe(d time.Duration) {
	i, _ := slices.BinarySearch(HistogramBounds[:], d)
	h.Buckets[i]++
	h.Count++
	h.Sum += d
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
	BanReason     string        // why; empty when not banned
	PricePerMiB   Amount        // that it takes, as of its last word; 0 free or unknown
	Dues          int           // blocks that it is not yet paid for
	Unpayable     bool          // the last payment to it failed
	Suspended     bool          // it gives nothing until it is paid
}

// Usage is how much of a limit is in use.
type Usage struct {
	Name  string // of the field of [Limits]
	Used  int64
	Limit int64
}
