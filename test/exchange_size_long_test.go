//go:build long

package test

// How much goes between peers in a run that may take an hour.
const (
	spreadFiles  = 16384
	spoiltBlocks = 8
	oldBytes     = 300 << 20
	booksRounds  = 10
	tradeDeposit = 100_000
	floodBytes   = 2 << 30
)
