//go:build !long && race

package uploader

// The machine has no goroutines: the race detector only makes it slow.
const (
	// randomSeeds is how many lives TestRandomEvents lives.
	randomSeeds = 40
	// stopSeeds is how many lives TestStopAtEveryReady stops.
	stopSeeds = 60
	// churnSeeds is how many lives TestChurn lives.
	churnSeeds = 10
)
