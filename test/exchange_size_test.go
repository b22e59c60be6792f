//go:build !long

package test

// How much goes between peers in a run that should take minutes.
const (
	spreadFiles = 2000 // of 64 KiB, from four peers
	boxoBytes   = 64 << 20
	booksRounds = 1
	floodBytes  = 256 << 20
)
