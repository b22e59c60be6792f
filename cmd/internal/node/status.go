package node

import (
	"context"
	"runtime"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/uploader"
)

// Status is the node on one screen.
func (n *Node) Status(ctx context.Context) (st api.Status, err error) {
	if st.ID, err = n.ID(ctx); err != nil {
		return st, err
	}
	if st.Mounts, err = n.Mounts(ctx); err != nil {
		return st, err
	}
	s, c, x, w, a := n.store.Stats(), n.cache.Stats(), n.exchange.Stats(), n.network.Stats(), n.announce.Stats()
	st.Uptime = time.Since(n.start).Seconds()
	st.Peers, st.Pins = len(n.host.Network().Peers()), s.Pins
	st.Store = api.StoreStatus{UsedBytes: uint64(s.UsedBytes), QuotaBytes: uint64(s.QuotaBytes), PinnedBytes: uint64(s.PinnedBytes),
		Blocks: uint64(s.Blocks), Packs: uint64(s.Packs), Bodies: uint64(s.Bodies), Evictions: uint64(s.Evictions),
		Corruptions: uint64(s.Corruptions)}
	st.Cache = api.CacheStatus{UsedBytes: uint64(c.MemoryBytes), MaxBytes: uint64(n.cfg.Settings.CacheBytes),
		Hits: uint64(c.InMemory), Misses: uint64(c.Local - c.InMemory + c.Fetches)}
	st.Exchange = exchangeStatus(x, w)
	st.Exchange.Queued, st.Exchange.Announced = uint64(a.Pending), uint64(a.Entries-a.Pending)
	st.Announce = announceStatus(n.sweeper.Stats())
	st.Money = n.moneyStatus(x, w)
	r := n.recovery.Stats()
	st.Recovery = api.RecoveryStatus{Rescues: r.Rescues, Failures: r.Failures, Stripes: r.Stripes, Blocks: r.Rebuilt, Bytes: r.Bytes,
		Shards: r.Shards, Active: r.Active, Manifests: r.Manifests}
	if st.Storage, err = n.storageStatus(ctx); err != nil {
		return st, err
	}
	st.Limits = n.limitStatus(w)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	st.Memory = api.MemoryStatus{HeapBytes: m.HeapAlloc, LimitBytes: uint64(n.memory), Goroutines: runtime.NumGoroutine()}
	return st, nil
}

func (n *Node) storageStatus(ctx context.Context) (api.StorageStatus, error) {
	s, err := n.uploader.Stats(ctx)
	if err != nil {
		return api.StorageStatus{}, answer(err)
	}
	out := api.StorageStatus{Files: make(map[string]int), Waiting: s.Waiting, Providers: s.Providers, Fit: s.Fit, Owed: s.Owed,
		Networks: n.cfg.Settings.Networks}
	for state, count := range s.Files {
		out.Files[state.String()] = count
	}
	for state, count := range s.Links {
		switch state {
		case uploader.LinkSigned:
			out.Links += count
		case uploader.LinkFailed:
		default:
			out.Open += count
		}
	}
	if out.Unmounted, err = n.unmounted(ctx); err != nil {
		return out, answer(err)
	}
	if n.provider != nil {
		p := n.provider.Stats()
		out.Provider, out.QuotaBytes, out.UsedBytes, out.Chunks = true, p.QuotaBytes, p.UsedBytes, p.Whole
	}
	return out, nil
}

func exchangeStatus(x exchange.Stats, w exchange.NetworkStats) api.ExchangeStatus {
	return api.ExchangeStatus{BlocksIn: w.Received.Blocks, BlocksOut: w.Sent.Blocks, BytesIn: w.Received.BlockBytes,
		BytesOut: w.Sent.BlockBytes, Downloads: uint64(x.Downloads), Wants: uint64(x.Wants), Sessions: uint64(x.Sessions),
		Unasked: x.Unasked, UnaskedBytes: x.Unwanted, Duplicate: x.Late, LateBytes: x.LateBytes, InFlight: uint64(max(0, x.InFlight)),
		Parked: uint64(x.Parked), QueuedWants: uint64(x.Queued), Seeking: uint64(x.Seeking), Resolved: x.Resolved, Failed: x.Failed,
		Hedges: x.Hedges, HedgedBytes: x.HedgedBytes, Retries: x.Retries, Timeouts: x.Timeouts, Searches: x.Searches, Dials: x.Dials,
		DialFailures: x.DialFailures, Bans: x.Bans, Malformed: w.Malformed, RefusedStreams: w.Refused, WantsOverflowed: w.Overflow,
		PeersWait: uint64(w.Waiting), BlockTime: histogram(x.BlockTime), FirstByte: histogram(x.FirstByte)}
}

func announceStatus(s exchange.SweepStats) api.AnnounceStatus {
	out := api.AnnounceStatus{Strategy: string(s.Strategy), Pending: uint64(s.Pending), Sweeping: s.Sweeping, Swept: s.Swept,
		Announced: s.Announced, Failed: s.Failed, Left: s.Left, Missed: s.Missed}
	if !s.Began.IsZero() {
		out.Began = s.Began.UTC().Format(time.RFC3339)
	}
	if !s.Ended.IsZero() {
		out.Ended = s.Ended.UTC().Format(time.RFC3339)
	}
	return out
}

func histogram(h exchange.Histogram) api.Histogram {
	out := api.Histogram{Count: h.Count, Sum: h.Sum.Seconds()}
	var sum uint64
	for i, bound := range exchange.HistogramBounds {
		sum += h.Buckets[i]
		out.Buckets = append(out.Buckets, api.Bucket{Seconds: bound.Seconds(), Count: sum})
	}
	return out
}

func (n *Node) moneyStatus(x exchange.Stats, w exchange.NetworkStats) api.MoneyStatus {
	s := n.cfg.Settings
	m := api.MoneyStatus{Price: s.Price, MaxPrice: s.MaxPrice, Budget: s.Budget, DayBudget: s.DayBudget, PerSecond: s.PerSecond,
		Today: uint64(x.Today), Spent: uint64(x.Spent), Owed: uint64(x.Owed), Committed: uint64(x.Committed), Charged: uint64(w.Charged),
		Earned: uint64(w.Earned), Failures: x.PaymentFailures, Refused: w.RefusedPayments, TooDear: x.TooDear, Exhausted: x.OverBudget}
	for _, a := range n.exchange.Accounts() {
		m.Datasets = append(m.Datasets, api.DatasetStatus{CID: a.Dataset.String(), MaxPrice: uint64(a.Spending.MaxPricePerMiB),
			Budget: uint64(a.Spending.Budget), Spent: uint64(a.Spent), Committed: uint64(a.Committed)})
	}
	return m
}

// limitStatus lists the limits as the setting limits names them, and how much of each is in use.
func (n *Node) limitStatus(w exchange.NetworkStats) []api.LimitStatus {
	out := []api.LimitStatus{}
	for _, u := range n.exchange.Usage() {
		out = append(out, api.LimitStatus{Name: repo.LimitName(u.Name), Used: u.Used, Limit: u.Limit})
	}
	for _, u := range n.network.Usage() {
		out = append(out, api.LimitStatus{Name: repo.LimitName(u.Name), Used: u.Used, Limit: u.Limit})
	}
	return out
}
