//go:build !long

package test

// How much goes between peers in a run that should take minutes.
const (
	spreadFiles = 2000     // of 64 KiB, from four peers
	oldBytes    = 32 << 20 // both ways with Bitswap 1.1
	booksRounds = 1
	floodBytes  = 256 << 20
)
