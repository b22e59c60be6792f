//go:build !long

package swarm

import "time"

// Patience bounds every wait of the swarm: far above what a healthy node
// needs, so that only a hang reaches it.
const Patience = 90 * time.Second
