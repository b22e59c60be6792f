//go:build !long

package dataset

const treeFiles = 10000 // of the tree in which one file changes
