package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// app is one run of the command.
type app struct {
	in       io.Reader
	out, err io.Writer
	environ  func(string) (string, bool)

	repoFlag string
	logLevel string
}

// run runs a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := endOf(ctx, root.ExecuteContext(ctx))
	if o, ok := a.out.(*output); ok && err == nil {
		err = o.failure()
	}
	if err != nil {
		report(a.err, err)
	}
	return exitCode(err)
}

// root is the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "content-addressed data as ordinary directories",
		Long: `Holdfast mounts content by its CID as a read-only directory, and shares content with peers.

Commands talk to the daemon of the repo. Where none runs, a command does its work in its own process.`,
		Example: `  holdfast add --preserve ~/photos        # import a tree: prints its CID
  holdfast daemon &                       # share it, restore mounts
  holdfast mount bafy… /mnt/photos        # on this machine or another: an ordinary directory
  holdfast get bafy…/2024 -o ~/copy       # the same without a mount`,
		SilenceUsage:  true,
		SilenceErrors: true,

		SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := &usageError{fmt.Errorf("%q is no command", args[0])}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return hint.Add(err, "did you mean holdfast %s? holdfast --help lists the commands", near[0])
			}
			return hint.Add(err, "holdfast --help lists the commands")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&a.repoFlag, "repo", "", "directory of the node (default $HOLDFAST_PATH, else ~/.holdfast)")
	root.PersistentFlags().StringVar(&a.logLevel, "log-level", "", "debug, info, warn or error")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return hint.Add(&usageError{err}, "%s --help explains it", cmd.CommandPath())
	})
	root.AddCommand(a.initCmd(), a.daemonCmd(), a.idCmd(), a.connectCmd(), a.peersCmd(), a.channelsCmd(), a.uploadsCmd(), a.syncCmd(), a.linksCmd(), a.providersCmd(), a.verifyCmd(), a.repairCmd(),
		a.addCmd(), a.getCmd(), a.catCmd(), a.lsCmd(), a.statCmd(),
		a.mountCmd(), a.umountCmd(), a.mountsCmd(),
		a.pinCmd(), a.unpinCmd(), a.pinsCmd(), a.gcCmd(), a.statusCmd(), a.demoCmd(), a.versionCmd())
	return root
}

// args checks how many arguments a command has; most < 0 is any number.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		err := fmt.Errorf("%s: %s wanted, %d given", cmd.CommandPath(), what, len(args))
		return hint.Add(&usageError{err}, "%s", cmd.UseLine())
	}
}

// settingFlags gives a command flags for settings of the node, which hold where it starts one itself.
func settingFlags(cmd *cobra.Command, keys ...string) {
	for _, k := range repo.Keys() {
		if slices.Contains(keys, k.Name) {
			if k.List {
				cmd.Flags().StringSlice(k.Name, nil, k.Doc)
			} else {
				cmd.Flags().String(k.Name, "", k.Doc)
				if k.Flag {
					cmd.Flags().Lookup(k.Name).NoOptDefVal = "true"
				}
			}
		}
	}
}

// settings puts the environment's and the command line's settings over cfg.
func (a *app) settings(cmd *cobra.Command, cfg *repo.Config) error {
	if err := cfg.ApplyEnv(a.environ); err != nil {
		return err
	}
	if a.logLevel != "" {
		if err := cfg.Set("log-level", a.logLevel); err != nil {
			return &usageError{fmt.Errorf("--log-level: %w", err)}
		}
	}
	for _, k := range repo.Keys() {
		f := cmd.Flags().Lookup(k.Name)
		if f == nil || !f.Changed {
			continue
		}
		values := []string{f.Value.String()}
		if k.List {
			values, _ = cmd.Flags().GetStringSlice(k.Name)
		}
		if err := cfg.Set(k.Name, values...); err != nil {
			return &usageError{fmt.Errorf("--%s: %w", k.Name, err)}
		}
	}
	return nil
}
