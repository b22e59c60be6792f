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

// unmountBelow ends every mount below dir, hung or not: a FUSE connection is
// aborted first so that no reader stays in the kernel.
func (s *Swarm) unmountBelow(dir string) {
	mounts, _ := Mounts(dir)
	for i := len(mounts) - 1; i >= 0; i-- {
		if strings.HasPrefix(mounts[i].Type, "fuse") {
			os.WriteFile(s.connection(mounts[i], "abort"), []byte("1"), 0o200)
		}
		unix.Unmount(mounts[i].Dir, unix.MNT_DETACH)
	}
}

// connections is where the kernel shows its FUSE connections.
const connections = "/sys/fs/fuse/connections"

// fuseControlMagic is the type of that file system.
const fuseControlMagic = 0x65735543

// connection is the path of a control file of a FUSE mount.
func (s *Swarm) connection(m MountInfo, file string) string {
	return filepath.Join(s.control, fmt.Sprint(m.Minor), file)
}

// openControl finds the control files of FUSE connections. On some machines
// nobody has mounted them; then the swarm holds a mount of its own that is in no
// directory and goes with the process.
func (s *Swarm) openControl() (done func(), err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(connections, &st); err == nil && st.Type == fuseControlMagic {
		s.control = connections
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "holdfast-fusectl-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	if err := unix.Mount("fusectl", dir, "fusectl", 0, ""); err != nil {
		return nil, fmt.Errorf("mount the control files of FUSE: %w", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	held, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	s.control = fmt.Sprintf("/proc/self/fd/%d", held.Fd())
	return func() { held.Close() }, nil
}
