//go:build !long && !race

package exchange

const (
	// randomSeeds is how many lives TestRandomEvents lives.
	randomSeeds = 200
	// crowdSeeds is how many crowds of each kind TestCrowds meets, and crowdLeaves how many blocks they give.
	crowdSeeds  = 1
	crowdLeaves = 500
)
