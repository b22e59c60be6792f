//go:build !race

package dataset

// How often a dataset is killed, without a bound and with one, and how often a directory near the size of a block changes.
const (
	lives         = 60
	boundedLives  = 25
	acrossChanges = 3
)
