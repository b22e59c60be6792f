//go:build long

package dataset

const treeFiles = 100000 // of the tree in which one file changes
