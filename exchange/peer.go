package exchange

import (
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// guessLatency and guessRate are what an unproven peer is expected to do. They are hopeful, so
	// that new peers are tried; an early timeout costs little, as late blocks are taken too.
	guessLatency = 100 * time.Millisecond
	guessRate    = 8 * mib // bytes a second
	leastRate    = 4 * kib
	// sampleTime is how long throughput is measured for one sample at least.
	sampleTime = 20 * time.Millisecond
	// rateMemory is the time over which throughput is averaged.
	rateMemory = 250 * time.Millisecond
	// maxAddrs is how many addresses of a peer are kept, and maxAddrBytes how long each may be.
	maxAddrs     = 16
	maxAddrBytes = 256
)

// peerState is what the machine knows of a peer: how it is reached, what it was asked, how it delivers.
type peerState struct {
	timer // the end of the earliest of its pauses
	id    peer.ID
	addrs []multiaddr.Multiaddr

	connected bool
	presences bool // it says have and don't-have
	active    bool // in use: counted, protected
	listed    int  // position in machine.connected plus one
	used      time.Duration
	heard     time.Duration // it last said something, or was taken into use

	members []*member // sessions that it is good for
	asks    map[cid.Cid]*ask
	open    int   // asks that are unanswered and have time left
	blocks  int   // blocks asked for that have time left
	bytes   int64 // estimated length of those
	outbox  []Entry

	charges   bool   // it wants money for its blocks, as of its last word
	charged   bool   // it ever did
	perMiB    Amount // what it takes; 0 is unknown
	dues      int    // blocks that it is not yet paid for
	unpayable bool   // the last payment to it failed
	suspended bool   // it gives nothing until it is paid
	rest      rest

	delivery
	failures    int           // in a row
	backoff     time.Duration // not asked before
	bans        int
	bannedUntil time.Duration
	banReason   string // of the last ban

	dialing    bool
	dialQueued bool
	dialedFor  *session
	dialFails  int
	redial     time.Duration // not dialed before
}

// delivery measures what a peer delivers.
type delivery struct {
	latency   time.Duration // smoothed; 0 unknown
	rate      float64       // smoothed bytes a second while it had something to deliver; 0 unknown
	progress  time.Duration // the last block, or when it was first asked for one since
	delivered int64         // bytes that were wanted
	unasked   int64         // bytes that nobody asked for
	unknown   int           // blocks that nobody can have asked for
	excused   int           // blocks that may still come, as they were asked for so long ago that their CIDs may be forgotten
	excusing  int           // the same, but since recentCIDs.laps was lap: their CIDs are known
	lap       int
	lastBlock time.Duration

	sampling    bool
	sampleStart time.Duration
	sampleBytes int64
}

// proven says whether the peer ever delivered a block that was wanted.
func (d *delivery) proven() bool { return d.delivered > 0 }

// arrived measures the arrival of a block of n bytes. busy says whether more are due.
func (d *delivery) arrived(now time.Duration, n int64, busy bool) {
	d.progress, d.lastBlock = now, now
	if !d.sampling { // what came before the first block is latency
		d.sampling, d.sampleStart, d.sampleBytes = true, now, 0
	} else {
		d.sampleBytes += n
	}
	took := now - d.sampleStart
	if took >= sampleTime || !busy && took >= sampleTime/10 {
		d.sampled(float64(d.sampleBytes)/took.Seconds(), took)
		d.sampleStart, d.sampleBytes = now, 0
	}
	d.sampling = busy
}

// sampled folds one measured throughput into the average, by its weight in time.
func (d *delivery) sampled(rate float64, took time.Duration) {
	if d.rate == 0 {
		d.rate = max(rate, leastRate)
		return
	}
	weight := float64(took) / float64(took+rateMemory)
	d.rate = max(d.rate+(rate-d.rate)*weight, leastRate)
}

// excuse lets blocks come late: their cancel crosses them, however long ago that was.
func (d *delivery) excuse(blocks, lap int, l *Limits) {
	d.age(lap, l)
	d.excusing = min(d.excusing+blocks, 4*l.PeerWants)
}

// age notes that CIDs of which blocks may come late may be forgotten.
func (d *delivery) age(lap int, l *Limits) {
	if d.lap != lap {
		d.lap, d.excused, d.excusing = lap, min(d.excused+d.excusing, 4*l.PeerWants), 0
	}
}

// answered folds one measured latency into the average.
func (d *delivery) answered(took time.Duration) {
	took = max(took, time.Microsecond)
	if d.latency == 0 {
		d.latency = took
		return
	}
	d.latency += (took - d.latency) / 8
}

// alone measures a single block that took this long: the only way to know a peer that is never
// asked for two blocks at once.
func (d *delivery) alone(took time.Duration, n int64) {
	if d.rate == 0 && n >= 64*kib && took > 0 {
		if r := float64(n) / took.Seconds(); r < guessRate {
			d.rate = max(r, leastRate)
		}
	}
	if d.rate > 0 {
		took -= time.Duration(float64(n) / d.rate * float64(time.Second))
	}
	d.answered(took)
}

// slower halves what is expected of a peer that let its time go by.
func (d *delivery) slower() {
	if d.rate == 0 {
		d.rate = guessRate
	}
	d.rate = max(d.rate/2, leastRate)
}

// completion is how long a block of n bytes is expected to take, behind everything asked for before.
func (p *peerState) completion(now time.Duration, n int64) time.Duration {
	latency, rate := or(p.latency, guessLatency), or(p.rate, guessRate)
	if p.blocks > 0 && !p.rest.on {
		latency = max(latency, now-p.progress) // a peer that stalls gets worse by the moment
	}
	return latency + time.Duration(float64(p.bytes+n)/rate*float64(time.Second))
}

// window is how many bytes may be asked for at the peer.
func (p *peerState) window(l *Limits, besideProven bool) int64 {
	if !p.proven() && besideProven {
		return min(l.ProbeBytes, l.PeerBytes)
	}
	return min(max(int64(p.rate*l.WindowTime.Seconds()), l.PeerBytesMin), l.PeerBytes)
}

// failed notes a failure: the peer is left alone for a while, the longer the more often it failed.
// While it is left alone further failures say nothing new.
func (p *peerState) failed(now time.Duration, l *Limits) {
	if now < p.backoff {
		return
	}
	p.failures++
	p.backoff = now + pause(p.failures, l)
}

// pause is how long to wait after the n-th failure in a row.
func pause(n int, l *Limits) time.Duration {
	if n > l.Retries {
		return l.RefreshMax
	}
	return min(time.Duration(n)*l.RetryDelay, l.RefreshMax)
}

// banned says whether the peer is shut out.
func (p *peerState) banned(now time.Duration) bool { return now < p.bannedUntil }

// callable says whether the peer may be asked something now.
func (p *peerState) callable(now time.Duration) bool {
	return p.connected && now >= p.backoff && now >= p.bannedUntil
}

// info tells of the peer what its figures are.
func (p *peerState) info(now time.Duration) PeerInfo {
	info := PeerInfo{
		ID: p.id, Active: p.active, Presences: p.presences,
		Wants: len(p.asks), BytesInFlight: p.bytes, BytesReceived: p.delivered,
		Rate: int64(p.rate), Latency: p.latency,
		Failures: p.failures, Banned: max(0, p.bannedUntil-now),
		Dues: p.dues, Unpayable: p.unpayable, Suspended: p.suspended, PricePerMiB: p.perMiB,
	}
	if info.Banned > 0 {
		info.BanReason = p.banReason
	}
	return info
}

// keepAddrs returns those of a provider's addresses that are kept, without holding on to the others.
func keepAddrs(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	var kept []multiaddr.Multiaddr
	for _, a := range addrs {
		if len(kept) < maxAddrs && len(a.Bytes()) <= maxAddrBytes {
			kept = append(kept, a)
		}
	}
	return kept
}
