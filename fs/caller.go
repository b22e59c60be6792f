package fs

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// signals is a set, bit n-1 for signal n, as /proc writes it.
type signals uint64

func signalSet(list ...syscall.Signal) signals {
	var s signals
	for _, n := range list {
		s |= 1 << (uint(n) - 1)
	}
	return s
}

var (
	// asksToEnd are the signals by which somebody asks a program to end. A program that catches them still wants to
	// get them now rather than after the timeout.
	asksToEnd = signalSet(syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)

	// harmless do not end a program that does not handle them. Stopping is not an end either: a stopped reader goes
	// on reading.
	harmless = signalSet(syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGCONT,
		syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
)

// callerIsEnding tells whether the thread that sent a request has a signal waiting that ends it or asks it to end.
// Any other signal must not fail its system call: Go programs get SIGURG all the time, shells SIGCHLD, and few
// programs expect EINTR from a file. A caller that can't be seen counts as ending.
func callerIsEnding(pid uint32) bool {
	if pid == 0 {
		return true
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return true
	}
	return statusIsEnding(status)
}

// statusIsEnding reads the text of /proc/<tid>/status.
func statusIsEnding(status []byte) bool {
	var pending, blocked, ignored, caught signals
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "SigPnd", "ShdPnd":
			pending |= parseSignals(value)
		case "SigBlk":
			blocked = parseSignals(value)
		case "SigIgn":
			ignored = parseSignals(value)
		case "SigCgt":
			caught = parseSignals(value)
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		}
	}
	pending &^= blocked | ignored
	return pending&asksToEnd != 0 || pending&^caught&^harmless != 0
}

func parseSignals(hex string) signals {
	n, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return 0
	}
	return signals(n)
}
