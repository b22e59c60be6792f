package api

import (
	"archive/tar"
	"context"
	"io"
	"time"
)

// ID is who a node is.
type ID struct {
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"` // full multiaddrs with /p2p/
	Version   string   `json:"version"`
	Network   string   `json:"network"`
	Repo      string   `json:"repo"`
	Pid       int      `json:"pid"`
	Daemon    bool     `json:"daemon"` // false: the node lives as long as the command it serves
}

// Peer is another node.
type Peer struct {
	ID         string   `json:"id"`
	Addresses  []string `json:"addresses"`
	Connected  bool     `json:"connected"`
	Banned     float64  `json:"banned_seconds,omitempty"` // how much longer
	Why        string   `json:"banned_for,omitempty"`
	Failures   int      `json:"failures"`   // in a row
	Price      uint64   `json:"price"`      // that it asks for a MiB, as of its last word
	Paid       uint64   `json:"paid"`       // to it, through all channels
	Earned     uint64   `json:"earned"`     // from it
	Remembered bool     `json:"remembered"` // re-dialled when the connection is lost
	LatencyMS  float64  `json:"latency_ms"`
	BytesIn    uint64   `json:"bytes_in"` // blocks received
	Agent      string   `json:"agent,omitempty"`
}

// AddOptions is how a tree is imported.
type AddOptions struct {
	Preserve bool // keep modes and times
	Pin      bool // keep the blocks until unpinned
	Raw      bool // the stream is one file's content, no tar
	Protect  Protection
	Upload   bool          // have providers keep it; needs Protect
	Lifetime time.Duration // at providers; zero: 30 days

	// Lane, if set, carries the descriptors of what [Pack] was told to pass on it. The client alone sets it.
	Lane *FileLane
	// Content returns what the entry of a regular file stands for, and its length in bytes. The server sets it.
	Content func(ctx context.Context, h *tar.Header, r io.Reader) (io.Reader, int64, error)
}

// Added is one imported root.
type Added struct {
	Name  string `json:"name"`
	CID   string `json:"cid"`
	Bytes uint64 `json:"bytes"` // of the DAG

	Manifest string `json:"manifest,omitempty"` // of its protection
}

// Kinds of an Entry.
const (
	KindFile    = "file"
	KindDir     = "directory"
	KindSymlink = "symlink"
)

// Entry describes a file, a directory or a symbolic link.
type Entry struct {
	Name    string     `json:"name,omitempty"`
	CID     string     `json:"cid"`
	Kind    string     `json:"kind,omitempty"` // empty: not known without fetching it
	Bytes   uint64     `json:"bytes"`          // of a file's content; of a directory's DAG where known
	Mode    string     `json:"mode,omitempty"` // octal, where it was preserved
	ModTime *time.Time `json:"mtime,omitempty"`
	Target  string     `json:"target,omitempty"`
}

// MountRequest is what to mount where.
type MountRequest struct {
	Dir        string        `json:"dir"`           // absolute
	CID        string        `json:"cid,omitempty"` // empty: any CID by name
	Lazy       bool          `json:"lazy,omitempty"`
	AllowOther bool          `json:"allow_other,omitempty"`
	Remember   bool          `json:"remember,omitempty"` // a daemon restores it at start
	Timeout    time.Duration `json:"timeout,omitempty"`  // zero: the node's
	Readahead  int64         `json:"readahead,omitempty"`

	Spending // for what the mount reads

	Upload *UploadRequest `json:"upload,omitempty"` // an upload directory; then CID is empty

	NoPassthrough bool `json:"no_passthrough,omitempty"` // the node answers all reads, also of complete files
}

// Channel is a payment channel. Amounts are in the ledger's smallest unit.
type Channel struct {
	ID        string     `json:"id"`
	Peer      string     `json:"peer"`
	Direction string     `json:"direction"` // "paying" the peer, or "receiving" from it
	For       string     `json:"for"`       // "blocks" or "storage"
	State     string     `json:"state"`
	Deposit   uint64     `json:"deposit"`
	Amount    uint64     `json:"amount"`  // paid so far
	Settled   uint64     `json:"settled"` // of that, with the ledger
	Opened    time.Time  `json:"opened"`
	Closed    *time.Time `json:"closed,omitempty"`
}

// StateMounted is the state of a mount that answers.
const StateMounted = "mounted"

// Mount is one mount that the node serves or is to serve.
type Mount struct {
	Dir        string    `json:"dir"`
	CID        string    `json:"cid,omitempty"`
	Upload     string    `json:"upload,omitempty"` // name of an upload directory
	State      string    `json:"state"`            // StateMounted, or why not
	Since      time.Time `json:"since"`
	Remembered bool      `json:"remembered"`
	Reads      uint64    `json:"reads"`
	BytesRead  uint64    `json:"bytes_read"`
	Errors     uint64    `json:"errors"`

	Passthrough uint64 `json:"passthrough"` // files handed to the kernel, which reads them by itself
}

// Pin is a root whose blocks stay.
type Pin struct {
	CID      string `json:"cid"`
	Blocks   uint64 `json:"blocks"`
	Complete bool   `json:"complete"`
}

// Progress is how far a long work has come.
type Progress struct {
	Blocks     uint64 `json:"blocks"`
	Bytes      uint64 `json:"bytes"`
	TotalBytes uint64 `json:"total_bytes,omitempty"` // 0: not known
}

// GCResult is what a collection dropped.
type GCResult struct {
	Blocks uint64 `json:"blocks"`
	Bytes  uint64 `json:"bytes"`
}

// Status is the node on one screen.
type Status struct {
	ID       ID             `json:"id"`
	Uptime   float64        `json:"uptime_seconds"`
	Store    StoreStatus    `json:"store"`
	Cache    CacheStatus    `json:"cache"`
	Exchange ExchangeStatus `json:"exchange"`
	Memory   MemoryStatus   `json:"memory"`
	Money    MoneyStatus    `json:"money"`
	Announce AnnounceStatus `json:"announce"`
	Recovery RecoveryStatus `json:"recovery"`
	Storage  StorageStatus  `json:"storage"`
	Limits   []LimitStatus  `json:"limits"`
	Peers    int            `json:"peers"`
	Mounts   []Mount        `json:"mounts"`
	Pins     int            `json:"pins"`
}

// StoreStatus is the block store on disk.
type StoreStatus struct {
	UsedBytes   uint64 `json:"used_bytes"`
	QuotaBytes  uint64 `json:"quota_bytes"`
	PinnedBytes uint64 `json:"pinned_bytes"`
	Blocks      uint64 `json:"blocks"`
	Packs       uint64 `json:"packs"`
	Bodies      uint64 `json:"bodies"`
	Evictions   uint64 `json:"evictions"`
	Corruptions uint64 `json:"corruptions"`
}

// CacheStatus is the memory tier.
type CacheStatus struct {
	UsedBytes uint64 `json:"used_bytes"`
	MaxBytes  uint64 `json:"max_bytes"`
	Hits      uint64 `json:"hits"`
	Misses    uint64 `json:"misses"`
}

// AnnounceStatus is how far the announcements of more than roots are. Counters begin with the process.
type AnnounceStatus struct {
	Strategy  string `json:"strategy"` // roots: the rest stays zero
	Pending   uint64 `json:"pending"`  // blocks that came lately
	Sweeping  bool   `json:"sweeping"` // all blocks are being gone through
	Swept     uint64 `json:"swept"`    // blocks that this sweep, or the last one, has come past
	Announced uint64 `json:"announced"`
	Failed    uint64 `json:"failed"` // attempts
	Left      uint64 `json:"left"`   // blocks left to the next sweep after too many of them
	Missed    uint64 `json:"missed"` // blocks that came too fast; the next sweep begins earlier for them
	Began     string `json:"last_sweep,omitempty"`
	Ended     string `json:"last_sweep_ended,omitempty"`
}

// ExchangeStatus is what went over the network since the start.
type ExchangeStatus struct {
	BlocksIn  uint64 `json:"blocks_in"`
	BlocksOut uint64 `json:"blocks_out"`
	BytesIn   uint64 `json:"bytes_in"`
	BytesOut  uint64 `json:"bytes_out"`
	Downloads uint64 `json:"downloads"` // of whole DAGs, active
	Wants     uint64 `json:"wants"`     // open
	Sessions  uint64 `json:"sessions"`
	Unasked   uint64 `json:"unasked_blocks"`   // nobody wanted them, wrong bytes among them
	Duplicate uint64 `json:"duplicate_blocks"` // wanted once, and here already
	Queued    uint64 `json:"announcements_queued"`
	Announced uint64 `json:"announced"`

	LateBytes       uint64 `json:"duplicate_bytes"`
	UnaskedBytes    uint64 `json:"unasked_bytes"`
	InFlight        uint64 `json:"bytes_in_flight"`
	Parked          uint64 `json:"parked_wants"`  // wait for a retry
	QueuedWants     uint64 `json:"queued_wants"`  // wait for room at a peer
	Seeking         uint64 `json:"seeking_wants"` // nobody is known to have them
	Resolved        uint64 `json:"resolved_wants"`
	Failed          uint64 `json:"failed_wants"`
	Hedges          uint64 `json:"hedges"`
	HedgedBytes     uint64 `json:"hedged_bytes"`
	Retries         uint64 `json:"retries"`
	Timeouts        uint64 `json:"timeouts"`
	Searches        uint64 `json:"searches"`
	Dials           uint64 `json:"dials"`
	DialFailures    uint64 `json:"dial_failures"`
	Bans            uint64 `json:"bans"`
	Malformed       uint64 `json:"malformed_messages"`
	RefusedStreams  uint64 `json:"refused_streams"`
	WantsOverflowed uint64 `json:"overflowed_wants"` // of peers whose want list was full
	PeersWait       uint64 `json:"blocks_peers_wait_for"`

	BlockTime Histogram `json:"block_time"` // from the first want for a block until it is here
	FirstByte Histogram `json:"first_byte"` // from the beginning of a download until the first block that peers gave
}

// Histogram counts durations by length, in seconds.
type Histogram struct {
	Count   uint64   `json:"count"`
	Sum     float64  `json:"sum_seconds"`
	Buckets []Bucket `json:"buckets,omitempty"` // cumulative, those without end left out
}

// Bucket counts the durations up to a bound.
type Bucket struct {
	Seconds float64 `json:"le"`
	Count   uint64  `json:"count"`
}

// MoneyStatus is what was paid and earned since the start, in the ledger's smallest unit.
type MoneyStatus struct {
	Price     uint64          `json:"price"` // asked for a MiB
	MaxPrice  uint64          `json:"max_price"`
	Budget    uint64          `json:"budget"`     // of a dataset that has none of its own
	DayBudget uint64          `json:"day_budget"` // 0: none
	PerSecond uint64          `json:"per_second"`
	Today     uint64          `json:"spent_today"`
	Spent     uint64          `json:"spent"`
	Owed      uint64          `json:"owed"`      // of that is not paid yet
	Committed uint64          `json:"committed"` // promised for blocks that are on their way
	Charged   uint64          `json:"charged"`   // for blocks that were sent
	Earned    uint64          `json:"earned"`    // in payments for them
	Failures  uint64          `json:"payment_failures"`
	Refused   uint64          `json:"refused_payments"` // of peers
	TooDear   uint64          `json:"too_dear_wants"`
	Exhausted uint64          `json:"over_budget_wants"`
	Datasets  []DatasetStatus `json:"datasets,omitempty"`
}

// DatasetStatus is what may be and was paid for one root.
type DatasetStatus struct {
	CID       string `json:"cid"`
	MaxPrice  uint64 `json:"max_price"`
	Budget    uint64 `json:"budget"`
	Spent     uint64 `json:"spent"`
	Committed uint64 `json:"committed"`
}

// RecoveryStatus is what was rebuilt from stripes since the start.
type RecoveryStatus struct {
	Rescues   uint64 `json:"rescues"`  // blocks that were to be rebuilt, or asked for beside a slow fetch
	Failures  uint64 `json:"failures"` // of those, as far as they did not come otherwise
	Stripes   uint64 `json:"stripes"`  // rebuilt
	Blocks    uint64 `json:"blocks"`   // of those that were lost
	Bytes     uint64 `json:"bytes"`
	Shards    uint64 `json:"shards_asked_for"`
	Active    int    `json:"active_stripes"`
	Manifests int    `json:"open_manifests"`
}

// LimitStatus is how much of a limit is in use.
type LimitStatus struct {
	Name  string `json:"name"`
	Used  int64  `json:"used"`
	Limit int64  `json:"limit"`
}

// MemoryStatus is the memory of the process.
type MemoryStatus struct {
	HeapBytes  uint64 `json:"heap_bytes"`
	LimitBytes uint64 `json:"limit_bytes"`
	Goroutines int    `json:"goroutines"`
}
