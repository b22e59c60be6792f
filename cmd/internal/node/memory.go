package node

import (
	"os"
	"runtime/debug"

	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// Bytes that a node may need beside its memory tier and its database.
const (
	transferBytes = 112 << 20 // blocks on their way: asked for, arrived, served, read ahead
	otherBytes    = 48 << 20  // connections, decoded directories, stacks, everything else
)

// limitMemory tells the collector what the node may hold, as the sum of its caches, and returns it in bytes. A
// GOMEMLIMIT of the user's stays; then it is 0.
func limitMemory(cacheBytes int64) int64 {
	if os.Getenv("GOMEMLIMIT") != "" {
		return 0
	}
	limit := cacheBytes + repo.MemoryBytes + transferBytes + otherBytes
	debug.SetMemoryLimit(limit)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(75)
	}
	return limit
}
