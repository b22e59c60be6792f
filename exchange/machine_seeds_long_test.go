//go:build long

package exchange

const (
	// randomSeeds is how many lives TestRandomEvents lives.
	randomSeeds = 10_000
	// crowdSeeds is how many crowds of each kind TestCrowds meets, and crowdLeaves how many blocks they give.
	crowdSeeds  = 50
	crowdLeaves = 1000
)
