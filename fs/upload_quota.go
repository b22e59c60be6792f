package fs

import "sync"

// quota counts the bytes that staged inodes take on the disk. Where there is one, files that are opened for writing have
// no passthrough, so that all is reserved before it is written. Only who writes through a mapping into holes of a file that
// somebody reads in passthrough gets past that; what it takes is found within measureEvery.
type quota struct {
	limit int64 // 0: none

	// mu guards what follows.
	mu       sync.Mutex
	used     int64 // as measured
	reserved int64 // by writes on their way
}

// reserve takes room for n bytes before they are written; false if there is not that much.
func (q *quota) reserve(n int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.limit > 0 && n > 0 && n > q.limit-q.used-q.reserved {
		return false
	}
	q.reserved += n
	return true
}

// reserveSome takes room for up to n bytes and tells for how many.
func (q *quota) reserveSome(n int64) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.limit > 0 {
		n = max(0, min(n, q.limit-q.used-q.reserved))
	}
	q.reserved += n
	return n
}

// settle gives a reservation back; grown is what was found to have been taken instead, since the last measure.
func (q *quota) settle(reserved, grown int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved -= reserved
	q.used += grown
}

// free is the room left; ok is false without a quota.
func (q *quota) free() (bytes int64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(0, q.limit-q.used-q.reserved), q.limit > 0
}

// measured gives what is used, as last measured.
func (q *quota) measured() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}
