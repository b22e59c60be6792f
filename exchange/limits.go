package exchange

import (
	"fmt"
	"time"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// Limits bounds what the exchange asks for, keeps and tries. Zero fields take their defaults. All
// byte figures are of blocks; those not yet here count with an estimated length.
type Limits struct {
	TotalBytes   int64         // asked for and not yet stored, over all peers; default 64 MiB
	PeerBytes    int64         // asked for at the fastest of peers; default 32 MiB
	PeerBytesMin int64         // asked for at a peer that delivers slowly; default 4 MiB
	ProbeBytes   int64         // asked for at an unproven peer beside a proven one; default 1 MiB
	WindowTime   time.Duration // what is asked for at a peer is what it delivers in this time; default 500 ms

	Wants         int // open wants; more of them wait; default 65,536
	PeerWants     int // entries on the want list that one peer keeps of ours; default 1,024
	PeersPerBlock int // peers asked at a time whether they have a block; default 8
	ActivePeers   int // peers in use at a time; default 25
	KnownPeers    int // peers remembered while they are not connected; default 1,024
	Sessions      int // sessions remembered after their last want; default 256

	IdlePeer time.Duration // after this without use a peer is no longer protected; default 10 s

	Spending  Spending // what may be paid for a dataset, unless SetSpending says otherwise; default: nothing
	DayBudget Amount   // the most that all datasets together may cost a day (UTC); default 0: no more bounds than theirs
	Accounts  int      // datasets whose spending is known; default 1,024
	PeerDues  int      // blocks of one peer not yet paid for, after which no more is bought of it; default 1,024

	Dials           int // in parallel; default 8
	DialsPerSession int // of one session in parallel; default 5

	Searches        int           // for providers in parallel; default 8
	SearchEvery     time.Duration // the least time between two searches for one CID; default 3 s
	SearchProviders int           // taken from one search; default 16
	SearchTimeout   time.Duration // the longest a search may take; default 60 s

	HaveTimeout time.Duration // for the answer to a want-have, before others are asked; default 500 ms
	TimeoutMin  time.Duration // the least a block may take before it is asked elsewhere; default 1 s
	TimeoutMax  time.Duration // the most; default 20 s
	ResendEvery time.Duration // an unanswered want is sent again; default 30 s
	Retries     int           // of a peer that fails, one after RetryDelay × n; then only after RefreshMax; default 6
	RetryDelay  time.Duration // default 500 ms
	RefreshMin  time.Duration // the first pause before presences are asked for anew; default 1 s
	RefreshMax  time.Duration // the longest such pause; default 36 s

	RescueDelay time.Duration // after which a block is looked for in other ways too; default 3 s
	Rescues     int           // in parallel; default 256

	HedgePercent int64         // of received bytes that may be asked for twice; default 5
	HedgeBytes   int64         // that may be asked for twice from the start; default 4 MiB
	HedgeDelay   time.Duration // added to twice the expected time before a block is hedged; default 100 ms

	Ban           time.Duration // of a peer that broke the protocol; doubles each time, up to 16-fold; default 1 min
	UnaskedBlocks int           // nobody can have asked for, after which a peer is banned; default 8
	UnaskedBytes  int64         // nobody asked for, after which a peer that gave less than that is banned; default 16 MiB

	StoreBytes   int64 // arrived and not yet stored, after which peers are made to wait; default 64 MiB
	StoreWorkers int   // writing batches in parallel; default 2

	Downloads     int // in parallel; more of them wait; default 50
	DownloadWants int // open wants of one download; default 1,024
	DownloadLinks int // links one download keeps in memory before it expands further nodes; default 65,536
	DownloadNodes int // inner nodes one download remembers as walked, 16 bytes each; default 4 Mi
}

// withDefaults fills in what is zero.
func (l Limits) withDefaults() Limits {
	bytes := func(v *int64, d int64) { *v = or(*v, d) }
	count := func(v *int, d int) { *v = or(*v, d) }
	span := func(v *time.Duration, d time.Duration) { *v = or(*v, d) }
	bytes(&l.TotalBytes, 64*mib)
	bytes(&l.PeerBytes, 32*mib)
	bytes(&l.PeerBytesMin, 4*mib)
	bytes(&l.ProbeBytes, mib)
	span(&l.WindowTime, 500*time.Millisecond)
	count(&l.Wants, 65536)
	count(&l.PeerWants, 1024)
	count(&l.PeersPerBlock, 8)
	count(&l.ActivePeers, 25)
	count(&l.KnownPeers, 1024)
	count(&l.Sessions, 256)
	span(&l.IdlePeer, 10*time.Second)
	count(&l.Accounts, 1024)
	count(&l.PeerDues, 1024)
	count(&l.Dials, 8)
	count(&l.DialsPerSession, 5)
	count(&l.Searches, 8)
	span(&l.SearchEvery, 3*time.Second)
	count(&l.SearchProviders, 16)
	span(&l.SearchTimeout, time.Minute)
	l.timeDefaults()
	span(&l.RescueDelay, 3*time.Second)
	count(&l.Rescues, 256)
	bytes(&l.HedgeBytes, 4*mib)
	bytes(&l.HedgePercent, 5)
	bytes(&l.UnaskedBytes, 16*mib)
	bytes(&l.StoreBytes, 64*mib)
	count(&l.UnaskedBlocks, 8)
	count(&l.StoreWorkers, 2)
	count(&l.Downloads, 50)
	count(&l.DownloadWants, 1024)
	count(&l.DownloadLinks, 65536)
	count(&l.DownloadNodes, 4*mib)
	return l
}

// timeDefaults fills in how long peers are given.
func (l *Limits) timeDefaults() {
	span := func(v *time.Duration, d time.Duration) { *v = or(*v, d) }
	l.Retries = or(l.Retries, 6)
	span(&l.HaveTimeout, 500*time.Millisecond)
	span(&l.TimeoutMin, time.Second)
	span(&l.TimeoutMax, 20*time.Second)
	span(&l.ResendEvery, 30*time.Second)
	span(&l.RetryDelay, 500*time.Millisecond)
	span(&l.RefreshMin, time.Second)
	span(&l.RefreshMax, 36*time.Second)
	span(&l.HedgeDelay, 100*time.Millisecond)
	span(&l.Ban, time.Minute)
}

// validate refuses what can't work.
func (l Limits) validate() error {
	for _, v := range []int64{
		l.TotalBytes, l.PeerBytes, l.PeerBytesMin, l.ProbeBytes, int64(l.WindowTime), int64(l.Wants), int64(l.PeerWants),
		int64(l.PeersPerBlock), int64(l.ActivePeers), int64(l.KnownPeers), int64(l.Sessions), int64(l.IdlePeer), int64(l.Dials),
		int64(l.DialsPerSession), int64(l.Searches), int64(l.SearchEvery), int64(l.SearchProviders), int64(l.SearchTimeout),
		int64(l.HaveTimeout), int64(l.TimeoutMin), int64(l.TimeoutMax), int64(l.ResendEvery), int64(l.Retries), int64(l.RetryDelay),
		int64(l.RefreshMin), int64(l.RefreshMax), int64(l.RescueDelay), int64(l.Rescues), l.HedgePercent, l.HedgeBytes, int64(l.HedgeDelay), int64(l.Ban), l.UnaskedBytes,
		l.StoreBytes, int64(l.StoreWorkers), int64(l.Downloads), int64(l.DownloadWants), int64(l.DownloadLinks), int64(l.DownloadNodes),
		int64(l.UnaskedBlocks), int64(l.Accounts), int64(l.PeerDues),
	} {
		if v < 0 {
			return fmt.Errorf("check limits: %w: a limit is negative", ErrInvalid)
		}
	}
	if l.TimeoutMin > l.TimeoutMax || l.RefreshMin > l.RefreshMax || l.PeerBytesMin > l.PeerBytes {
		return fmt.Errorf("check limits: %w: a least value is above its most", ErrInvalid)
	}
	return nil
}

// or returns v, or d when v is zero.
func or[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
