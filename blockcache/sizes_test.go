//go:build !race

package blockcache

const (
	// cutRoots is how many pins TestPowerCutAcrossLogs writes logs with.
	cutRoots = 40
	// seedShare is what the seeds of random tests are divided by.
	seedShare = 1
)
