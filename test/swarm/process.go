package swarm

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a command that runs beside the test. The swarm's cleanup kills it.
type Process struct {
	s      *Swarm
	cmd    *exec.Cmd
	stdout limited
	stderr limited
	stdin  io.WriteCloser
	exited chan struct{}
	call   string // what Waits saw last
}

// Spawn starts cmd and returns at once. What it prints is kept.
func (s *Swarm) Spawn(cmd *exec.Cmd) *Process {
	s.TB.Helper()
	p := &Process{s: s, cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	inGroup(cmd)
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		s.TB.Fatalf("stdin of %s: %v", cmd.Path, err)
	}
	if err := cmd.Start(); err != nil {
		s.TB.Fatalf("start %s: %v", cmd.Path, err)
	}
	go func() { cmd.Wait(); close(p.exited) }()
	s.mu.Lock()
	s.processes = append(s.processes, p)
	s.mu.Unlock()
	return p
}

// SpawnSh starts a shell script as [Swarm.Spawn] does; its arguments are $1 and on.
func (s *Swarm) SpawnSh(script string, args ...string) *Process {
	s.TB.Helper()
	return s.Spawn(exec.Command("bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...))
}

// Pid is the process ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends sig to the process alone.
func (p *Process) Signal(sig syscall.Signal) {
	p.s.TB.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.s.TB.Fatalf("signal %d to %s: %v", sig, p.cmd.Path, err)
	}
}

// Out is what it has printed on standard output so far.
func (p *Process) Out() string { return p.stdout.String() }

// Err is what it has printed on standard error so far.
func (p *Process) Err() string { return p.stderr.String() }

// Tell writes a line to its standard input.
func (p *Process) Tell(line string) {
	p.s.TB.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.s.TB.Fatalf("tell %s: %v", p.cmd.Path, err)
	}
}

// Line waits for the n-th line of standard output, from 0.
func (p *Process) Line(n int) string {
	p.s.TB.Helper()
	var line string
	p.s.Eventually("line "+p.cmd.Path, func() bool {
		lines := strings.SplitAfter(p.stdout.String(), "\n")
		if len(lines) > n && strings.HasSuffix(lines[n], "\n") {
			line = strings.TrimSuffix(lines[n], "\n")
			return true
		}
		if !p.Running() {
			p.s.TB.Fatalf("%s ended before its line %d: %s%s", p.cmd.Path, n, p.Out(), p.Err())
		}
		return false
	})
	return line
}

// Running reports whether it has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Wait returns the exit code, -1 for an end by a signal, and fails the test
// when the process does not end within limit.
func (p *Process) Wait(limit time.Duration) int {
	p.s.TB.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.s.TB.Fatalf("%s %q did not end in %s: %s%s", p.cmd.Path, p.cmd.Args, limit, p.Out(), p.Err())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends it and all it started, and waits for its end.
func (p *Process) Kill() {
	syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.exited
}

// Waits reports whether the process sleeps in the same system call as when it
// was asked last. Poll it: one that goes on is found out.
func (p *Process) Waits() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", p.Pid()))
	now := string(b)
	same := err == nil && now != "" && now == p.call && !strings.HasPrefix(now, "running")
	p.call = now
	return same
}

// Open lists the files below dir that the process holds open.
func (p *Process) Open(dir string) []string {
	return openBelow(p.Pid(), dir)
}

// limited keeps the first 16 MiB of what is written to it.
type limited struct {
	mu sync.Mutex
	b  []byte
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := 16<<20 - len(l.b); room > 0 {
		l.b = append(l.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}
