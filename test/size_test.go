//go:build !long

package test

// How big things are in a run that should take minutes.
const (
	bigBytes     = 64 << 20 // the big file
	leafFile     = 33 << 20 // the file of many leaves whose CID is compared
	manyNames    = 20_000   // entries of the big directory
	crashRounds  = 20       // kills of a mounting process
	readerRounds = 12       // reads of each of the hundred readers
)
