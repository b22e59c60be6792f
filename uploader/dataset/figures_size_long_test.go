//go:build long

package dataset

const (
	treeFiles    = 100000 // of the tree in which one file changes
	folders      = 100    // of 100 files each, of 10 KiB
	smallChanges = 300    // one after the other
	rewrites     = 20     // of half of a tree
)
