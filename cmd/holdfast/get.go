package main

import (
	"context"
	"fmt"
	"io"
	"path"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) getCmd() *cobra.Command {
	var out string
	var force bool
	cmd := &cobra.Command{
		Use:   "get CID[/path]",
		Short: "copy content to the local file system",
		Long: `Writes a file or a whole tree to OUT, by default the last name of the path in the current directory. It gets its name when
it is whole: a failure or Ctrl-C leaves nothing there, and what was fetched stays in the local store, so the next try goes
on from there. Permissions and times come back where they were preserved (setuid and setgid bits never do).`,
		Example: "  holdfast get bafy…\n  holdfast get bafy…/2024/beach.jpg -o beach.jpg",
		Args:    args(1, 1, "one CID is"),
		RunE: a.withNode(func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
			read, err := a.read(cmd, args[0])
			if err != nil {
				return fmt.Errorf("get: %w", err)
			}
			if out == "" {
				out = path.Base(read.Ref.String())
			}
			return a.get(ctx, s.Client, read, out, force)
		}),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "where to write")
	cmd.Flags().BoolVar(&force, "force", false, "replace files that are there, write into a directory that is there")
	settingFlags(cmd, readFlags...)
	return cmd
}

func (a *app) get(ctx context.Context, c *api.Client, read api.Read, out string, force bool) error {
	if err := api.CheckOutput(out, force); err != nil {
		return fmt.Errorf("get %s: %w", read.Ref, err)
	}
	in, err := c.Export(ctx, read)
	if err != nil {
		return fmt.Errorf("get %s: %w", read.Ref, err)
	}
	defer in.Close()
	bar := ui.NewBar(a.err, "get", int64(in.Bytes))
	defer bar.End()
	if err := api.Unpack(in, out, api.UnpackOptions{Force: force, Progress: bar.Add}); err != nil {
		return fmt.Errorf("get %s: %w", read.Ref, err)
	}
	return nil
}

func (a *app) catCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cat CID[/path]…",
		Short:   "print files",
		Long:    "Writes the content of files to standard output, one after the other.",
		Example: "  holdfast cat bafy…/notes.txt | less",
		Args:    args(1, -1, "at least one CID is"),
		RunE: a.withNode(func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				read, err := a.read(cmd, arg)
				if err != nil {
					return fmt.Errorf("cat: %w", err)
				}
				if err := a.cat(ctx, s.Client, read); err != nil {
					return fmt.Errorf("cat %s: %w", read.Ref, err)
				}
			}
			return nil
		}),
	}
	settingFlags(cmd, readFlags...)
	return cmd
}

func (a *app) cat(ctx context.Context, c *api.Client, read api.Read) error {
	in, err := c.Cat(ctx, read)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{a.out}, struct{ io.Reader }{in}, make([]byte, 1<<20))
	return err
}

// readFlags are the settings that a command which reads content takes for itself.
var readFlags = []string{"timeout", "max-price", "budget"}

// read is what an argument names, with the command's flags.
func (a *app) read(cmd *cobra.Command, arg string) (api.Read, error) {
	ref, err := api.ParseRef(arg)
	if err != nil {
		return api.Read{}, err
	}
	cfg, err := a.readSettings(cmd)
	return api.Read{Ref: ref, Timeout: cfg.Timeout, Spending: spendingOf(cmd, cfg)}, err
}

// readSettings is what flags and variables say, zero where they say nothing: then the node's settings hold.
func (a *app) readSettings(cmd *cobra.Command) (cfg repo.Config, err error) {
	err = a.settings(cmd, &cfg)
	return cfg, err
}

// spendingOf is what the command may pay, as far as it says so.
func spendingOf(cmd *cobra.Command, cfg repo.Config) (s api.Spending) {
	if cfg.MaxPrice > 0 || cmd.Flags().Changed("max-price") {
		s.MaxPrice = &cfg.MaxPrice
	}
	if cfg.Budget > 0 || cmd.Flags().Changed("budget") {
		s.Budget = &cfg.Budget
	}
	return s
}
