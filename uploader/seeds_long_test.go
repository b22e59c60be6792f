//go:build long

package uploader

const (
	// randomSeeds is how many lives TestRandomEvents lives.
	randomSeeds = 20_000
	// stopSeeds is how many lives TestStopAtEveryReady stops.
	stopSeeds = 10_000
	// churnSeeds is how many lives TestChurn lives.
	churnSeeds = 3_000
)
