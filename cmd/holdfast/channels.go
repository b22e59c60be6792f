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

func (a *app) channelsCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "channels",
		Short: "list payment channels",
		Long: `Lists the payment channels of the node: those it pays peers through, and those it is paid through. A channel holds a deposit,
each payment is a signed voucher of all that was paid so far, and the payee settles it with the ledger now and then. The ledger is
a file that the nodes of this machine share: bookkeeping, not money.`,
		Example: "  holdfast channels\n  holdfast channels close 12D3KooW…",
		Args:    args(0, 0, "no argument is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, _ []string) error {
			channels, err := s.Channels(ctx)
			if err != nil {
				return fmt.Errorf("list payment channels: %w", err)
			}
			return a.printChannels(channels, asJSON)
		}),
	}
	jsonFlag(cmd, &asJSON)
	cmd.AddCommand(a.closeChannelsCmd())
	return cmd
}

func (a *app) closeChannelsCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "close PEER",
		Short: "close the payment channels with a peer",
		Long: `Closes all payment channels with a peer. What it paid us is settled at once. Of what we laid down the rest comes back after a
day, in which the peer may still settle what we paid.`,
		Example: "  holdfast channels close 12D3KooW…",
		Args:    args(1, 1, "one peer ID is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
			channels, err := s.CloseChannels(ctx, args[0])
			if err != nil {
				return fmt.Errorf("close the channels with %s: %w", args[0], err)
			}
			return a.printChannels(channels, asJSON)
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) printChannels(channels []api.Channel, asJSON bool) error {
	if asJSON {
		return ui.JSON(a.out, channels)
	}
	t := &ui.Table{Heads: []string{"PEER", "DIRECTION", "FOR", "STATE", ">PAID", ">SETTLED", ">DEPOSIT", "OPENED"}}
	for _, c := range channels {
		t.Add(c.Peer, c.Direction, c.For, c.State, strconv.FormatUint(c.Amount, 10), strconv.FormatUint(c.Settled, 10),
			strconv.FormatUint(c.Deposit, 10), c.Opened.Local().Format(time.DateTime))
	}
	return t.Print(a.out)
}
