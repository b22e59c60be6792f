//go:build race

package dataset

// How often a dataset is killed, without a bound and with one, how often a directory near the size of a block changes, and
// how often a tree that was edited is compared with one built anew. The race detector makes each time slow: all are done
// without it.
const (
	lives         = 15
	boundedLives  = 8
	acrossChanges = 1
	editedTrees   = 20
)

// acrossSizes are how many names the directory near the size of a block has.
var acrossSizes = []int{1060, 20}
