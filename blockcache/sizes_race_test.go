//go:build race

package blockcache

// The race detector makes what writes the database slow: all is done without it.
const (
	// cutRoots is how many pins TestPowerCutAcrossLogs writes logs with.
	cutRoots = 32
	// seedShare is what the seeds of random tests are divided by.
	seedShare = 3
)
