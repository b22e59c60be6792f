package swarm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Node is one holdfast repository and, while it runs, its process.
type Node struct {
	Name string
	Repo string

	s      *Swarm
	args   []string
	log    string
	cmd    *exec.Cmd
	exited chan struct{}
}

// Identity is what `holdfast id --json` prints.
type Identity struct {
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"`
}

// Node makes a node with an initialized repository that does not run yet; args
// are given to its daemon.
func (s *Swarm) Node(name string, args ...string) *Node {
	s.TB.Helper()
	n := &Node{Name: name, Repo: s.Path(name + ".repo"), s: s, args: args, log: s.Path(name + ".log")}
	s.mu.Lock()
	s.nodes = append(s.nodes, n)
	s.mu.Unlock()
	n.Must("init")
	return n
}

// Start makes a node and runs its daemon.
func (s *Swarm) Start(name string, args ...string) *Node {
	s.TB.Helper()
	n := s.Node(name, args...)
	n.Start()
	return n
}

// Start runs the node's daemon and returns when it answers.
func (n *Node) Start() {
	n.s.TB.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.s.TB.Fatalf("log of %s: %v", n.Name, err)
	}
	defer log.Close()
	cmd := n.Command(append([]string{"daemon"}, n.args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		n.s.TB.Fatalf("start %s: %v", n.Name, err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	n.cmd, n.exited = cmd, exited
	n.s.Eventually(n.Name+" answers", func() bool {
		select {
		case <-exited:
			n.s.TB.Fatalf("%s ended at once:\n%s", n.Name, n.logTail(4<<10))
		default:
		}
		_, err := n.RunFor(5*time.Second, "id", "--json")
		return err == nil
	})
}

// Command is a holdfast command against this node's repository.
func (n *Node) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(n.s.Bin, args...)
	cmd.Env = append(os.Environ(), "HOLDFAST_PATH="+n.Repo, "HOLDFAST_LEDGER="+n.s.Path("ledger.json"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Run runs a command against the node and returns its standard output.
func (n *Node) Run(args ...string) (string, error) { return n.RunFor(Patience, args...) }

// RunFor is Run that kills the command after limit.
func (n *Node) RunFor(limit time.Duration, args ...string) (string, error) {
	return output(n.Command(args...), limit)
}

// Must is Run that fails the test on an error; the output is trimmed.
func (n *Node) Must(args ...string) string {
	n.s.TB.Helper()
	out, err := n.Run(args...)
	if err != nil {
		n.s.TB.Fatalf("%s: holdfast %s: %v", n.Name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out)
}

// Identity asks the running node who it is.
func (n *Node) Identity() Identity {
	n.s.TB.Helper()
	var id Identity
	if err := json.Unmarshal([]byte(n.Must("id", "--json")), &id); err != nil {
		n.s.TB.Fatalf("%s: id --json: %v", n.Name, err)
	}
	if len(id.Addresses) == 0 {
		n.s.TB.Fatalf("%s listens nowhere", n.Name)
	}
	return id
}

// Connect dials another node's first address.
func (n *Node) Connect(to *Node) {
	n.s.TB.Helper()
	n.Must("connect", to.Identity().Addresses[0])
}

// Add imports a path and returns its CID.
func (n *Node) Add(path string, flags ...string) string {
	n.s.TB.Helper()
	return n.Must(append(append([]string{"add", "-q"}, flags...), path)...)
}

// Mount mounts cid (or, when it is empty, the namespace) in the running daemon
// and returns the directory.
func (n *Node) Mount(name, cid string, flags ...string) string {
	n.s.TB.Helper()
	dir := n.s.Mkdir(name)
	args := append([]string{"mount", "--detach"}, flags...)
	if cid != "" {
		args = append(args, cid)
	}
	out := n.Must(append(args, dir)...)
	if !strings.HasPrefix(out, "mounted") {
		n.s.TB.Fatalf("%s: mount printed %q", n.Name, out)
	}
	return dir
}

// MountForeground runs `holdfast mount` as a process of its own, which serves
// the mount when no daemon runs, and returns it and the directory when the
// mount answers. The directory is made when it is missing.
func (n *Node) MountForeground(name, cid string, flags ...string) (*Process, string) {
	n.s.TB.Helper()
	dir := n.s.Path(name)
	if len(n.s.Mounted(dir)) == 0 {
		n.s.Mkdir(name)
	}
	args := append(append([]string{"mount"}, flags...), cid, dir)
	p := n.s.Spawn(n.Command(args...))
	if line := p.Line(0); !strings.HasPrefix(line, "mounted") {
		n.s.TB.Fatalf("%s: mount printed %q", n.Name, line)
	}
	return p, dir
}

// Pid is the process ID of the running daemon.
func (n *Node) Pid() int { return n.cmd.Process.Pid }

// Kill ends the daemon as a power loss of the process would: SIGKILL.
func (n *Node) Kill() {
	n.s.TB.Helper()
	if n.cmd == nil {
		n.s.TB.Fatalf("%s does not run", n.Name)
	}
	n.kill()
}

// Stop ends the daemon with SIGTERM and waits for a clean end.
func (n *Node) Stop() {
	n.s.TB.Helper()
	n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(Patience):
		n.s.TB.Fatalf("%s ignores SIGTERM", n.Name)
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 && code != 130 {
		n.s.TB.Errorf("%s ended with code %d:\n%s", n.Name, code, n.logTail(4<<10))
	}
	n.cmd = nil
}

func (n *Node) kill() {
	if n.cmd == nil {
		return
	}
	n.cmd.Process.Kill()
	<-n.exited
	n.cmd = nil
}

// Log returns what the daemon has logged so far.
func (n *Node) Log() string { return n.logTail(16 << 20) }

func (n *Node) logTail(most int) string {
	b, err := os.ReadFile(n.log)
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		return fmt.Sprint(err)
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(bytes.TrimSpace(b))
}
