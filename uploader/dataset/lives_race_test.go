//go:build race

package dataset

// How often a dataset is killed, without a bound and with one, and how often a directory near the size of a block changes.
// The race detector makes each time slow: all are done without it.
const (
	lives         = 15
	boundedLives  = 8
	acrossChanges = 1
)
