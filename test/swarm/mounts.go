package swarm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MountInfo is one line of /proc/self/mountinfo.
type MountInfo struct {
	Dir   string
	Type  string // as fuse.holdfast
	Minor uint32 // of the device: the connection's name below /sys/fs/fuse/connections
}

// Mounts lists the mounts at or below dir, innermost last.
func Mounts(dir string) ([]MountInfo, error) {
	var found []MountInfo
	err := scan("/proc/self/mountinfo", func(line string) {
		fields := strings.Fields(line)
		if len(fields) < 9 {
			return
		}
		m := MountInfo{Dir: strings.ReplaceAll(fields[4], `\040`, " ")}
		if m.Dir != dir && !strings.HasPrefix(m.Dir, dir+"/") {
			return
		}
		var major uint32
		fmt.Sscanf(fields[2], "%d:%d", &major, &m.Minor)
		for i, field := range fields {
			if field == "-" && i+1 < len(fields) {
				m.Type = fields[i+1]
			}
		}
		found = append(found, m)
	})
	return found, err
}

// unmountBelow ends every FUSE mount below dir, hung or not: the connection is
// aborted first so that no reader stays in the kernel.
func unmountBelow(dir string) {
	mounts, _ := Mounts(dir)
	for i := len(mounts) - 1; i >= 0; i-- {
		abort := filepath.Join("/sys/fs/fuse/connections", fmt.Sprint(mounts[i].Minor), "abort")
		if strings.HasPrefix(mounts[i].Type, "fuse") {
			os.WriteFile(abort, []byte("1"), 0o200)
		}
		unix.Unmount(mounts[i].Dir, unix.MNT_DETACH)
	}
}
