package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) demoCmd() *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "a whole network on this machine, to watch",
		Long: `Runs eight storage providers and a writer on loopback. Go's source tree and a random file are copied into an upload directory with
cp and rsync, and providers sign and are paid for every chunk. Then the writer's node is stopped and its repo deleted, two
providers are killed, and a fresh node that knows one of the others mounts the manifest's CID: diff -r finds no difference.

It needs no repo, changes nothing outside a temporary directory, and takes everything down at the end, on Ctrl-C too.
With --keep what is left of the network stays, and the demo prints what to try, and how to end it.`,
		Example: "  holdfast demo\n  holdfast demo --tree ~/src/project\n  holdfast demo --keep",
		Args:    args(0, 0, "no argument is"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.app, d.story = a, ui.NewStory(a.out)
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&d.tree, "tree", "", "tree to copy (default the source of Go)")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave nodes, mount and the temporary directory as they are at the end")
	cmd.Flags().Int64Var(&d.fileMiB, "size", 16, "MiB of the random file")
	return cmd
}

// demo is one run of the demonstration.
type demo struct {
	app     *app
	story   *ui.Story
	acts    int // that have begun
	tree    string
	keep    bool
	fileMiB int64
	grep    string // what is searched for in the tree

	dir       string // everything is in it
	nodes     []*demoNode
	providers []*demoNode // of nodes
	writer    *demoNode
	reader    *demoNode

	up, mount     string         // where the writer's upload directory is, and the reader's mount
	treeName      string         // of the tree below both
	files         []demoFileInfo // of the tree
	treeBytes     int64
	file, fileSum string // the random file
	synced        api.Synced
	writerID      string
	kept          map[string]kept // by provider
}

// run plays the demonstration and takes it down.
func (d *demo) run(ctx context.Context) (err error) {
	// Children die with the thread that made them: this goroutine keeps to its own.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	if err := d.prepare(ctx); err != nil {
		return endOf(ctx, err)
	}
	defer func() {
		if err = errors.Join(err, d.takeDown(err)); err == nil && !d.keep {
			d.story.Say("All of it is taken down again, after %s.", ui.Duration(time.Since(start)))
		}
	}()
	for _, act := range []func(context.Context) error{d.startNetwork, d.copyFiles, d.placeFiles, d.loseNodes, d.readBack, d.tellFigures} {
		if err := act(ctx); err != nil {
			return endOf(ctx, err)
		}
	}
	return nil
}

// act begins a chapter.
func (d *demo) act(title string) {
	d.acts++
	d.story.Title("%d. %s", d.acts, title)
}

// prepare makes the temporary directory, and looks at the tree that is to be copied.
func (d *demo) prepare(ctx context.Context) (err error) {
	if d.fileMiB < 1 || d.fileMiB > 1<<20 {
		return &usageError{fmt.Errorf("demo: --size is %d MiB, from 1 to 1048576 are possible", d.fileMiB)}
	}
	if d.dir, err = os.MkdirTemp("", "holdfast-demo-"); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.up, d.mount = filepath.Join(d.dir, "up"), filepath.Join(d.dir, "content")
	d.grep = "the"
	if d.tree == "" {
		if d.tree, err = goSource(ctx); err == nil {
			d.grep = "func Sum256("
		} else if ctx.Err() == nil {
			d.tree, err = makeTree(filepath.Join(d.dir, "tree"))
		}
	}
	if err == nil {
		d.tree, err = filepath.Abs(d.tree)
	}
	if err == nil {
		d.treeName = filepath.Base(d.tree)
		d.files, d.treeBytes, err = listFiles(ctx, d.tree)
		err = hint.Add(err, "name a tree to copy with --tree")
	}
	err = errors.Join(err, os.Mkdir(d.up, 0o755), os.Mkdir(d.mount, 0o755))
	if err != nil {
		return errors.Join(fmt.Errorf("demo: %w", err), os.RemoveAll(d.dir))
	}
	return nil
}

// takeDown ends everything that the demo made; why is what ended it early.
func (d *demo) takeDown(why error) error {
	if d.keep && why == nil {
		return d.leave()
	}
	if why != nil && !errors.Is(why, errInterrupted) && !errors.Is(why, errTerminated) {
		for _, n := range d.nodes {
			n.tellLog(d.app.err)
		}
	}
	if why != nil {
		d.app.say("\n    taking everything down …\n")
	}
	for _, n := range d.nodes {
		n.askToEnd() // all at once
	}
	var errs []error
	for _, n := range d.nodes {
		errs = append(errs, n.stop())
	}
	errs = append(errs, unmountLeft(d.up, d.mount))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("demo: clean up %s: %w", d.dir, err)
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return fmt.Errorf("demo: clean up: %w", err)
	}
	return nil
}
