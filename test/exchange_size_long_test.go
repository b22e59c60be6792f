//go:build long

package test

// How much goes between peers in a run that may take an hour.
const (
	spreadFiles = 16384
	oldBytes    = 300 << 20
	booksRounds = 10
	floodBytes  = 2 << 30
)
