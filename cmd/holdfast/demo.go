package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) demoCmd() *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "a whole network on this machine, to watch",
		Long: `Runs three nodes on loopback: A adds a source tree and a random file; B, empty and connected to C alone, finds A through C's DHT
and mounts both by CID. The demo lists, searches and compares, shows what went over the network, kills A, and reads again.

It needs no repo, changes nothing outside a temporary directory, and takes everything down at the end, on Ctrl-C too.`,
		Example: "  holdfast demo\n  holdfast demo --tree ~/src/project\n  holdfast demo --keep",
		Args:    args(0, 0, "no argument is"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.app, d.story = a, ui.NewStory(a.out)
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&d.tree, "tree", "", "tree to add (default the source of Go)")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave nodes, mounts and the temporary directory as they are at the end")
	cmd.Flags().Int64Var(&d.fileMiB, "size", 64, "MiB of the random file")
	return cmd
}

// demo is one run of the demonstration.
type demo struct {
	app     *app
	story   *ui.Story
	tree    string
	keep    bool
	fileMiB int64
	grep    string // what is searched for in the tree

	dir     string // everything is in it
	nodes   []*demoNode
	a, b, c *demoNode

	file, fileSum       string // the random file
	treeCID, fileCID    string
	treeBytes           int64
	treeMount, all, two string // mount points on B
}

// run plays the demonstration and takes it down.
func (d *demo) run(ctx context.Context) (err error) {
	// Children die with the thread that made them: this goroutine keeps to its own.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.takeDown(err)) }()
	for _, act := range []func(context.Context) error{d.startNodes, d.addContent, d.mountContent, d.readContent, d.showTraffic, d.killA} {
		if err := act(ctx); err != nil {
			return endOf(ctx, err)
		}
	}
	return nil
}

// prepare finds the tree and makes the temporary directory.
func (d *demo) prepare(ctx context.Context) (err error) {
	d.grep = "the"
	if d.tree == "" {
		if d.tree, err = goSource(ctx); err != nil {
			return hint.Add(fmt.Errorf("demo: find the source of Go: %w", err), "name a tree to add with --tree")
		}
		d.grep = "func Sum256("
	}
	if st, err := os.Stat(d.tree); err != nil || !st.IsDir() {
		return hint.Add(fmt.Errorf("demo: %s is no directory", d.tree), "name a tree to add with --tree")
	}
	if d.fileMiB < 1 || d.fileMiB > 1<<20 {
		return &usageError{fmt.Errorf("demo: --size is %d MiB, from 1 to 1048576 are possible", d.fileMiB)}
	}
	d.dir, err = os.MkdirTemp("", "holdfast-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.treeMount, d.all, d.two = filepath.Join(d.dir, "tree"), filepath.Join(d.dir, "cids"), filepath.Join(d.dir, "again")
	for _, m := range []string{d.treeMount, d.all, d.two} {
		if err := os.Mkdir(m, 0o755); err != nil {
			return errors.Join(fmt.Errorf("demo: %w", err), os.RemoveAll(d.dir))
		}
	}
	return nil
}

func goSource(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src"), nil
}

// takeDown ends everything that the demo made; why is what ended it early.
func (d *demo) takeDown(why error) error {
	if d.keep && why == nil {
		d.story.Title("Still running")
		for _, n := range d.nodes {
			if n.alive() {
				d.story.Say("node %s   pid %-8d  holdfast --repo %s status", n.name, n.cmd.Process.Pid, n.repo)
			}
		}
		d.story.Say("")
		d.story.Say("The tree is at %s, any CID below %s.", d.treeMount, d.all)
		d.story.Say("End them with kill, then remove %s.", d.dir)
		return nil
	}
	if why != nil && !errors.Is(why, errInterrupted) {
		for _, n := range d.nodes {
			n.tellLog(d.app.err)
		}
	}
	var errs []error
	for _, n := range d.nodes {
		errs = append(errs, n.stop())
	}
	errs = append(errs, unmountLeft(d.treeMount, d.all, d.two))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("demo: clean up %s: %w", d.dir, err)
	}
	return os.RemoveAll(d.dir)
}
