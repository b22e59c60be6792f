package recovery

import "sync/atomic"

// Stats are figures of a [Recovery] since it was made.
type Stats struct {
	Rescues   uint64 // blocks that were to be rebuilt
	Blocks    uint64 // of those that were
	Failures  uint64 // of those that were not
	Stripes   uint64 // rebuilt
	Rebuilt   uint64 // blocks of those stripes that were lost, wanted or not
	Bytes     uint64 // of those
	Shards    uint64 // asked for from peers
	Active    int    // stripes being rebuilt
	Manifests int    // open
}

type counts struct {
	rescues, blocks, failures, stripes, rebuilt, bytes, shards atomic.Uint64

	uses uint64 // of manifests; under the Recovery's lock
}

// Stats returns the figures so far.
func (r *Recovery) Stats() Stats {
	r.mu.Lock()
	active, open := len(r.flights), len(r.manifests)
	r.mu.Unlock()
	c := &r.counts
	return Stats{Rescues: c.rescues.Load(), Blocks: c.blocks.Load(), Failures: c.failures.Load(), Stripes: c.stripes.Load(),
		Rebuilt: c.rebuilt.Load(), Bytes: c.bytes.Load(), Shards: c.shards.Load(), Active: active, Manifests: open}
}
