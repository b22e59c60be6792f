package swarm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Status is what `holdfast status --json` printed.
type Status map[string]any

// Status asks the running node for its figures.
func (n *Node) Status() Status {
	n.s.TB.Helper()
	out := n.Must("status", "--json")
	var st Status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		n.s.TB.Fatalf("%s: status --json: %v: %s", n.Name, err, out)
	}
	return st
}

// Figure returns the number at a dotted path, as in "exchange.duplicates"; the
// test fails when there is none.
func (n *Node) Figure(path string) int64 {
	n.s.TB.Helper()
	st := n.Status()
	var at any = map[string]any(st)
	for _, key := range strings.Split(path, ".") {
		m, ok := at.(map[string]any)
		if !ok || m[key] == nil {
			b, _ := json.Marshal(st)
			n.s.TB.Fatalf("%s: status has no %q: %s", n.Name, path, b)
		}
		at = m[key]
	}
	number, ok := at.(float64)
	if !ok {
		n.s.TB.Fatalf("%s: %q is %v, not a number", n.Name, path, at)
	}
	return int64(number)
}

// Threads is how many threads the node's process has.
func (n *Node) Threads() int64 { return n.procStatus("Threads:") }

// RssAnon is the node's anonymous memory in bytes.
func (n *Node) RssAnon() int64 { return n.procStatus("RssAnon:") << 10 }

// procStatus reads a number from /proc/PID/status.
func (n *Node) procStatus(key string) int64 {
	n.s.TB.Helper()
	found := int64(-1)
	scan(fmt.Sprintf("/proc/%d/status", n.Pid()), func(line string) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key {
			found, _ = strconv.ParseInt(fields[1], 10, 64)
		}
	})
	if found < 0 {
		n.s.TB.Fatalf("%s: no %s in /proc/%d/status", n.Name, key, n.Pid())
	}
	return found
}

// OpenFiles is how many descriptors the node's process holds.
func (n *Node) OpenFiles() int {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.Pid()))
	return len(fds)
}

// Waiting is how many requests of the mount at dir the kernel waits for.
func (s *Swarm) Waiting(dir string) int {
	s.TB.Helper()
	mounts, err := Mounts(dir)
	if err != nil || len(mounts) == 0 {
		s.TB.Fatalf("nothing is mounted at %s: %v", dir, err)
	}
	b, err := os.ReadFile(s.connection(mounts[0], "waiting"))
	if err != nil {
		s.TB.Fatalf("requests of %s: %v", dir, err)
	}
	waiting, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return waiting
}

// Mounted lists what is mounted at dir itself, stacked mounts and all.
func (s *Swarm) Mounted(dir string) []MountInfo {
	s.TB.Helper()
	all, err := Mounts(dir)
	if err != nil {
		s.TB.Fatalf("mounts: %v", err)
	}
	var here []MountInfo
	for _, m := range all {
		if m.Dir == dir {
			here = append(here, m)
		}
	}
	return here
}

// Using lists the processes that hold something open below dir, or were
// started with it in their arguments, the test itself apart.
func Using(dir string) []string {
	var found []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		pid, _ := strconv.Atoi(filepath.Base(proc))
		if pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if len(openBelow(pid, dir)) > 0 || strings.Contains(string(args), dir) {
			found = append(found, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(args), "\x00", " ")))
		}
	}
	return found
}

func openBelow(pid int, dir string) []string {
	var found []string
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, dir+"/") {
			found = append(found, target)
		}
	}
	return found
}

// scan calls each with every line of a file.
func scan(path string, each func(line string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		each(sc.Text())
	}
	return sc.Err()
}
