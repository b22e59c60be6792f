package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) pinCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin CID…",
		Short: "fetch content whole and keep it",
		Long: `Fetches every block of content and keeps it until it is unpinned, whatever the quota drops and gc collects. An
interrupted pin keeps what it has; pin again goes on.`,
		Example: "  holdfast pin bafy…",
		Args:    args(1, -1, "at least one CID is"),
		RunE: a.withNode(func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				if err := a.pin(ctx, cmd, s.Client, arg); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	settingFlags(cmd, readFlags...)
	return cmd
}

func (a *app) pin(ctx context.Context, cmd *cobra.Command, c *api.Client, arg string) error {
	root, err := api.ParseCID(arg)
	if err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	cfg, err := a.readSettings(cmd)
	if err != nil {
		return err
	}
	bar := ui.NewBar(a.err, "pin", 0)
	defer bar.End()
	pin, err := c.Pin(ctx, api.Read{Ref: api.Ref{CID: root}, Timeout: cfg.Timeout, Spending: spendingOf(cmd, cfg)}, func(p api.Progress) { bar.Set(p.Bytes, p.TotalBytes) })
	if err != nil {
		return fmt.Errorf("pin %s: %w", root, err)
	}
	bar.End()
	fmt.Fprintf(a.out, "pinned %s, %s\n", pin.CID, ui.Count(pin.Blocks, "block"))
	return nil
}

func (a *app) unpinCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "unpin CID…",
		Short:   "keep content no longer",
		Long:    "Lets go of content that was added or pinned. Its blocks stay until the quota or gc drops them.",
		Example: "  holdfast unpin bafy… && holdfast gc",
		Args:    args(1, -1, "at least one CID is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
			for _, arg := range args {
				root, err := api.ParseCID(arg)
				if err == nil {
					err = s.Unpin(ctx, root)
				}
				if err != nil {
					return fmt.Errorf("unpin: %w", err)
				}
				fmt.Fprintf(a.out, "unpinned %s\n", root)
			}
			return nil
		}),
	}
}

func (a *app) pinsCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "pins",
		Short:   "list what is kept",
		Long:    "Lists the roots that were added or pinned, with the number of their blocks.",
		Example: "  holdfast pins",
		Args:    args(0, 0, "no argument is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, _ []string) error {
			pins, err := s.Pins(ctx)
			if err != nil {
				return fmt.Errorf("list pins: %w", err)
			}
			if asJSON {
				return ui.JSON(a.out, pins)
			}
			t := &ui.Table{Heads: []string{"CID", ">BLOCKS", "STATE"}}
			for _, p := range pins {
				state := "complete"
				if !p.Complete {
					state = "begun"
				}
				t.Add(p.CID, strconv.FormatUint(p.Blocks, 10), state)
			}
			return t.Print(a.out)
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) gcCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "gc",
		Short:   "drop every block that is not pinned",
		Long:    "Drops every block that no pinned root has, and gives the space back to the disk.",
		Example: "  holdfast gc",
		Args:    args(0, 0, "no argument is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, _ []string) error {
			res, err := s.GC(ctx)
			if err != nil {
				return fmt.Errorf("collect garbage: %w", err)
			}
			if asJSON {
				return ui.JSON(a.out, res)
			}
			fmt.Fprintf(a.out, "dropped %s, %s\n", ui.Count(res.Blocks, "block"), ui.Bytes(res.Bytes))
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
