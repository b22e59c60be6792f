// Package test holds what needs real processes, mounts and peers: each test runs
// nodes of the built binary in a [swarm.Swarm] and looks at them as their users
// do. A few tests look at the source tree instead. They run as root, on Linux
// with FUSE; `-tags long` makes them big.
package test

import (
	"fmt"
	"os"
	"testing"

	uio "github.com/ipfs/boxo/ipld/unixfs/io"
)

// childEnv names the program the test binary runs as instead of testing: what
// touches a mount lives in a process that can be killed.
const childEnv = "HOLDFAST_TEST_CHILD"

var children = map[string]func(args []string) error{
	"mmap":    mmapChild,
	"readers": readersChild,
	"hands":   handsChild,
	"hold":    holdChild,
	"reads":   readsChild,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// boxo keeps a profile in globals, to be set once.
	uio.UnixFS_v1_2025.ApplyGlobals()
	os.Exit(m.Run())
}
