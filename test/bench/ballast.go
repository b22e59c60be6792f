package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ballast keeps a virtual machine's host out of the figures. Such a machine may
// return free pages to its host, and getting them again costs seconds a GiB
// (measured: 3 s, against 0.24 s for filling them with a file), which whoever
// fills a page cache next pays and the reference may not. So before each half
// that fills one, memory is taken and given back: those pages the kernel uses
// first. Small pieces, in which free pages of all ages lie scattered and which
// would be used even before, are held until the end.
type ballast struct {
	bytes  int64    // wanted in huge pages; 0: this machine keeps its pages
	pieces [][]byte // held until the end
	held   [][]byte // held until the next half
}

// spare is what is left free of the machine's memory.
const spare = 2 << 30

// hugeOrder is the size, as the kernel counts it, from which free pieces are
// whole huge pages.
const hugeOrder = 9

// newBallast is for rows that fill page caches with up to bytes bytes.
func newBallast(bytes int64) ballast {
	if _, err := os.Stat("/sys/module/page_reporting"); err != nil {
		return ballast{}
	}
	return ballast{bytes: bytes}
}

// hold takes free memory, and no other. A machine that has too little is
// measured as it is.
func (l *ballast) hold() {
	if l.bytes == 0 || len(l.held) > 0 {
		return
	}
	if l.pieces == nil {
		l.pieces = take(fragments(), unix.MADV_NOHUGEPAGE)
	}
	l.held = take(l.bytes, unix.MADV_HUGEPAGE)
}

// release gives back what the next half is to use.
func (l *ballast) release() { give(&l.held) }

// end gives everything back.
func (l *ballast) end() {
	give(&l.held)
	give(&l.pieces)
}

// take makes the kernel hand out n bytes, or as many as are free.
func take(n int64, advice int) [][]byte {
	free, err := memFree()
	if n = min(n, free-spare); err != nil || n <= 0 {
		return nil
	}
	m, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil
	}
	unix.Madvise(m, advice)
	for i := 0; i < len(m); i += page {
		m[i] = 1
	}
	return [][]byte{m}
}

func give(held *[][]byte) {
	for _, m := range *held {
		unix.Munmap(m)
	}
	*held = nil
}

// fragments is how many bytes are free in pieces smaller than a huge page.
func fragments() int64 {
	info, err := os.ReadFile("/proc/buddyinfo")
	if err != nil {
		return 0
	}
	return parseBuddies(string(info))
}

// parseBuddies reads lines as "Node 0, zone Normal 5 0 2 …": how many pieces are
// free of one page, of two, of four, and so on.
func parseBuddies(info string) (bytes int64) {
	for line := range strings.Lines(info) {
		_, zone, _ := strings.Cut(line, "zone")
		for order, count := range strings.Fields(zone) {
			order-- // the first field is the zone's name
			n, err := strconv.ParseInt(count, 10, 64)
			if err == nil && order >= 0 && order < hugeOrder {
				bytes += n << order * page
			}
		}
	}
	return bytes
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
