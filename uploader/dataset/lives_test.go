//go:build !race

package dataset

// How often a dataset is killed, without a bound and with one.
const (
	lives        = 60
	boundedLives = 25
)
