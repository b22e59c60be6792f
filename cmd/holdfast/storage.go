package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// listCmd is a command that lists what a node has of something.
func listCmd[T any](a *app, name, short, long string, list func(*api.Client, context.Context) ([]T, error), table func([]T) *ui.Table) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Long:    long,
		Example: "  holdfast " + name + "\n  holdfast " + name + " --json",
		Args:    args(0, 0, "no argument is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, _ []string) error {
			all, err := list(s.Client, ctx)
			if err != nil {
				return fmt.Errorf("list %s: %w", name, err)
			}
			if asJSON {
				return ui.JSON(a.out, all)
			}
			return table(all).Print(a.out)
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) linksCmd() *cobra.Command {
	return listCmd(a, "links", "list chunks at storage providers", "Lists storage links: which chunk lies with which provider, how far that has come, what it costs and what of that is paid, and why one failed.",
		(*api.Client).Links, func(all []api.Link) *ui.Table {
			t := &ui.Table{Heads: []string{"CHUNK", "PROVIDER", "STATE", ">BYTES", ">PRICE", ">PAID", "EXPIRES", "REASON"}}
			for _, l := range all {
				paid := uint64(0)
				if l.Paid {
					paid = l.Price
				}
				t.Add(l.Chunk, l.Provider, l.State, ui.Bytes(uint64(max(0, l.Bytes))), strconv.FormatUint(l.Price, 10), strconv.FormatUint(paid, 10), l.Expiry.Local().Format(time.DateTime), l.Reason)
			}
			return t
		})
}

func (a *app) providersCmd() *cobra.Command {
	return listCmd(a, "providers", "list storage providers", "Lists the storage providers that the node has met, with their terms, and what they keep for it.",
		(*api.Client).Providers, func(all []api.Provider) *ui.Table {
			t := &ui.Table{Heads: []string{"PROVIDER", ">FREE", ">PRICE", "REGION", ">LINKS", ">KEPT", "TROUBLE"}}
			for _, p := range all {
				free := "-"
				if p.Known {
					free = ui.Bytes(p.FreeBytes)
				}
				t.Add(p.ID, free, strconv.FormatUint(p.Price, 10), p.Region, strconv.Itoa(p.Links), ui.Bytes(uint64(max(0, p.Bytes))), p.Trouble)
			}
			return t
		})
}
