//go:build !long

package dataset

const (
	treeFiles    = 1500 // of the tree in which one file changes
	folders      = 20   // of 100 files each, of 10 KiB
	smallChanges = 100  // one after the other
	rewrites     = 6    // of half of a tree
)
