package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) lsCmd() *cobra.Command {
	var long, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls CID[/path]",
		Short: "list a directory",
		Long: `Prints the names in a directory as they come, so that a huge one begins soon. -l adds kind, size, mode, time and CID, for
which the first block of each entry is fetched.`,
		Example: "  holdfast ls bafy…/2024\n  holdfast ls -l bafy…",
		Args:    args(1, 1, "one CID is"),
		RunE: a.withNode(func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
			read, err := a.read(cmd, args[0])
			if err != nil {
				return fmt.Errorf("ls: %w", err)
			}
			entries := []api.Entry{}
			out := bufio.NewWriterSize(a.out, 32<<10)
			defer out.Flush()
			for e, err := range s.List(ctx, read, long || asJSON) {
				if err != nil {
					return fmt.Errorf("ls %s: %w", read.Ref, err)
				}
				if !long && !asJSON {
					if _, err := fmt.Fprintln(out, ui.Printable(e.Name)); err != nil {
						return fmt.Errorf("ls: %w", err) // the reader has seen enough
					}
					continue
				}
				entries = append(entries, e)
			}
			if asJSON {
				return ui.JSON(a.out, entries)
			}
			return entryTable(entries).Print(a.out)
		}),
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "print kind, size, mode, time and CID too")
	jsonFlag(cmd, &asJSON)
	settingFlags(cmd, readFlags...)
	return cmd
}

func entryTable(entries []api.Entry) *ui.Table {
	t := &ui.Table{Heads: []string{"KIND", "MODE", ">BYTES", "TIME", "CID", "NAME"}}
	for _, e := range entries {
		name := ui.Printable(e.Name)
		if e.Kind == api.KindSymlink {
			name += " -> " + ui.Printable(e.Target)
		}
		t.Add(e.Kind, dash(e.Mode), strconv.FormatUint(e.Bytes, 10), timeOf(e), e.CID, name)
	}
	return t
}

func (a *app) statCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "stat CID[/path]",
		Short:   "describe a file or directory",
		Long:    "Prints what lies at a path: CID, kind, size, and mode and time where they were preserved.",
		Example: "  holdfast stat bafy…/2024/beach.jpg",
		Args:    args(1, 1, "one CID is"),
		RunE: a.withNode(func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
			read, err := a.read(cmd, args[0])
			if err != nil {
				return fmt.Errorf("stat: %w", err)
			}
			e, err := s.Stat(ctx, read)
			if err != nil {
				return fmt.Errorf("stat %s: %w", read.Ref, err)
			}
			if asJSON {
				return ui.JSON(a.out, e)
			}
			fmt.Fprintf(a.out, "cid    %s\nkind   %s\nbytes  %d\nmode   %s\ntime   %s\n", e.CID, e.Kind, e.Bytes, dash(e.Mode), timeOf(e))
			if e.Kind == api.KindSymlink {
				fmt.Fprintf(a.out, "target %s\n", ui.Printable(e.Target))
			}
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON)
	settingFlags(cmd, readFlags...)
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func timeOf(e api.Entry) string {
	if e.ModTime == nil {
		return "-"
	}
	return e.ModTime.Local().Format("2006-01-02 15:04:05")
}
