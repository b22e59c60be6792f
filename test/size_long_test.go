//go:build long

package test

// How big things are in a run that may take an hour.
const (
	bigBytes     = 1 << 30
	leafFile     = 1025 << 20
	manyNames    = 1_000_000
	crashRounds  = 60
	readerRounds = 100
)
