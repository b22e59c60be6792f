package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/fs"
)

// How long the demo waits for a node to answer, and to end.
const (
	startPatience = 30 * time.Second
	stopPatience  = 15 * time.Second
)

// demoNode is a daemon that the demo runs as a child.
type demoNode struct {
	*api.Client
	name, repo string
	cmd        *exec.Cmd
	exited     chan struct{}
	id         api.ID
}

// ledger is the book of payment channels that all nodes of the demo share.
func (d *demo) ledger() string { return filepath.Join(d.dir, "ledger.json") }

// spawn starts a daemon with settings; unless it is to be kept it ends with the demo, even if that is killed.
func (d *demo) spawn(name string, settings ...string) (*demoNode, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n := &demoNode{name: name, repo: filepath.Join(d.dir, strings.ReplaceAll(name, " ", "")), exited: make(chan struct{})}
	log, err := os.Create(n.repo + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	n.cmd = exec.Command(self, append([]string{"--repo", n.repo, "--log-level", "warn", "daemon", "--network", "local"}, settings...)...)
	n.cmd.Env = append(os.Environ(), "HOLDFAST_LEDGER="+d.ledger())
	n.cmd.Stdout, n.cmd.Stderr = log, log
	// A group of its own: Ctrl-C is for the demo, which then ends its nodes one by one.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !d.keep {
		n.cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		n.cmd.Wait()
		close(n.exited)
	}()
	d.nodes = append(d.nodes, n)
	return n, nil
}

// ready waits until the node answers.
func (n *demoNode) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("%s does not answer", n.name))
	defer cancel()
	for {
		c, err := api.Dial(ctx, repo.SocketPath(n.repo))
		if err == nil {
			n.Client = c
			n.id, err = c.ID(ctx)
			return err
		}
		select {
		case <-n.exited:
			return fmt.Errorf("%s ended at once", n.name)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// meet connects the node to another.
func (n *demoNode) meet(ctx context.Context, other *demoNode) error {
	if n == other {
		return nil
	}
	if _, err := n.Connect(ctx, other.id.Addresses[:1]); err != nil {
		return fmt.Errorf("connect %s to %s: %w", n.name, other.name, err)
	}
	return nil
}

// earned is what a peer has paid the node for storage, and how much of that the ledger has paid out.
func (n *demoNode) earned(ctx context.Context, peer string) (amount, settled uint64, err error) {
	return n.channelsWith(ctx, peer, "receiving")
}

// paid is what the node has paid a peer for storage, also for what it has released again: the manifests of earlier states.
func (n *demoNode) paid(ctx context.Context, peer string) (amount uint64, err error) {
	amount, _, err = n.channelsWith(ctx, peer, "paying")
	return amount, err
}

// channelsWith adds up the channels for storage with a peer.
func (n *demoNode) channelsWith(ctx context.Context, peer, direction string) (amount, settled uint64, err error) {
	channels, err := n.Channels(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("channels of %s: %w", n.name, err)
	}
	for _, c := range channels {
		if c.Peer == peer && c.Direction == direction && c.For == "storage" {
			amount, settled = amount+c.Amount, settled+c.Settled
		}
	}
	return amount, settled, nil
}

func (n *demoNode) alive() bool {
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// kill ends the node as a power cut would.
func (n *demoNode) kill() error {
	err := n.cmd.Process.Kill()
	<-n.exited
	return err
}

// askToEnd asks the node to end in order.
func (n *demoNode) askToEnd() {
	if n.alive() {
		n.cmd.Process.Signal(syscall.SIGTERM)
	}
}

// stop ends the node in order, and if it does not end, by force.
func (n *demoNode) stop() error {
	if !n.alive() {
		return nil
	}
	n.askToEnd()
	select {
	case <-n.exited:
		return nil
	case <-time.After(stopPatience):
		return n.kill()
	}
}

// tellLog copies what the node had to say.
func (n *demoNode) tellLog(w io.Writer) {
	text, err := os.ReadFile(n.repo + ".log")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "level=") || strings.HasPrefix(line, "holdfast: ") {
			fmt.Fprintf(w, "%s: %s\n", n.name, strings.TrimSpace(line))
		}
	}
}

// unmountLeft ends what a node that had to be killed left mounted.
func unmountLeft(dirs ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	var errs []error
	for _, dir := range dirs {
		if err := fs.Unmount(ctx, dir, true); err != nil && !errors.Is(err, fs.ErrNotMounted) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
