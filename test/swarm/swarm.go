package swarm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// TB is what a swarm needs of its caller; *testing.T and *testing.B have it.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// Swarm is a set of nodes that share a binary and a scratch directory.
type Swarm struct {
	TB  TB
	Bin string // the holdfast binary
	Dir string // scratch directory, removed at the end

	control      string // directory of FUSE's control files
	closeControl func()

	mu        sync.Mutex // guards nodes and processes
	nodes     []*Node
	processes []*Process
}

// New prepares a swarm with the binary named by HOLDFAST_BIN, or else
// bin/holdfast of this source tree.
func New(tb TB) *Swarm {
	tb.Helper()
	bin := os.Getenv("HOLDFAST_BIN")
	if bin == "" {
		_, here, _, _ := runtime.Caller(0)
		bin = filepath.Join(filepath.Dir(here), "..", "..", "bin", "holdfast")
	}
	if _, err := os.Stat(bin); err != nil {
		tb.Fatalf("the binary under test: %v (make build)", err)
	}
	dir, err := os.MkdirTemp("", "holdfast-swarm-")
	if err != nil {
		tb.Fatalf("scratch directory: %v", err)
	}
	s := &Swarm{TB: tb, Bin: bin, Dir: dir}
	if s.closeControl, err = s.openControl(); err != nil {
		tb.Fatalf("swarm: %v", err)
	}
	tb.Cleanup(s.close)
	return s
}

// Path returns a path below the swarm's scratch directory.
func (s *Swarm) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// Mkdir makes a directory below the scratch directory and returns its path.
func (s *Swarm) Mkdir(elem ...string) string {
	s.TB.Helper()
	p := s.Path(elem...)
	if err := os.MkdirAll(p, 0o755); err != nil {
		s.TB.Fatalf("mkdir: %v", err)
	}
	return p
}

func (s *Swarm) close() {
	s.unmountBelow(s.Dir)
	s.mu.Lock()
	nodes, processes := s.nodes, s.processes
	s.mu.Unlock()
	for _, p := range processes {
		p.Kill()
	}
	for _, n := range nodes {
		n.kill()
		if s.TB.Failed() {
			s.TB.Logf("log of %s:\n%s", n.Name, n.logTail(8<<10))
		}
	}
	s.unmountBelow(s.Dir)
	s.closeControl()
	if err := os.RemoveAll(s.Dir); err != nil {
		s.TB.Errorf("remove scratch directory: %v", err)
	}
}

// Sh runs a shell script to its end and returns its standard output.
func (s *Swarm) Sh(script string, args ...string) (string, error) {
	cmd := exec.Command("bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...)
	return output(cmd, Patience)
}

// MustSh is Sh that fails the test on an error.
func (s *Swarm) MustSh(script string, args ...string) string {
	s.TB.Helper()
	out, err := s.Sh(script, args...)
	if err != nil {
		s.TB.Fatalf("%s %q: %v", script, args, err)
	}
	return out
}

// Eventually polls cond until it holds and fails the test after Patience.
func (s *Swarm) Eventually(what string, cond func() bool) {
	s.TB.Helper()
	deadline := time.Now().Add(Patience)
	for !cond() {
		if time.Now().After(deadline) {
			s.TB.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// output runs cmd, kills it after limit, and returns its standard output; the
// error carries standard error.
func output(cmd *exec.Cmd, limit time.Duration) (string, error) {
	var out, errOut limited
	cmd.Stdout, cmd.Stderr = &out, &errOut
	inGroup(cmd)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(limit, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), &ExitError{Err: err, Code: cmd.ProcessState.ExitCode(), Stdout: out.String(), Stderr: errOut.String()}
	}
	return out.String(), nil
}

// inGroup starts cmd in a process group of its own, so that what a shell
// started can be killed with it, and has it killed if the test dies.
func inGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	// Who outlives that kill and holds our pipes is not waited for.
	cmd.WaitDelay = 10 * time.Second
}

// ExitError is a command that ended with another code than 0.
type ExitError struct {
	Err    error
	Code   int
	Stdout string
	Stderr string
}

// Error tells what was printed, of standard output the end.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%v: %s%s", e.Err, e.Stdout[max(0, len(e.Stdout)-1000):], e.Stderr)
}

func (e *ExitError) Unwrap() error { return e.Err }
