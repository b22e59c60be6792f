//go:build !race

package erasure

// mostPatterns is up to how many patterns of loss are all tried; of more, half as many at random.
const mostPatterns = 2000
