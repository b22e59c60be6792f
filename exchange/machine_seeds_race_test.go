//go:build !long && race

package exchange

// The machine has no goroutines: the race detector only makes it slow.
const (
	// randomSeeds is how many lives TestRandomEvents lives.
	randomSeeds = 40
	// crowdSeeds is how many crowds of each kind TestCrowds meets, and crowdLeaves how many blocks they give.
	crowdSeeds  = 1
	crowdLeaves = 200
)
