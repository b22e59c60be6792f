//go:build race

package blockcache

// cutRoots is how many pins TestPowerCutAcrossLogs writes logs with: the race detector makes each of them slow.
const cutRoots = 20
