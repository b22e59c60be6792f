//go:build !race

package blockcache

// cutRoots is how many pins TestPowerCutAcrossLogs writes logs with.
const cutRoots = 40
