//go:build !long && !race

package uploader

const (
	// randomSeeds is how many lives TestRandomEvents lives.
	randomSeeds = 300
	// stopSeeds is how many lives TestStopAtEveryReady stops.
	stopSeeds = 1000
	// churnSeeds is how many lives TestChurn lives.
	churnSeeds = 60
)
