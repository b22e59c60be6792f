//go:build race

package dataset

// How often a dataset is killed, without a bound and with one. The race detector makes each life slow: all are lived
// without it.
const (
	lives        = 15
	boundedLives = 8
)
