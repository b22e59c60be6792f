package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ballast is memory kept in use between measurements and given back right
// before one. A virtual machine may return free pages to its host; getting them
// again costs seconds a GiB (measured: 3 s, against 0.3 s for writing it),
// which whoever fills a page cache next would pay and the reference may not.
type ballast struct {
	bytes int64 // wanted; 0: this machine keeps its pages
	held  [][]byte
}

// spare is what is left free of the machine's memory.
const spare = 512 << 20

// newBallast is for rows that fill page caches with up to bytes bytes.
func newBallast(bytes int64) ballast {
	if _, err := os.Stat("/sys/module/page_reporting"); err != nil {
		return ballast{}
	}
	return ballast{bytes: bytes}
}

// hold takes free memory, and no other, up to what is wanted: some of it in
// small pages, which the kernel cuts from fragments, the rest in huge ones.
func (l *ballast) hold() {
	free, err := memFree()
	n := min(l.bytes, free-spare)
	if len(l.held) > 0 || err != nil || n <= 0 {
		return // measured as it is
	}
	l.take(n/8, unix.MADV_NOHUGEPAGE)
	l.take(n-n/8, unix.MADV_HUGEPAGE)
}

func (l *ballast) take(n int64, advice int) {
	m, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return
	}
	unix.Madvise(m, advice)
	for i := 0; i < len(m); i += page {
		m[i] = 1
	}
	l.held = append(l.held, m)
}

// release gives the memory back to the kernel, for the measurement to use.
func (l *ballast) release() {
	for _, m := range l.held {
		unix.Munmap(m)
	}
	l.held = nil
}

// memFree is the memory in nobody's use, in bytes; page cache is in use.
func memFree() (int64, error) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if strings.HasPrefix(line, "MemFree:") {
			return parseKiB(strings.TrimPrefix(line, "MemFree:"))
		}
	}
	return 0, fmt.Errorf("no MemFree in /proc/meminfo")
}
