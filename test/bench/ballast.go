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
	held  []byte
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

// hold takes free memory, and no other, up to what is wanted: in small pages,
// since that is how it will be used, and the kernel gives small ones out of
// other places than huge ones.
func (l *ballast) hold() {
	free, err := memFree()
	n := min(l.bytes, free-spare)
	if l.held != nil || err != nil || n <= 0 {
		return
	}
	held, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return // measured as it is
	}
	unix.Madvise(held, unix.MADV_NOHUGEPAGE)
	for i := 0; i < len(held); i += page {
		held[i] = 1
	}
	l.held = held
}

// release gives the memory back to the kernel, for the measurement to use.
func (l *ballast) release() {
	if l.held != nil {
		unix.Munmap(l.held)
		l.held = nil
	}
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
