//go:build !long

package test

// How much goes between peers in a run that should take minutes.
const (
	spreadFiles  = 2000     // of 64 KiB, from four peers
	spoiltBlocks = 2        // that a peer may give before it is shut out
	oldBytes     = 32 << 20 // both ways with Bitswap 1.1
	booksRounds  = 1
	tradeDeposit = 20_000 // of a channel, for 20 MiB
	floodBytes   = 256 << 20
)
