//go:build !race

package dataset

// How often a dataset is killed, without a bound and with one, how often a directory near the size of a block changes, and
// how often a tree that was edited is compared with one built anew.
const (
	lives         = 60
	boundedLives  = 25
	acrossChanges = 3
	editedTrees   = 60
)

// acrossSizes are how many names the directory near the size of a block has.
var acrossSizes = []int{1010, 1060, 1045, 1080, 990, 1300, 1030, 20}
