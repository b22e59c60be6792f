//go:build race

package erasure

// mostPatterns is up to how many patterns of loss are all tried; of more, half as many at random. The codec has no state
// that goroutines share: the race detector only makes it slow.
const mostPatterns = 500
