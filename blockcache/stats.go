package blockcache

import "sync/atomic"

// counters count since the store was opened.
type counters struct {
	hits, misses, corruptions atomic.Int64
	evictions, evictedBytes   atomic.Int64
	readBytes, verifiedBytes  atomic.Int64
	recovered                 atomic.Int64
	lentChanged               atomic.Int64
}

// StoreStats are figures of a [Store]. Counts are since it was opened.
type StoreStats struct {
	UsedBytes   int64 // packs and bodies on the disk
	QuotaBytes  int64 // zero: no bound
	Blocks      int64 // distinct blocks
	Packs       int
	Bodies      int   // begun or complete
	Complete    int   // complete bodies
	Lent        int   // bodies that lie in files lent to the store; they take none of UsedBytes
	LentBytes   int64 // what is in those
	PinnedBytes int64 // of blocks that are here
	Pins        int

	Hits, Misses            int64
	ReadBytes               int64
	Corruptions             int64 // places dropped because their bytes were bad
	Evictions, EvictedBytes int64 // files, and what they gave
	VerifiedBytes           int64 // checked in the background
	Unverified              int   // files not yet checked since the last unclean stop
	Recovered               int64 // records found again in packs when the store was opened
	LentChanged             int64 // lent files that were gone or had changed when they were opened
}

// Stats returns the store's figures.
func (s *Store) Stats() StoreStats {
	st := StoreStats{
		UsedBytes: s.used.Load(), QuotaBytes: s.quota, Blocks: s.blocks.Load(),
		PinnedBytes: s.pinnedBytes.Load(), Pins: s.ix.roots.count(),
		Hits: s.counts.hits.Load(), Misses: s.counts.misses.Load(), ReadBytes: s.counts.readBytes.Load(),
		Corruptions: s.counts.corruptions.Load(), Evictions: s.counts.evictions.Load(),
		EvictedBytes: s.counts.evictedBytes.Load(), VerifiedBytes: s.counts.verifiedBytes.Load(),
		Recovered: s.counts.recovered.Load(), LentBytes: s.lent.Load(), LentChanged: s.counts.lentChanged.Load(),
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	st.Packs = len(s.packs)
	for _, p := range s.packs {
		if p.verified.Load() != s.epoch {
			st.Unverified++
		}
	}
	for _, b := range s.bodies {
		if !b.committed.Load() {
			continue
		}
		st.Bodies++
		if b.complete() {
			st.Complete++
		}
		if b.lent() {
			st.Lent++
		}
		if b.verified.Load() != s.epoch && b.loan.Load() == nil {
			st.Unverified++
		}
	}
	return st
}
