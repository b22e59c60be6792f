package api

import (
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Public is what a node shows on a TCP address: metrics and the status page, and nothing that changes anything. On a
// loopback address it answers nobody who calls it by a foreign name: that is a page in a browser of this machine whose
// name was made to lead here.
func (s *Server) Public() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.endpoint(s.metrics))
	mux.Handle("GET /{$}", s.endpoint(s.page))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isLoopback(r) && !namesLoopback(r.Host) {
			http.Error(w, "this address is for 127.0.0.1 and localhost alone", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// isLoopback says whether a request came to a loopback address.
func isLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// namesLoopback says whether host, perhaps with a port, is an IP address or localhost.
func namesLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")) != nil
}

// figure is one metric of a Status.
type figure struct {
	name, help string
	counter    bool
	value      func(Status) float64
}

var figures = []figure{
	{"store_used_bytes", "bytes of blocks on disk", false, func(s Status) float64 { return float64(s.Store.UsedBytes) }},
	{"store_quota_bytes", "most bytes of blocks on disk", false, func(s Status) float64 { return float64(s.Store.QuotaBytes) }},
	{"store_pinned_bytes", "bytes of pinned blocks", false, func(s Status) float64 { return float64(s.Store.PinnedBytes) }},
	{"store_blocks", "blocks on disk", false, func(s Status) float64 { return float64(s.Store.Blocks) }},
	{"store_evictions_total", "blocks evicted to make room", true, func(s Status) float64 { return float64(s.Store.Evictions) }},
	{"store_corruptions_total", "blocks found damaged on disk", true, func(s Status) float64 { return float64(s.Store.Corruptions) }},
	{"cache_used_bytes", "bytes in the memory tier", false, func(s Status) float64 { return float64(s.Cache.UsedBytes) }},
	{"cache_hits_total", "blocks answered from memory", true, func(s Status) float64 { return float64(s.Cache.Hits) }},
	{"cache_misses_total", "blocks not found in memory", true, func(s Status) float64 { return float64(s.Cache.Misses) }},
	{"exchange_received_blocks_total", "blocks received from peers", true, func(s Status) float64 { return float64(s.Exchange.BlocksIn) }},
	{"exchange_sent_blocks_total", "blocks sent to peers", true, func(s Status) float64 { return float64(s.Exchange.BlocksOut) }},
	{"exchange_received_bytes_total", "bytes of blocks received from peers", true, func(s Status) float64 { return float64(s.Exchange.BytesIn) }},
	{"exchange_sent_bytes_total", "bytes of blocks sent to peers", true, func(s Status) float64 { return float64(s.Exchange.BytesOut) }},
	{"exchange_unasked_blocks_total", "blocks received that nobody wanted", true, func(s Status) float64 { return float64(s.Exchange.Unasked) }},
	{"exchange_duplicate_blocks_total", "blocks received more than once", true, func(s Status) float64 { return float64(s.Exchange.Duplicate) }},
	{"exchange_wants", "open wants", false, func(s Status) float64 { return float64(s.Exchange.Wants) }},
	{"exchange_announcements_queued", "announcements that wait", false, func(s Status) float64 { return float64(s.Exchange.Queued) }},
	{"announce_pending_blocks", "blocks that came lately and are not announced yet", false, func(s Status) float64 { return float64(s.Announce.Pending) }},
	{"announce_swept_blocks", "blocks that the sweep under way, or the last one, has come past", false, func(s Status) float64 { return float64(s.Announce.Swept) }},
	{"announce_sweeping", "1 while all blocks are being announced", false, func(s Status) float64 { return oneIf(s.Announce.Sweeping) }},
	{"announce_announced_total", "announcements of blocks that are no roots", true, func(s Status) float64 { return float64(s.Announce.Announced) }},
	{"announce_failed_total", "attempts at such announcements that failed", true, func(s Status) float64 { return float64(s.Announce.Failed) }},
	{"announce_left_total", "blocks left to the next sweep after too many failures", true, func(s Status) float64 { return float64(s.Announce.Left) }},
	{"announce_missed_total", "blocks that came too fast and make the next sweep begin earlier", true, func(s Status) float64 { return float64(s.Announce.Missed) }},
	{"announce_last_sweep_seconds", "when the last sweep began, in Unix seconds; 0: never", false, func(s Status) float64 { return unixSeconds(s.Announce.Began) }},
	{"exchange_duplicate_bytes_total", "bytes of blocks received more than once", true, func(s Status) float64 { return float64(s.Exchange.LateBytes) }},
	{"exchange_unasked_bytes_total", "bytes of blocks received that nobody wanted", true, func(s Status) float64 { return float64(s.Exchange.UnaskedBytes) }},
	{"exchange_bytes_in_flight", "bytes of blocks asked for and not here", false, func(s Status) float64 { return float64(s.Exchange.InFlight) }},
	{"exchange_queued_wants", "wants that wait for room at a peer", false, func(s Status) float64 { return float64(s.Exchange.QueuedWants) }},
	{"exchange_parked_wants", "wants that wait for a retry", false, func(s Status) float64 { return float64(s.Exchange.Parked) }},
	{"exchange_seeking_wants", "wants that nobody is known to have", false, func(s Status) float64 { return float64(s.Exchange.Seeking) }},
	{"exchange_resolved_wants_total", "wants that were fulfilled", true, func(s Status) float64 { return float64(s.Exchange.Resolved) }},
	{"exchange_failed_wants_total", "wants that ended with an error", true, func(s Status) float64 { return float64(s.Exchange.Failed) }},
	{"exchange_hedges_total", "blocks asked for at a second peer", true, func(s Status) float64 { return float64(s.Exchange.Hedges) }},
	{"exchange_hedged_bytes_total", "bytes of blocks asked for at a second peer, estimated", true, func(s Status) float64 { return float64(s.Exchange.HedgedBytes) }},
	{"exchange_retries_total", "blocks asked for again", true, func(s Status) float64 { return float64(s.Exchange.Retries) }},
	{"exchange_timeouts_total", "answers that did not come in time", true, func(s Status) float64 { return float64(s.Exchange.Timeouts) }},
	{"exchange_searches_total", "searches for providers", true, func(s Status) float64 { return float64(s.Exchange.Searches) }},
	{"exchange_dials_total", "peers dialled", true, func(s Status) float64 { return float64(s.Exchange.Dials) }},
	{"exchange_dial_failures_total", "dials that failed", true, func(s Status) float64 { return float64(s.Exchange.DialFailures) }},
	{"exchange_bans_total", "peers banned for a while", true, func(s Status) float64 { return float64(s.Exchange.Bans) }},
	{"exchange_malformed_messages_total", "messages that no honest peer sends", true, func(s Status) float64 { return float64(s.Exchange.Malformed) }},
	{"exchange_refused_streams_total", "streams of peers that had too many", true, func(s Status) float64 { return float64(s.Exchange.RefusedStreams) }},
	{"exchange_overflowed_wants_total", "wants of peers whose want list was full", true, func(s Status) float64 { return float64(s.Exchange.WantsOverflowed) }},
	{"exchange_blocks_peers_wait_for", "blocks that peers wait for and that are not here", false, func(s Status) float64 { return float64(s.Exchange.PeersWait) }},
	{"exchange_downloads", "downloads running or waiting", false, func(s Status) float64 { return float64(s.Exchange.Downloads) }},
	{"money_spent_total", "paid or owed for blocks, in the ledger's smallest unit", true, func(s Status) float64 { return float64(s.Money.Spent) }},
	{"money_owed", "of that not paid yet", false, func(s Status) float64 { return float64(s.Money.Owed) }},
	{"money_committed", "promised for blocks that are on their way", false, func(s Status) float64 { return float64(s.Money.Committed) }},
	{"money_spent_today", "paid or owed since the day began (UTC)", false, func(s Status) float64 { return float64(s.Money.Today) }},
	{"money_charged_total", "asked for blocks that were sent", true, func(s Status) float64 { return float64(s.Money.Charged) }},
	{"money_earned_total", "in payments for blocks that were sent", true, func(s Status) float64 { return float64(s.Money.Earned) }},
	{"money_payment_failures_total", "payments that failed", true, func(s Status) float64 { return float64(s.Money.Failures) }},
	{"money_refused_payments_total", "payments of peers that were not accepted", true, func(s Status) float64 { return float64(s.Money.Refused) }},
	{"money_too_dear_wants_total", "wants that failed because everybody asked too much", true, func(s Status) float64 { return float64(s.Money.TooDear) }},
	{"money_over_budget_wants_total", "wants that failed because a budget was used up", true, func(s Status) float64 { return float64(s.Money.Exhausted) }},
	{"recovery_rescues_total", "blocks that were to be rebuilt from their stripes", true, func(s Status) float64 { return float64(s.Recovery.Rescues) }},
	{"recovery_failures_total", "of those that were not", true, func(s Status) float64 { return float64(s.Recovery.Failures) }},
	{"recovery_stripes_total", "stripes rebuilt", true, func(s Status) float64 { return float64(s.Recovery.Stripes) }},
	{"recovery_blocks_total", "lost blocks rebuilt", true, func(s Status) float64 { return float64(s.Recovery.Blocks) }},
	{"recovery_bytes_total", "bytes of those", true, func(s Status) float64 { return float64(s.Recovery.Bytes) }},
	{"recovery_active_stripes", "stripes being rebuilt", false, func(s Status) float64 { return float64(s.Recovery.Active) }},
	{"peers", "connected peers", false, func(s Status) float64 { return float64(s.Peers) }},
	{"mounts", "mounts served", false, func(s Status) float64 { return float64(len(s.Mounts)) }},
	{"pins", "pinned roots", false, func(s Status) float64 { return float64(s.Pins) }},
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unixSeconds reads a time of RFC 3339; none is 0.
func unixSeconds(text string) float64 {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0
	}
	return float64(t.Unix())
}

// snapshot is one Status as a Prometheus collector.
type snapshot struct{ Status }

// Describe sends nothing: the figures are unchecked.
func (snapshot) Describe(chan<- *prometheus.Desc) {}

// Collect sends the figures.
func (s snapshot) Collect(out chan<- prometheus.Metric) {
	for _, f := range figures {
		kind := prometheus.GaugeValue
		if f.counter {
			kind = prometheus.CounterValue
		}
		desc := prometheus.NewDesc("holdfast_"+f.name, f.help, nil, nil)
		out <- prometheus.MustNewConstMetric(desc, kind, f.value(s.Status))
	}
	histogram(out, "exchange_block_seconds", "from the first want for a block until it is here", s.Exchange.BlockTime)
	histogram(out, "exchange_first_byte_seconds", "from the beginning of a download until its first block came", s.Exchange.FirstByte)
	used := prometheus.NewDesc("holdfast_limit_used", "how much of a limit is in use", []string{"limit"}, nil)
	limit := prometheus.NewDesc("holdfast_limit", "the limit", []string{"limit"}, nil)
	for _, l := range s.Limits {
		out <- prometheus.MustNewConstMetric(used, prometheus.GaugeValue, float64(l.Used), l.Name)
		out <- prometheus.MustNewConstMetric(limit, prometheus.GaugeValue, float64(l.Limit), l.Name)
	}
}

func histogram(out chan<- prometheus.Metric, name, help string, h Histogram) {
	buckets := make(map[float64]uint64, len(h.Buckets))
	for _, b := range h.Buckets {
		buckets[b.Seconds] = b.Count
	}
	out <- prometheus.MustNewConstHistogram(prometheus.NewDesc("holdfast_"+name, help, nil, nil), h.Count, h.Sum, buckets)
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	status, err := s.node.Status(r.Context())
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{snapshot{status}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("collect metrics: %w", err)
		}
	}
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{"bytes": humanize.Bytes}).Parse(strings.TrimSpace(`
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>holdfast</title>
<style>body{font:15px/1.6 system-ui,sans-serif;max-width:52em;margin:3em auto;padding:0 1em;color:#222;background:#fdfdfb}
h1{font-size:1.3em;font-weight:600}table{border-collapse:collapse;width:100%}td{padding:.25em 1em .25em 0;border-bottom:1px solid #e8e8e2;vertical-align:top}
td:first-child{color:#777;width:11em}code{font-size:.9em;word-break:break-all}</style></head><body>
<h1>holdfast {{.ID.Version}}</h1><table>
<tr><td>peer</td><td><code>{{.ID.ID}}</code></td></tr>
<tr><td>addresses</td><td>{{range .ID.Addresses}}<code>{{.}}</code><br>{{end}}</td></tr>
<tr><td>store</td><td>{{bytes .Store.UsedBytes}} of {{bytes .Store.QuotaBytes}}, {{.Store.Blocks}} blocks, {{bytes .Store.PinnedBytes}} pinned under {{.Pins}} roots</td></tr>
<tr><td>memory tier</td><td>{{bytes .Cache.UsedBytes}} of {{bytes .Cache.MaxBytes}}, {{.Cache.Hits}} hits, {{.Cache.Misses}} misses</td></tr>
<tr><td>network</td><td>{{.Peers}} peers, {{bytes .Exchange.BytesIn}} received, {{bytes .Exchange.BytesOut}} sent, {{.Exchange.Wants}} wants open</td></tr>
<tr><td>mounts</td><td>{{range .Mounts}}<code>{{.Dir}}</code> {{if .CID}}<code>{{.CID}}</code>{{else}}any CID{{end}}: {{.State}}<br>{{else}}none{{end}}</td></tr>
</table></body></html>
`)))

func (s *Server) page(w http.ResponseWriter, r *http.Request) error {
	status, err := s.node.Status(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	return page.Execute(w, status)
}
