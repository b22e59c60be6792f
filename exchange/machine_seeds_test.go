//go:build !long

package exchange

// randomSeeds is how many lives TestRandomEvents lives.
const randomSeeds = 200
