package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// samplePeriod is how often memory is looked at: growth within less is missed,
// and looking costs the node nothing but a lock on its page tables' counters.
const samplePeriod = 20 * time.Millisecond

// watch follows the nodes that run: the peak of their anonymous memory, the time
// of processors they use and, where asked for, what they spend it on.
type watch struct {
	profiles string // directory; empty: none
	quit     chan struct{}
	done     chan struct{}

	mu    sync.Mutex // guards what follows
	row   string
	nodes map[string]*watched
	peak  peak
	gone  time.Duration // processor time of nodes that have been removed
	err   error         // of a profile that could not be taken
}

type watched struct {
	pid  int
	perf *exec.Cmd
}

// peak is the most memory a node has had, and when.
type peak struct {
	bytes     int64
	node, row string
}

// newWatch starts watching; stop ends it.
func newWatch(profiles string) *watch {
	w := &watch{profiles: profiles, nodes: make(map[string]*watched), quit: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *watch) run() {
	defer close(w.done)
	tick := time.NewTicker(samplePeriod)
	defer tick.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-tick.C:
			w.look()
		}
	}
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, n := range w.nodes {
		if bytes, err := rssAnon(n.pid); err == nil && bytes > w.peak.bytes {
			w.peak = peak{bytes, name, w.row}
		}
	}
}

func (w *watch) add(name string, pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := &watched{pid: pid}
	w.nodes[name] = n
	w.profileLocked(name, n)
}

func (w *watch) remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n, ok := w.nodes[name]; ok {
		used, _ := cpuTime(n.pid) // 0 for one that died
		w.gone += used
		n.endProfile()
		delete(w.nodes, name)
	}
}

// during says which row runs; profiles are a file a row.
func (w *watch) during(row string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.row = row
	for name, n := range w.nodes {
		n.endProfile()
		w.profileLocked(name, n)
	}
}

// stop ends the watching and the profiles.
func (w *watch) stop() {
	close(w.quit)
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		n.endProfile()
	}
}

func (w *watch) most() peak {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peak
}

// cpu is the processor time that all nodes have used so far.
func (w *watch) cpu() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	total := w.gone
	for _, n := range w.nodes {
		used, _ := cpuTime(n.pid)
		total += used
	}
	return total
}

// failed is why a profile could not be taken.
func (w *watch) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

var unfit = regexp.MustCompile(`[^A-Za-z0-9]+`)

// profileLocked lets perf follow a node until endProfile.
func (w *watch) profileLocked(name string, n *watched) {
	if w.profiles == "" {
		return
	}
	file := filepath.Join(w.profiles, unfit.ReplaceAllString(w.row, "-")+"."+name+".perf")
	cmd := exec.Command("perf", "record", "-q", "-F", "299", "-g", "-p", fmt.Sprint(n.pid), "-o", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	if err := cmd.Start(); err != nil {
		w.err = fmt.Errorf("profile %s: %w", name, err)
		return
	}
	n.perf = cmd
}

func (n *watched) endProfile() {
	if n.perf == nil {
		return
	}
	n.perf.Process.Signal(os.Interrupt)
	n.perf.Wait() // says that it was interrupted, which it was
	n.perf = nil
}

// cpuTime is the processor time, in user and kernel, that a process has used.
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture that Go runs on
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read the times of process %d", pid)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err, err2)
}

// rssAnon is a process's resident anonymous memory in bytes.
func rssAnon(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseRSSAnon(string(status))
}

func parseRSSAnon(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			return parseKiB(rest)
		}
	}
	return 0, fmt.Errorf("no RssAnon in the process's status")
}

// parseKiB reads a figure of /proc, as "  12 kB", into bytes.
func parseKiB(s string) (int64, error) {
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "kB")), 10, 64)
	return kib << 10, err
}
