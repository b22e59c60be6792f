package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// commandEnv makes the test binary the command.
const commandEnv = "HOLDFAST_TEST_COMMAND"

// patience is a guard against hangs and nothing else.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(commandEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// world is a directory with a repo for commands.
type world struct {
	t    *testing.T
	dir  string
	repo string
	env  []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, dir: dir, repo: filepath.Join(dir, "repo")}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HOLDFAST_") {
			w.env = append(w.env, v)
		}
	}
	w.env = append(w.env, commandEnv+"=1", "HOLDFAST_PATH="+w.repo, "HOLDFAST_MIN_FREE=0B", "TMPDIR="+dir, "HOME="+dir)
	return w
}

// file writes a file and returns its path.
func (w *world) file(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// process is a command that runs.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err bytes.Buffer // to be read after wait
}

func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	return cmd
}

func (w *world) start(args ...string) *process {
	w.t.Helper()
	p := &process{t: w.t, cmd: w.command(args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	guard := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer guard.Stop()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// run runs a command to its end.
func (w *world) run(args ...string) (out, stderr string, code int) {
	w.t.Helper()
	p := w.start(args...)
	code = p.wait()
	return p.out.String(), p.err.String(), code
}

// must runs a command that has to succeed and returns its trimmed output.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, stderr, code := w.run(args...)
	if code != 0 {
		w.t.Fatalf("holdfast %s: code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return strings.TrimSpace(out)
}

// daemon runs the daemon until the test ends and returns a client of it.
func (w *world) daemon(args ...string) (*process, *api.Client) {
	w.t.Helper()
	p := &process{t: w.t, cmd: w.command(append([]string{"daemon"}, args...)...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	return w.daemonOf(p)
}

// daemonOf starts p, a daemon, until the test ends and returns a client of it.
func (w *world) daemonOf(p *process) (*process, *api.Client) {
	w.t.Helper()
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := false
	w.t.Cleanup(func() {
		if !ended && p.cmd.ProcessState == nil {
			p.cmd.Process.Signal(syscall.SIGTERM)
			if code := p.wait(); code != 0 {
				w.t.Errorf("the daemon ended with code %d: %s", code, p.err.String())
			}
		}
	})
	var client *api.Client
	w.until("the daemon answers", func() bool {
		if err := syscall.Kill(p.cmd.Process.Pid, 0); err != nil {
			ended = true
			w.t.Fatalf("the daemon is gone: %s", p.err.String())
		}
		c, err := api.Dial(context.Background(), repo.SocketPath(w.repo))
		client = c
		return err == nil
	})
	w.t.Cleanup(client.Close)
	return p, client
}

// until waits for a condition.
func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for guard := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(guard) {
			w.t.Fatalf("gave up waiting until %s", what)
		}
	}
}
