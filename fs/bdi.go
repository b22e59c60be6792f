package fs

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// raiseReadahead lets the kernel read further ahead on the mount at dir, where the rights allow.
func raiseReadahead(dir string, log *slog.Logger) {
	m, ok, err := topMount(dir)
	if err != nil || !ok {
		return
	}
	path := filepath.Join("/sys/class/bdi", m.device, "read_ahead_kb")
	if err := os.WriteFile(path, []byte(strconv.Itoa(kernelReadahead)), 0o644); err != nil {
		log.Debug("the kernel's readahead stays as it is", "path", path, "err", err)
	}
}

// users names the processes that keep a mount busy, as far as this user may see them. It reads links under /proc and
// does not touch the mount.
func users(dir string) string {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	for _, proc := range procs {
		if usesDir(proc, dir) {
			name, _ := os.ReadFile(filepath.Join(proc, "comm"))
			found = append(found, strings.TrimSpace(string(name))+" "+filepath.Base(proc))
		}
		if len(found) == 5 {
			break
		}
	}
	if len(found) == 0 {
		return ""
	}
	return " (" + strings.Join(found, ", ") + ")"
}

// usesDir tells whether a process has its current directory, its program or an open file below dir.
func usesDir(proc, dir string) bool {
	links, _ := filepath.Glob(filepath.Join(proc, "fd", "*"))
	links = append(links, filepath.Join(proc, "cwd"), filepath.Join(proc, "root"), filepath.Join(proc, "exe"))
	for _, link := range links {
		to, err := os.Readlink(link)
		if err == nil && (to == dir || strings.HasPrefix(to, dir+"/")) {
			return true
		}
	}
	return false
}
