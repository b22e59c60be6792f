//go:build !long

package test

// How long tests of storage links go on.
const (
	churnRounds = 4
	killRounds  = 2
)
